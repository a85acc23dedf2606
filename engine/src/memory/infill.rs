//! Infill candidates: text that occurs elsewhere between the same texts as before and after the cursor.
//!
//! ```text
//! occurrences of the text before the cursor, the longest matches first   → tokens up to the end of the line
//! occurrences of the text after it                                       → tokens back to where the line's start agrees
//! ```
//!
//! A lookup reads from left to right and cannot know that the line after next is the same as in another file. Here both
//! sides count.

use crate::Tokenizer;
use crate::text::tokenizer::{END, TokenId};
use crate::tier::Tier;

/// Occurrences that are looked at in one tier, for each side.
pub(super) const MOST_OCCURRENCES: usize = 64;
/// Tokens of a line, and of what is compared on each side.
pub(super) const MOST_TOKENS: usize = 32;
/// How many tokens after the cursor are searched for: the first of these that is found.
pub(super) const SUFFIX_LENS: [usize; 4] = [16, 8, 4, 2];

/// The text on both sides of the cursor.
pub struct InfillQuery<'a> {
    /// The text up to the cursor, without what is healed.
    pub before: &'a [TokenId],
    /// Bytes before the cursor that a candidate has to start with.
    pub healed: &'a [u8],
    /// The text from the cursor on.
    pub after: &'a [TokenId],
    /// The same text as bytes.
    pub after_bytes: &'a [u8],
    /// What all tokens here are of.
    pub tokenizer: &'a Tokenizer,
}

/// The rest of a line that occurs elsewhere between the same text as before and after the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfillCandidate {
    /// Whose code it is.
    pub tier: Tier,
    /// Tokens directly before it that are before the cursor too.
    pub n_before: u32,
    /// Tokens directly after it that follow the cursor too.
    pub n_after: u32,
    /// Never empty; without the line break.
    pub tokens: Vec<TokenId>,
    /// Bytes of the last token that already follow the cursor.
    pub n_cut: usize,
}

impl InfillQuery<'_> {
    /// What follows an occurrence of the last `n_before` tokens before the cursor.
    pub(super) fn candidate_after(
        &self,
        tier: Tier,
        n_before: usize,
        following: &[TokenId],
    ) -> Option<InfillCandidate> {
        let n_healed = self.healed.len();
        let mut n_bytes = 0;
        let mut best: Option<End> = None;
        let mut offer = |end: End| {
            if best.as_ref().is_none_or(|best| end.n_after >= best.n_after) {
                best = Some(end);
            }
        };
        for (at, &token) in following.iter().enumerate() {
            let bytes = self.tokenizer.token_bytes(token);
            let known = &self.healed[n_bytes.min(n_healed)..];
            let n_known = bytes.len().min(known.len());
            let ends_line = token == END || bytes[n_known..].contains(&b'\n');
            if n_bytes > n_healed || (n_bytes == n_healed && n_healed == 0 && at > 0) {
                // The rest of the cursor's line stays: a candidate may end before its line does.
                let n_after = common(&following[at..], self.after);
                if n_after > 0 || ends_line {
                    offer(End { n_tokens: at, n_cut: 0, n_after });
                }
            }
            if ends_line || bytes[..n_known] != known[..n_known] {
                break;
            }
            // Or within a token: of `();` the last two may follow the cursor.
            for cut in (n_healed + 1).saturating_sub(n_bytes).max(1)..bytes.len() {
                let n_after = self.common_bytes(&bytes[cut..], &following[at + 1..]);
                if n_after > 0 {
                    offer(End { n_tokens: at + 1, n_cut: bytes.len() - cut, n_after });
                }
            }
            n_bytes += bytes.len();
        }
        let End { n_tokens, n_cut, n_after } = best?;
        let tokens = following[..n_tokens].to_vec();
        Some(InfillCandidate { tier, n_before: n_before as u32, n_after: n_after as u32, tokens, n_cut })
    }

    /// How many tokens follow the cursor too, the first of them only its last bytes `end`.
    fn common_bytes(&self, end: &[u8], following: &[TokenId]) -> usize {
        let Some(mut rest) = self.after_bytes.strip_prefix(end) else { return 0 };
        let mut n = 1;
        for &token in following.iter().take_while(|token| **token != END) {
            let Some(after) = rest.strip_prefix(self.tokenizer.token_bytes(token)) else { break };
            (rest, n) = (after, n + 1);
        }
        n
    }

    /// What precedes an occurrence of the first `n_after` tokens after the cursor; `preceding` has the nearest first.
    pub(super) fn candidate_before(
        &self,
        tier: Tier,
        n_after: usize,
        preceding: &[TokenId],
    ) -> Option<InfillCandidate> {
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
            // The line break before the line may be part of what is healed.
            if bytes.contains(&b'\n') {
                break;
            }
        }
        let (n, n_before) = best?;
        Some(InfillCandidate {
            tier,
            n_before: n_before.min(MOST_TOKENS) as u32,
            n_after: n_after as u32,
            tokens: preceding[..n].iter().rev().copied().collect(),
            n_cut: 0,
        })
    }
}

/// Where a candidate may end.
struct End {
    n_tokens: usize,
    /// Bytes of the last token that belong to what follows.
    n_cut: usize,
    n_after: usize,
}

fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b && **a != END).count()
}

#[cfg(test)]
mod tests;
