//! One line at one cursor: decode → candidates → filter → rerank → choose.

use super::Completion;
use super::candidates::{Candidate, Cursor, infill, renamed, search};
use super::filter;
use super::rerank::{self, Position};
use crate::Cancelled;
use crate::text::tokenizer::{END, TokenId};

/// The candidates at one cursor, each with its probability.
#[derive(Default)]
pub(super) struct Ranked {
    /// Those of the search first, in the order in which it found them.
    pub(super) candidates: Vec<Candidate>,
    /// ln of how much more probable the end of the text is here than a line break, by the model; where more lines may
    /// come.
    pub(super) log_odds_of_end: Option<f32>,
    /// Prompt tokens taken from the cache.
    pub(super) n_reused: usize,
    /// Prompt tokens computed.
    pub(super) n_prompt: usize,
}

impl Ranked {
    /// Whether nothing but a bracket that is not the text's own came first in the search.
    pub(super) fn closes_at_once(&self) -> bool {
        self.candidates.first().is_some_and(Candidate::closes_at_once)
    }

    /// The most probable candidate that may be shown, as it is shown, or `None` where silence is the better answer. Of
    /// equals the one found first.
    pub(super) fn best(self, suffix: &str, may_be_shown: impl Fn(&str) -> bool) -> Option<Completion> {
        let Self { mut candidates, n_reused, n_prompt, .. } = self;
        // Stable.
        candidates.sort_by(|a, b| b.p.total_cmp(&a.p));
        for candidate in candidates {
            let found = candidate.into_completion(suffix)?;
            if may_be_shown(&found.text) {
                return Some(Completion { n_reused, n_prompt, ..found });
            }
        }
        None
    }
}

/// All candidates at a cursor. With `is_multiline` more lines may come between the candidate and what follows.
pub(super) fn rank(
    mut cursor: Cursor<'_, '_>,
    is_multiline: bool,
    on_token: &mut dyn FnMut(TokenId),
) -> Result<Ranked, Cancelled> {
    let log_odds_of_end = if is_multiline { cursor.next_token.model_log_odds(&[END], &cursor.newlines) } else { None };
    let mut candidates = search::decode(&mut cursor, on_token)?;
    if cursor.reranks {
        infill::add(&cursor, &mut candidates);
        renamed::add(&cursor, &mut candidates);
    }
    filter::drop_unbalanced(&cursor, &mut candidates);
    if cursor.reranks {
        filter::drop_missing_members(&cursor, &mut candidates);
        let position = match cursor.is_within_line() {
            _ if is_multiline => Position::Multiline,
            true => Position::WithinLine,
            false => Position::LineEnd,
        };
        rerank::score_by_model(&mut cursor, &mut candidates)?;
        rerank::rerank(&mut cursor, &mut candidates, position);
    }
    Ok(Ranked { candidates, log_odds_of_end, ..Ranked::default() })
}
