//! Why an evaluation ends without a report.

use nanochat_engine::Cancelled;
use nanochat_engine::complete::CompleteError;

use crate::check::CheckError;
use crate::record::RecordError;
use crate::system::SystemError;
use crate::system::server::ServerError;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Nothing to cut holes from.
    #[error("no held-out file has a hole that passes the filters; evaluate a larger workspace")]
    NoHoles,
    /// The time limit is no duration: negative, not a number or too long.
    #[error("a compiler run cannot be limited to {seconds} seconds; give a positive number")]
    Timeout {
        /// The limit as it was given.
        seconds: f64,
    },
    /// Records cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The workspace cannot be checked.
    #[error(transparent)]
    Check(CheckError),
    /// The completer fails.
    #[error(transparent)]
    Complete(CompleteError),
    /// The server of another system fails.
    #[error(transparent)]
    Server(ServerError),
    /// A control shows that the measurement is wrong: no figure of this run can be trusted.
    #[error("the run is invalid: {why}; does the workspace's build depend on time, chance or a slow machine?")]
    Invalid {
        /// Which control failed, and where.
        why: String,
    },
    /// The caller cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl From<CheckError> for EvalError {
    fn from(error: CheckError) -> Self {
        error.cancelled().map_or(Self::Check(error), Self::Cancelled)
    }
}

impl From<SystemError> for EvalError {
    fn from(error: SystemError) -> Self {
        match error {
            SystemError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            SystemError::Complete(error) => error.into(),
            SystemError::Server(error) => Self::Server(error),
        }
    }
}

impl From<CompleteError> for EvalError {
    fn from(error: CompleteError) -> Self {
        match error {
            CompleteError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            error => Self::Complete(error),
        }
    }
}
