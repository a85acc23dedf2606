//! Checkpoint to numbers: how often what is suggested compiles, on code that nobody has trained on.
//!
//! ```text
//! Suite → holes → filters (truth compiles, canary fails, empty fails) → systems → sandbox → records → Report
//! ```
//!
//! The only crate that runs generated code, and only in [`sandbox`]. It knows the engine and the compiler; it
//! knows no editor, no candle and no terminal.

// What is measured on.
pub mod holes; // ranges of a file to fill, and how much of a completion counts
pub mod suite; // projects that holes are cut from, and what may be known of them

// Who is measured.
pub mod system; // the model, its controls and other servers behind one trait

// How a completion is judged.
pub mod check; // does it compile? many at a time
pub mod sandbox; // where untrusted code runs
pub mod similarity; // how near it comes to the truth

// One run, stage by stage.
mod error;
mod event;
pub mod record; // what the stages write and read
pub mod run; // filter → generate → score

// What a run shows.
pub mod report; // table, comparison, baseline, HTML page
pub mod stats; // intervals and tests

pub use error::EvalError;
pub use event::Event;
pub use report::Report;
pub use run::{Plan, evaluate, evaluate_and_audit, merge};
pub use suite::{Knowledge, Known, known_files, memory_of};
