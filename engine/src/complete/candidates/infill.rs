//! Infill candidates: lines that occur elsewhere between the same text before and after the cursor.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Candidate, Cursor};
use crate::memory::{InfillQuery, Tier};

/// Candidates that the search has not found, at most.
const MOST: usize = 6;

/// How well the occurrence that agrees best agrees with the cursor.
#[derive(Clone, Copy, Debug)]
pub(in crate::complete) struct InfillMatch {
    /// Tokens before it that are before the cursor too.
    pub(in crate::complete) n_before: u32,
    /// Tokens after it that follow the cursor too.
    pub(in crate::complete) n_after: u32,
    /// Whether it is in the live file.
    pub(in crate::complete) is_from_this_file: bool,
    /// How often the line occurs so.
    pub(in crate::complete) n_occurrences: usize,
}

impl InfillMatch {
    fn agreement(&self) -> u32 {
        2 * self.n_before + self.n_after
    }
}

/// Adds infill candidates, and records for those that were found already where they occur.
pub(in crate::complete) fn add(cursor: &Cursor<'_, '_>, candidates: &mut Vec<Candidate>) {
    let mut by_text = matches_by_text(cursor);
    for candidate in candidates.iter_mut() {
        candidate.infill = by_text.remove(candidate.path.text.bytes.trim_ascii_end());
    }
    let mut others: Vec<(Vec<u8>, InfillMatch)> = by_text.into_iter().collect();
    // Stable: of equals in the order of their texts.
    others.sort_by_key(|(_, infill)| Reverse(infill.agreement()));
    for (text, infill) in others.into_iter().take(MOST) {
        candidates.push(Candidate { infill: Some(infill), ..cursor.candidate(&text) });
    }
}

/// The best match of each text, which starts with the healed bytes.
fn matches_by_text(cursor: &Cursor<'_, '_>) -> BTreeMap<Vec<u8>, InfillMatch> {
    let mut by_text: BTreeMap<Vec<u8>, InfillMatch> = BTreeMap::new();
    let Some(memory) = &cursor.next_token.memory else { return by_text };
    let healed = &cursor.start.text.healed;
    let tokenizer = cursor.next_token.tokenizer;
    let query = InfillQuery {
        before: &cursor.all[cursor.file_start..cursor.n_prompt],
        healed,
        after: &cursor.suffix,
        after_bytes: &cursor.suffix_bytes,
        tokenizer,
    };
    let mut found = Vec::new();
    memory.infill(&query, &mut found);
    for occurrence in found {
        let mut text = tokenizer.decode(&occurrence.tokens);
        text.truncate(text.len() - occurrence.n_cut);
        let text = text.trim_ascii_end();
        if !text.starts_with(healed) || text.len() == healed.len() {
            continue;
        }
        let this = InfillMatch {
            n_before: occurrence.n_before,
            n_after: occurrence.n_after,
            is_from_this_file: occurrence.tier == Tier::File,
            n_occurrences: 1,
        };
        match by_text.get_mut(text) {
            None => {
                by_text.insert(text.to_vec(), this);
            }
            Some(best) => {
                let n_occurrences = best.n_occurrences + 1;
                if this.agreement() > best.agreement() {
                    *best = this;
                }
                best.n_occurrences = n_occurrences;
            }
        }
    }
    by_text
}
