//! Systems that fill holes: the product, the controls that it is compared with, and other servers, all behind the trait
//! [`System`].
//!
//! ```text
//! enter(project) → complete(hole) … → costs(file): bits per byte of the truth
//! ```

mod control;
mod copy;
mod model;
mod ngram;
pub mod server;

use std::collections::BTreeMap;
use std::ops::Range;

use nanochat_engine::complete::CompleteError;
use nanochat_engine::score::Score;
use nanochat_engine::{Cancel, Cancelled};

use crate::holes::{Hole, HoleKind};
use crate::suite::Known;

pub use control::{Empty, Truth};
pub use copy::{Copy, RandomLine};
pub use model::{Model, PRODUCT};
pub use ngram::Ngram;
pub use server::Server;

/// The project whose holes come next, and what may be known of it.
#[derive(Clone, Copy, Debug)]
pub struct ProjectContext<'a> {
    /// The texts that holes are cut from, by file. Only [`Truth`] may look at them.
    pub texts: &'a BTreeMap<String, String>,
    /// What may be known in addition to the current file. If the current file itself is among it, the system must
    /// ignore it, since it contains the truth.
    pub known: &'a Known,
}

/// What a system may see of a hole.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The file, relative to the workspace's root.
    pub file: &'a str,
    /// Which kind of code was cut out; of the completion only the first such unit counts.
    pub kind: HoleKind,
    /// The file up to the cursor.
    pub prefix: &'a str,
    /// The file after the hole.
    pub suffix: &'a str,
}

/// A file with its truth, and the bytes of it that were cut out.
#[derive(Clone, Copy, Debug)]
pub struct FileText<'a> {
    /// Relative to the workspace's root.
    pub file: &'a str,
    /// The file's text before anything was cut out.
    pub text: &'a str,
    /// Byte ranges of its holes.
    pub holes: &'a [Range<usize>],
}

/// What a system proposes for a hole. Everything but `text` is optional.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// Text for the hole; `None` if the system shows nothing.
    pub text: Option<String>,
    /// Tokens generated, shown or not.
    pub tokens: Option<usize>,
    /// The system's confidence that the text is right, 0..=1.
    pub confidence: Option<f64>,
}

/// Something that completes code at a cursor.
pub trait System {
    /// The name in reports; two systems of a run have different names.
    fn name(&self) -> &str;

    /// Prepares for the tasks of a project.
    fn enter(&mut self, scene: &ProjectContext<'_>, cancel: &Cancel) -> Result<(), SystemError> {
        let _ = scene;
        Ok(cancel.check()?)
    }

    /// Completes one hole. The caller measures the time.
    fn complete(&mut self, task: &Task<'_>, cancel: &Cancel) -> Result<Completion, SystemError>;

    /// Bits that each hole of a file costs the system given the file up to there; `None` if it gives no probabilities.
    /// Called once for all holes of a file; its time is not part of the latency.
    fn costs(&mut self, text: &FileText<'_>, cancel: &Cancel) -> Result<Option<Vec<Score>>, SystemError> {
        let _ = text;
        cancel.check()?;
        Ok(None)
    }
}

/// Why a system fails. No completion is not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SystemError {
    /// The completer fails.
    #[error(transparent)]
    Complete(CompleteError),
    /// The server fails, or cannot be reached.
    #[error(transparent)]
    Server(server::ServerError),
    /// The caller cancelled the run.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Longest completion that a system may generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CompletionLimits {
    pub(crate) max_tokens: usize,
    pub(crate) max_lines: usize,
}

/// The limits of a kind of hole, the same for every system: they must not reveal the length of the truth.
pub(crate) fn limits(kind: HoleKind) -> CompletionLimits {
    let (max_tokens, max_lines) = match kind {
        HoleKind::Expression => (32, 1),
        HoleKind::LineTail | HoleKind::NextLine | HoleKind::RestOfLine => (48, 1),
        HoleKind::Statement => (96, 8),
        HoleKind::Block => (128, 12),
        HoleKind::FunctionBody => (192, 24),
    };
    CompletionLimits { max_tokens, max_lines }
}

impl From<Option<String>> for Completion {
    fn from(text: Option<String>) -> Self {
        Self { text, ..Self::default() }
    }
}

impl Task<'_> {
    /// The hole as a system sees it; `text` is the file's whole text.
    pub fn of<'a>(hole: &'a Hole, text: &'a str) -> Task<'a> {
        Task { file: &hole.file, kind: hole.kind, prefix: &text[..hole.start], suffix: &text[hole.end..] }
    }
}

impl From<CompleteError> for SystemError {
    fn from(error: CompleteError) -> Self {
        match error {
            CompleteError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            error => Self::Complete(error),
        }
    }
}

impl From<server::ServerError> for SystemError {
    fn from(error: server::ServerError) -> Self {
        match error {
            server::ServerError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            error => Self::Server(error),
        }
    }
}

impl<'a> FileText<'a> {
    /// The text up to two lines after the last hole: the rest changes neither the costs of the holes nor their
    /// tokenization.
    fn to_last_hole(self) -> &'a str {
        let end = self.holes.iter().map(|hole| hole.end).max().unwrap_or(0);
        let lines = self.text[end..].match_indices('\n');
        let more = lines.map(|(at, _)| at + 1).nth(2).unwrap_or(self.text.len() - end);
        &self.text[..end + more]
    }

    /// Whether a hole overlaps these bytes.
    fn overlaps_hole(&self, bytes: &Range<usize>) -> bool {
        self.holes.iter().any(|hole| hole.start < bytes.end && bytes.start < hole.end)
    }

    /// Costs of the holes, from (end, bits) of each token of the text.
    fn scores(&self, costs: &[(usize, f64)]) -> Vec<Score> {
        self.holes.iter().map(|hole| cost_of_range(costs, hole.clone())).collect()
    }
}

/// Cost of the bytes `range`, from (end, bits) of each token of the text. A token that extends beyond the range counts
/// by its share of bytes within.
fn cost_of_range(costs: &[(usize, f64)], range: Range<usize>) -> Score {
    let mut score = Score { bits: 0.0, bytes: range.len(), tokens: 0 };
    let first = costs.partition_point(|&(end, _)| end <= range.start);
    let mut start = first.checked_sub(1).map_or(0, |before| costs[before].0);
    for &(end, bits) in &costs[first..] {
        if start >= range.end {
            break;
        }
        let within = end.min(range.end).saturating_sub(start.max(range.start));
        score.bits += bits * within as f64 / (end - start) as f64;
        score.tokens += 1;
        start = end;
    }
    score
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_charged_for_the_share_of_each_token_inside_it() {
        let costs = [(4, 8.0), (6, 1.0), (10, 4.0)];
        assert_eq!(cost_of_range(&costs, 2..6), Score { bits: 5.0, bytes: 4, tokens: 2 });
        assert_eq!(cost_of_range(&costs, 0..10), Score { bits: 13.0, bytes: 10, tokens: 3 });
        assert_eq!(cost_of_range(&costs, 7..8), Score { bits: 1.0, bytes: 1, tokens: 1 });
        assert_eq!(cost_of_range(&costs, 4..4), Score { bits: 0.0, bytes: 0, tokens: 0 });
        assert_eq!(cost_of_range(&[], 0..3).tokens, 0);
    }
}
