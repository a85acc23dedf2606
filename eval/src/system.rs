//! Who fills holes: the product, the controls it is measured against, and other systems. To the runner they are all
//! the same.

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

/// A project whose holes come next.
#[derive(Clone, Copy, Debug)]
pub struct ProjectContext<'a> {
    /// The texts that holes are cut from, by file. Only the truth may look.
    pub texts: &'a BTreeMap<String, String>,
    /// What may be known besides the file at hand. A file of this name is the one at hand as it was saved: it is to be
    /// left out, for it holds the answer.
    pub known: &'a Known,
}

/// What a system may see of a hole.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The file, relative to the workspace's root.
    pub file: &'a str,
    /// What was cut out; the answer is read up to the end of one such thing.
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
    /// As it was before anything was cut out.
    pub text: &'a str,
    /// Where its holes lie.
    pub holes: &'a [Range<usize>],
}

/// What a system says to a hole. Everything but `text` may be absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// Text for the hole; `None` where it stays silent.
    pub text: Option<String>,
    /// Tokens generated, shown or not.
    pub tokens: Option<usize>,
    /// How sure it is, 0..=1.
    pub confidence: Option<f64>,
}

/// Something that fills holes.
pub trait System {
    /// Its name in the report.
    fn name(&self) -> &str;

    /// Hears which project the next tasks are of.
    fn enter(&mut self, scene: &ProjectContext<'_>, cancel: &Cancel) -> Result<(), SystemError> {
        let _ = scene;
        Ok(cancel.check()?)
    }

    /// Text for the hole, or silence. The runner takes the time.
    fn complete(&mut self, task: &Task<'_>, cancel: &Cancel) -> Result<Completion, SystemError>;

    /// What these bytes of a file cost it, each given the file up to there; `None` where it gives no probabilities.
    /// Asked once for all holes of a file, and outside of the answers' time.
    fn costs(&mut self, text: &FileText<'_>, cancel: &Cancel) -> Result<Option<Vec<Score>>, SystemError> {
        let _ = text;
        cancel.check()?;
        Ok(None)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SystemError {
    /// The completer cannot answer.
    #[error(transparent)]
    Complete(CompleteError),
    /// The server cannot.
    #[error(transparent)]
    Server(server::ServerError),
    /// The caller cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// How long an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CompletionLimits {
    pub(crate) max_tokens: usize,
    pub(crate) max_lines: usize,
}

/// The same for every system and every hole of a kind: the length of the truth is not to be known.
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
    /// The hole as a system sees it; `text` is the file's.
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
    /// The text up to two lines after the last hole: what follows changes neither what the holes cost nor how they are
    /// cut into tokens.
    fn to_last_hole(self) -> &'a str {
        let end = self.holes.iter().map(|hole| hole.end).max().unwrap_or(0);
        let lines = self.text[end..].match_indices('\n');
        let more = lines.map(|(at, _)| at + 1).nth(2).unwrap_or(self.text.len() - end);
        &self.text[..end + more]
    }

    /// Whether a hole lies within these bytes, in part at least.
    fn is_asked(&self, bytes: &Range<usize>) -> bool {
        self.holes.iter().any(|hole| hole.start < bytes.end && bytes.start < hole.end)
    }

    /// What the holes cost, of a text whose tokens end and cost as stated.
    fn scores(&self, costs: &[(usize, f64)]) -> Vec<Score> {
        self.holes.iter().map(|hole| part(costs, hole.clone())).collect()
    }
}

/// What the bytes `range` cost, of a text whose tokens end and cost as stated. A token that reaches beyond the range is
/// charged by the share of its bytes within.
fn part(costs: &[(usize, f64)], range: Range<usize>) -> Score {
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
    fn a_hole_is_charged_the_part_of_each_token_that_lies_in_it() {
        let costs = [(4, 8.0), (6, 1.0), (10, 4.0)];
        assert_eq!(part(&costs, 2..6), Score { bits: 5.0, bytes: 4, tokens: 2 });
        assert_eq!(part(&costs, 0..10), Score { bits: 13.0, bytes: 10, tokens: 3 });
        assert_eq!(part(&costs, 7..8), Score { bits: 1.0, bytes: 1, tokens: 1 });
        assert_eq!(part(&costs, 4..4), Score { bits: 0.0, bytes: 0, tokens: 0 });
        assert_eq!(part(&[], 0..3).tokens, 0);
    }
}
