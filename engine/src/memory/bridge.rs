//! Text that stood elsewhere between what stands before and behind the cursor.
//!
//! ```text
//! places ← where the text before the cursor occurs, the longest matches first       tokens up to the line's end
//!        + where the text behind it occurs                                           tokens back to where the line's begin agrees
//! ```
//!
//! A lookup reads from left to right and cannot know that the line after next is the same as in another file. Here both
//! sides count.

use super::lookup::{Bridge, Tier};
use crate::Tokenizer;
use crate::text::tokenizer::{END, TokenId};

/// Places that are looked at in one tier, from each side.
pub(super) const MOST_PLACES: usize = 64;
/// Tokens of a line, and of what is compared on each side.
pub(super) const MOST_TOKENS: usize = 32;
/// Tokens behind the cursor that are searched for, the first of these that is found.
pub(super) const RIGHT: [usize; 4] = [16, 8, 4, 2];

/// What stands on the two sides of the cursor.
pub struct Sides<'a> {
    /// The text up to the cursor, without what is healed.
    pub before: &'a [TokenId],
    /// Bytes before the cursor that the text in between has to begin with.
    pub healed: &'a [u8],
    /// The text from the cursor on, and the same as bytes.
    pub behind: &'a [TokenId],
    /// See `behind`.
    pub behind_bytes: &'a [u8],
    /// Of the tokens.
    pub tokenizer: &'a Tokenizer,
}

impl Sides<'_> {
    /// What follows a place whose text before it has `n_before` tokens in common with that before the cursor.
    pub(super) fn of_left(&self, tier: Tier, n_before: usize, following: &[TokenId]) -> Option<Bridge> {
        let n_healed = self.healed.len();
        let mut n_bytes = 0;
        let mut best: Option<End> = None;
        let mut offer = |end: End| {
            if best.as_ref().is_none_or(|best| end.n_behind >= best.n_behind) {
                best = Some(end);
            }
        };
        for (at, &token) in following.iter().enumerate() {
            let bytes = self.tokenizer.token_bytes(token);
            let known = &self.healed[n_bytes.min(n_healed)..];
            let n_known = bytes.len().min(known.len());
            let ends_line = token == END || bytes[n_known..].contains(&b'\n');
            if n_bytes > n_healed || (n_bytes == n_healed && n_healed == 0 && at > 0) {
                // What is left of the cursor's line stays: the text in between may end before its line does.
                let n_behind = common(&following[at..], self.behind);
                if n_behind > 0 || ends_line {
                    offer(End { n_tokens: at, n_cut: 0, n_behind });
                }
            }
            if ends_line || bytes[..n_known] != known[..n_known] {
                break;
            }
            // Or within a token: of `();` the last two may follow the cursor.
            for cut in (n_healed + 1).saturating_sub(n_bytes).max(1)..bytes.len() {
                let n_behind = self.common_bytes(&bytes[cut..], &following[at + 1..]);
                if n_behind > 0 {
                    offer(End { n_tokens: at + 1, n_cut: bytes.len() - cut, n_behind });
                }
            }
            n_bytes += bytes.len();
        }
        let End { n_tokens, n_cut, n_behind } = best?;
        let tokens = following[..n_tokens].to_vec();
        Some(Bridge { tier, n_before: n_before as u32, n_behind: n_behind as u32, tokens, n_cut })
    }

    /// How many tokens stand behind the cursor too, beginning with the end of one.
    fn common_bytes(&self, end: &[u8], following: &[TokenId]) -> usize {
        let Some(mut rest) = self.behind_bytes.strip_prefix(end) else { return 0 };
        let mut n = 1;
        for &token in following.iter().take_while(|token| **token != END) {
            let Some(behind) = rest.strip_prefix(self.tokenizer.token_bytes(token)) else { break };
            (rest, n) = (behind, n + 1);
        }
        n
    }

    /// What stands before a place whose text from it on has `n_behind` tokens in common with that behind the cursor;
    /// `preceding` has the nearest first.
    pub(super) fn of_right(&self, tier: Tier, n_behind: usize, preceding: &[TokenId]) -> Option<Bridge> {
        let mut best: Option<(usize, usize)> = None;
        let mut text = Vec::new();
        for (at, &token) in preceding.iter().enumerate() {
            if token == END {
                break;
            }
            let bytes = self.tokenizer.token_bytes(token);
            text.splice(0..0, bytes.iter().copied());
            let is_new = text.starts_with(self.healed) && text.len() > self.healed.len();
            if is_new && !text[self.healed.len()..].contains(&b'\n') {
                let rest = preceding[at + 1..].iter().zip(self.before.iter().rev());
                let n_before = rest.take_while(|(a, b)| a == b && **a != END).count();
                if n_before > 0 && best.is_none_or(|(_, n)| n_before > n) {
                    best = Some((at + 1, n_before));
                }
            }
            // The break that the line begins behind may be healed.
            if bytes.contains(&b'\n') {
                break;
            }
        }
        let (n, n_before) = best?;
        Some(Bridge {
            tier,
            n_before: n_before.min(MOST_TOKENS) as u32,
            n_behind: n_behind as u32,
            tokens: preceding[..n].iter().rev().copied().collect(),
            n_cut: 0,
        })
    }
}

/// Where a text in between may end.
struct End {
    n_tokens: usize,
    /// Bytes of the last token that belong to what follows.
    n_cut: usize,
    n_behind: usize,
}

fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b && **a != END).count()
}

#[cfg(test)]
mod tests;
