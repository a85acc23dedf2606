//! Prompt to completion: decoding, its rules and where each token came from.
//!
//! ```text
//! prompt → tokens (the last one healed) → session ─┐
//!                          the memory's matches ───┴→ the next token's distribution
//!        → search · infill · renamed clones → filter → rerank → one line, and the next one until the text stops
//!        → trim what already follows
//! ```

mod completion;
/// The next token's distribution: model, memory, or their blend.
mod next_token;
mod trim;
/// The text generated so far: what may come next and where it ends.
mod generated;
mod candidates;
/// Candidates that are never shown.
mod filter;
/// What one line of Rust looks like.
mod line;
/// The small networks that the next two are.
mod network;
mod rerank;
/// Whether a text of several lines ends here.
mod stop;
/// Decode → candidates → filter → rerank → choose.
mod pipeline;
mod multiline;
mod completer;
/// Predictions of text that is known.
mod observe;
/// What the reranker and the stop classifier learn from.
mod training_data;

pub use completer::Completer;
pub use completion::{CompleteError, Completion, FULL_BUDGET_PARAMS, Limits, Predictors, Stop, TokenSource};
pub use observe::Observation;
pub use rerank::{RERANK_UNITS, rerank_weights};
pub use stop::{STOP_UNITS, stop_weights};
pub use training_data::{ScoredLine, StopSample};

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
