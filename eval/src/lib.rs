//! Checkpoint to numbers.
//!
//! ```text
//! Suite → holes → gates (truth compiles, canary fails, empty fails) → contestants → sandbox → records → Report
//! ```
//!
//! The only crate that runs generated code, and only in [`sandbox`]. It knows the engine and the compiler; it
//! knows no editor, no candle and no terminal.

pub mod audit;
mod cache;
pub mod check;
pub mod contestant;
mod degenerate;
pub mod holes;
pub mod html;
mod invocation;
mod known;
mod leak;
pub mod record;
pub mod report;
mod run;
pub mod sandbox;
pub mod similarity;
mod source;
mod stage;
pub mod stats;
pub mod suite;
mod unit;

use nanochat_engine::Cancelled;
use nanochat_engine::complete::CompleteError;

use contestant::FillError;
pub use known::{Knowledge, Known, known_files, memory_of};
pub use report::Report;
pub use run::{Plan, evaluate, evaluate_and_audit, merge};
pub use stage::StageError;
pub use unit::first as counted;

/// Progress, in the order it happens.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// Packages are built as they are.
    Building {
        /// How many, without their dependencies.
        packages: usize,
    },
    /// Projects have their holes.
    Gated {
        /// Done.
        done: usize,
        /// In all.
        total: usize,
    },
    /// A system filled holes.
    Filled {
        /// Its name.
        system: String,
        /// Done.
        done: usize,
        /// In all.
        total: usize,
    },
    /// Verdicts were found again.
    Audited {
        /// Done.
        done: usize,
        /// In all.
        total: usize,
    },
    /// A system's answers are judged.
    Scored {
        /// Its name.
        system: String,
        /// Done.
        done: usize,
        /// In all.
        total: usize,
    },
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Nothing to cut holes from.
    #[error("no held-out file has a hole that passes the gates; evaluate a larger workspace")]
    NoHoles,
    /// Not a duration.
    #[error("a compiler run cannot be limited to {seconds} seconds; give a positive number")]
    Timeout {
        /// As it was given.
        seconds: f64,
    },
    /// Records cannot be read or written.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The workspace cannot be checked.
    #[error(transparent)]
    Check(check::CheckError),
    /// The completer cannot answer.
    #[error(transparent)]
    Complete(CompleteError),
    /// Another system cannot take part.
    #[error(transparent)]
    Server(contestant::server::ServerError),
    /// The measurement contradicts itself: no figure of this run may be believed.
    #[error("the run is void, {why}; does the workspace's build depend on time, chance or a slow machine?")]
    Void {
        /// Which control failed.
        why: String,
    },
    /// The caller cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl From<check::CheckError> for EvalError {
    fn from(error: check::CheckError) -> Self {
        error.cancelled().map_or(Self::Check(error), Self::Cancelled)
    }
}

impl From<FillError> for EvalError {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            FillError::Complete(error) => error.into(),
            FillError::Server(error) => Self::Server(error),
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
