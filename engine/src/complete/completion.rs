//! What is asked for and what comes back.

use crate::{Cancelled, Sampling};

/// How much is written, how tokens are chosen, and how far the search goes.
///
/// ```
/// use nanochat_engine::{Limits, Sampling};
///
/// let line = Limits::default();
/// assert_eq!((line.max_lines, line.sampling), (1, Sampling::Greedy));
/// // Up to eight lines, each chosen among candidates; the text ends where what follows the cursor should come next.
/// let several = Limits { max_lines: 8, max_tokens: 200, ..Limits::default() };
/// // Token after token, without other candidates.
/// let greedy = Limits { search_budget: 0, ..Limits::default() };
/// assert_ne!(several, greedy);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Most tokens generated.
    pub max_tokens: usize,
    /// Most lines with content; with 1 the completion ends with the line.
    pub max_lines: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Of the random numbers of `Sampling::TopP`; the same seed gives the same text.
    pub seed: u64,
    /// Tokens that the search may try beyond those of the first line, to find a more probable one. The whole of it is
    /// used by the memory alone, or with a model of up to [`FULL_BUDGET_PARAMS`] parameters; less in proportion with a
    /// larger one, which also scores fewer of the candidates that the search has not found. Only for
    /// `Sampling::Greedy`. With 0 there is one candidate and nothing is reranked.
    pub search_budget: usize,
}

/// Parameters of the largest model with which all of [`Limits::search_budget`] is used: one of 25 million, which takes
/// three times as long for a token, gets a quarter of it.
pub const FULL_BUDGET_PARAMS: usize = 6_000_000;

impl Default for Limits {
    fn default() -> Self {
        Self { max_tokens: 48, max_lines: 1, sampling: Sampling::Greedy, seed: 0, search_budget: 64 }
    }
}

/// Which of model and memory predict the next token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predictors {
    /// Both, mixed by the blend's weights.
    #[default]
    #[serde(rename = "both", alias = "blend")]
    Blend,
    /// The transformer alone.
    ModelOnly,
    /// The memory alone.
    MemoryOnly,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The text after the cursor comes next.
    End,
    /// `max_lines` were written.
    Lines,
    /// A bracket that the suffix closes, or that is not open, would have been closed.
    Bracket,
    /// `max_tokens`, or as many as half of the context holds, were generated.
    Tokens,
    /// The text started to repeat itself.
    Repeat,
    /// Neither model nor memory could predict anything.
    Silence,
}

/// Which of the two gave a token more of its probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// The transformer.
    Model,
    /// The workspace's own text.
    Memory,
}

/// Text to insert at the cursor.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Never empty; valid UTF-8; without what already precedes or follows the cursor.
    pub text: String,
    /// Why it ends there.
    pub stop: Stop,
    /// The probability, within 0..=1, that this whole text is what was meant and that it ends there. Of a line that was
    /// chosen among candidates, the calibrated one of the reranker; of several lines, the product of each line's and,
    /// where the text could have ended, that of the stop classifier. Where nothing is reranked (`search_budget` 0,
    /// sampling, or the model alone) it is the next-token distributions' own estimate of the same, and no classifier
    /// corrects it.
    pub confidence: f32,
    /// One per generated token that is part of `text`.
    pub sources: Vec<TokenSource>,
    /// Prompt tokens taken from the cache.
    pub n_reused: usize,
    /// Prompt tokens computed.
    pub n_prompt: usize,
    /// Tokens of the text that was chosen, shown or not.
    pub n_generated: usize,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompleteError {
    /// The caller no longer wants one.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// There is neither a model nor a memory.
    #[error("there is neither a model nor a memory to answer from; run `cargo nanochat train`")]
    Nothing,
}
