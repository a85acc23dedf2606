//! A stack of tokens on one side of the cursor, with links between equal contexts.
//!
//! In the prefix a token's context is complete when the token is pushed. In the suffix, which is pushed from its end,
//! the context is pushed after the token. Either way a push adds at most one position to each chain, at its head, and a
//! pop removes exactly that one.

use crate::text::tokenizer::{END, TokenId};

/// Lengths of context that positions are linked by.
pub(super) const CONTEXTS: [usize; 4] = [1, 2, 4, 8];
/// Chains of each length, a power of two. Contexts that share one by chance are distinguished by their tokens.
const SLOTS: usize = 1 << 14;
/// Marks the end of a chain.
const NONE: u32 = u32::MAX;
/// In no chain: the context is not complete, or an `END` is in the way.
const UNLINKED: u32 = u32::MAX - 1;

/// Position 0 is the far end of the text; the cursor follows the last position.
#[derive(Clone, Debug, Default)]
pub(super) struct LinkedTokens {
    tokens: Vec<TokenId>,
    /// For each token the next position of its chain, by length of context.
    links: Vec<[u32; CONTEXTS.len()]>,
    /// The first position of each chain, by length of context; empty as long as there are no tokens.
    heads: Vec<u32>,
}

impl LinkedTokens {
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    pub(super) fn push(&mut self, token: TokenId, is_suffix: bool) {
        if self.heads.is_empty() {
            self.heads = vec![NONE; CONTEXTS.len() * SLOTS];
        }
        self.tokens.push(token);
        self.links.push([UNLINKED; CONTEXTS.len()]);
        for link in 0..CONTEXTS.len() {
            if let Some((at, slot)) = self.newest(link, is_suffix) {
                self.links[at][link] = std::mem::replace(&mut self.heads[slot], at as u32);
            }
        }
    }

    /// Keeps the first `len` tokens.
    pub(super) fn truncate(&mut self, len: usize, is_suffix: bool) {
        while self.tokens.len() > len {
            for link in 0..CONTEXTS.len() {
                if let Some((at, slot)) = self.newest(link, is_suffix) {
                    self.heads[slot] = std::mem::replace(&mut self.links[at][link], UNLINKED);
                }
            }
            self.tokens.pop();
            self.links.pop();
        }
    }

    /// Positions before `end` whose contexts may start as the query does, nearest the cursor first. Where `end` is not
    /// the cursor, the query must be the text before it.
    pub(super) fn linked(
        &self,
        link: usize,
        query: &[TokenId],
        end: usize,
        is_suffix: bool,
    ) -> impl Iterator<Item = usize> {
        let head = if self.heads.is_empty() || end == 0 {
            NONE
        } else {
            match self.links.get(end).map(|links| links[link]).filter(|next| *next != UNLINKED && !is_suffix) {
                Some(next) => next,
                None => self.heads[slot(link, query[..CONTEXTS[link]].iter().copied())],
            }
        };
        let next = move |at: u32| (at != NONE).then_some(at as usize);
        std::iter::successors(next(head), move |at| next(self.links[*at][link])).skip_while(move |at| *at >= end)
    }

    /// Tokens that a position's context has in common with the query, which has the nearest first.
    pub(super) fn common(&self, at: usize, query: &[TokenId], is_suffix: bool) -> usize {
        if is_suffix {
            query.iter().zip(&self.tokens[at + 1..]).take_while(|(ours, theirs)| ours == theirs).count()
        } else {
            query.iter().zip(self.tokens[..at].iter().rev()).take_while(|(ours, theirs)| ours == theirs).count()
        }
    }

    /// The tokens from a position on, in the order of the text.
    pub(super) fn following(&self, at: usize, is_suffix: bool) -> impl Iterator<Item = TokenId> {
        let (down, up) = if is_suffix { (&self.tokens[..=at], &[][..]) } else { (&[][..], &self.tokens[at..]) };
        down.iter().rev().chain(up).copied()
    }

    /// The tokens before a position, the nearest first.
    pub(super) fn preceding(&self, at: usize, is_suffix: bool) -> impl Iterator<Item = TokenId> {
        let (up, down) = if is_suffix { (&self.tokens[at + 1..], &[][..]) } else { (&[][..], &self.tokens[..at]) };
        up.iter().chain(down.iter().rev()).copied()
    }

    /// The position whose context of one length the last token completed, and its chain.
    fn newest(&self, link: usize, is_suffix: bool) -> Option<(usize, usize)> {
        let last = self.tokens.len() - 1;
        let at = if is_suffix { last.checked_sub(CONTEXTS[link])? } else { last };
        let (nearest_first, nearest_last): (&[TokenId], &[TokenId]) = if is_suffix {
            (&self.tokens[at + 1..], &[])
        } else {
            (&[], &self.tokens[at.checked_sub(CONTEXTS[link])?..at])
        };
        let context = || nearest_first.iter().chain(nearest_last.iter().rev()).copied();
        if self.tokens[at] == END || context().any(|token| token == END) {
            return None;
        }
        Some((at, slot(link, context())))
    }
}

/// The chain of a context, the nearest token first.
fn slot(link: usize, context: impl Iterator<Item = TokenId>) -> usize {
    // The odd multiplier from the golden ratio; its high bits depend on all tokens.
    let hash = context.fold(0u64, |hash, token| (hash ^ u64::from(token)).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    link * SLOTS + (hash >> (64 - SLOTS.trailing_zeros())) as usize
}
