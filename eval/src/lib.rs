//! Checkpoint to numbers.
//!
//! ```text
//! held-out files → holes → gates (truth compiles, canary fails, empty fails) → contestants → sandbox → metrics → Report
//! ```
//!
//! The only crate that runs generated code, and only in [`sandbox`]. It knows the engine and the compiler; it
//! knows no editor, no candle and no terminal.

pub mod check;
pub mod contestant;
mod degenerate;
pub mod holes;
mod invocation;
mod known;
pub mod metrics;
pub mod report;
mod run;
pub mod sandbox;
mod source;
mod unit;

use std::path::PathBuf;

use nanochat_engine::complete::CompleteError;
use nanochat_engine::{Cancel, Cancelled, Completer, Sources};

pub use known::{known_files, memory_of};
pub use report::Report;
pub use run::evaluate_with;

/// What to evaluate on.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose code.
    pub sources: Sources,
    /// Files whose holes are filled, relative to the root: the model and the memory have not seen them.
    pub held_out: Vec<PathBuf>,
    /// Most holes that pass the gates.
    pub max_holes: usize,
    /// Which holes are drawn.
    pub seed: u64,
    /// Longest that one compiler run may take, seconds.
    pub timeout_s: f64,
    /// Whether cargo is told `--offline`. (It is run in any case: checking executes what the workspace configures.)
    pub offline: bool,
}

/// Progress, in the order it happens.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// Holes were cut.
    Cut {
        /// Before the gates.
        n_holes: usize,
    },
    /// Compiler runs done, of those known so far.
    Checked {
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
    /// A path that is not the workspace's.
    #[error("held-out file {path} is not inside the workspace; name it relative to the workspace's root")]
    Outside {
        /// As it was given.
        path: PathBuf,
    },
    /// Not a duration.
    #[error("a compiler run cannot be limited to {seconds} seconds; give a positive number")]
    Timeout {
        /// As it was given.
        seconds: f64,
    },
    /// The workspace cannot be checked.
    #[error(transparent)]
    Check(check::CheckError),
    /// The completer cannot answer.
    #[error(transparent)]
    Complete(CompleteError),
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

impl From<CompleteError> for EvalError {
    fn from(error: CompleteError) -> Self {
        match error {
            CompleteError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            error => Self::Complete(error),
        }
    }
}

/// Cuts holes, fills them with the completer and with the baselines (truth, empty, copy-longest-match), and
/// compiles each. The caller has given the completer the memory of the [`known_files`]: [`memory_of`].
pub fn evaluate(
    options: &Options,
    completer: &mut Completer,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
) -> Result<Report, EvalError> {
    evaluate_with(options, &mut [&mut contestant::Model::new(completer)], events, cancel)
}
