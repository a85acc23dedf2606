//! Positions sorted by the tokens before them, read backwards: a suffix array of the reversed text, cut at
//! [`MAX_MATCH`].
//!
//! ```text
//! tokens: END×4 file₀ END file₁ END …   u16 each
//! order:  positions p, by (tokens[p-1], tokens[p-2], …), packed to as many bits as the largest needs
//! keys:   the four tokens before every 64th position of the order: a search stays in them until its last steps
//! files:  names and the ranges of their tokens, in name order
//! ```
//!
//! The same bytes are on the heap, for a workspace, or in a mapped file, for its dependencies. Reading never trusts
//! them: a position beyond the tokens reads as `END`, which matches nothing.

mod format;
mod search;
mod sort;

use std::cmp::Ordering;
use std::ops::Range;

use format::{Bytes, Layout};
pub(crate) use format::{IndexError, IndexId, Names, TokenWriter, write};

pub(super) use search::order_of;

use super::MAX_MATCH;
use crate::text::tokenizer::{END, TokenId};

/// Most occurrences of a match that are counted; of more, evenly spaced ones are.
pub(super) const MAX_COUNTED: usize = 512;
/// Positions of the order that share one key.
const BLOCK: usize = 64;
/// `END`s before the first file: the four tokens before any position can be read at once.
const PAD: usize = 4;

/// An index of some files, on the heap or mapped. Immutable.
#[derive(Debug)]
pub(crate) struct Index {
    bytes: Bytes,
    layout: Layout,
}

impl Default for Index {
    fn default() -> Self {
        Self::build(Vec::new())
    }
}

impl Index {
    /// Indexes files on the heap: (path, tokens). The order does not matter.
    pub(crate) fn build(mut files: Vec<(String, Vec<TokenId>)>) -> Self {
        files.sort();
        let n_tokens = PAD + files.iter().map(|(_, tokens)| tokens.len() + 1).sum::<usize>();
        let most = format::MOST_TOKENS;
        assert!(n_tokens as u64 <= most, "{n_tokens} tokens do not fit an index of {most} positions");
        let mut tokens = Vec::with_capacity(2 * n_tokens);
        tokens.resize(2 * PAD, 0);
        let mut names = format::Names::default();
        for (path, stream) in files {
            let start = tokens.len() / 2;
            tokens.extend(stream.iter().flat_map(|token| token.to_le_bytes()));
            names.add(path, start as u32..(tokens.len() / 2) as u32);
            tokens.extend(END.to_le_bytes());
        }
        let (bytes, layout) = format::on_heap(&tokens, names);
        Self { bytes, layout }
    }

    /// Tokens of all indexed files.
    pub(crate) fn n_tokens(&self) -> usize {
        self.layout.n_tokens.saturating_sub(PAD + self.layout.n_files)
    }

    /// The positions of the tokens of `path`; empty where it is not known.
    pub(super) fn file(&self, path: &str) -> Range<u32> {
        let below = |limit: fn(Ordering) -> bool| {
            let (mut from, mut to) = (0, self.layout.n_files);
            while from < to {
                let middle = from + (to - from) / 2;
                if limit(self.name(middle).as_bytes().cmp(path.as_bytes())) { from = middle + 1 } else { to = middle }
            }
            from
        };
        let (first, end) = (below(Ordering::is_lt), below(Ordering::is_le));
        // Files of one name are adjacent.
        if first == end { 0..0 } else { self.span(first).start..self.span(end - 1).end }
    }

    /// Bytes of the index, and whether they are on the heap.
    pub(super) fn size(&self) -> (usize, bool) {
        (self.bytes.as_slice().len(), matches!(self.bytes, Bytes::Heap(_)))
    }

    fn section(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.as_slice().get(range.clone()).unwrap_or_default()
    }

    fn name(&self, i: usize) -> &str {
        let entry = |i: usize| format::number(self.section(&self.layout.files), 3 * i) as usize;
        let start = if i == 0 { 0 } else { entry(i - 1) };
        let names = self.section(&self.layout.names);
        names.get(start..entry(i)).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }

    fn span(&self, i: usize) -> Range<u32> {
        let files = self.section(&self.layout.files);
        format::number(files, 3 * i + 1)..format::number(files, 3 * i + 2)
    }
}

/// The token at a position; `END` beyond the last.
#[inline]
fn token(tokens: &[u8], at: usize) -> TokenId {
    match tokens.get(2 * at..2 * at + 2) {
        Some(bytes) => TokenId::from_le_bytes([bytes[0], bytes[1]]),
        None => END,
    }
}

/// The four tokens before `at`, the nearest in the highest bits; zeros from the first `END` on.
#[inline]
fn last_four(tokens: &[u8], at: usize) -> u64 {
    let Some(bytes) = at.checked_sub(4).and_then(|start| tokens.get(2 * start..2 * at)) else { return 0 };
    // Little end first: the last of the four is where it should be.
    let key = u64::from_le_bytes(bytes.try_into().expect("four tokens are eight bytes"));
    for kept in 0..4 {
        if key << (16 * kept) >> 48 == 0 {
            return if kept == 0 { 0 } else { key & !(u64::MAX >> (16 * kept)) };
        }
    }
    key
}

/// The context as it is searched for: the nearest token first, up to the first `END` or [`MAX_MATCH`] tokens.
pub(super) fn backwards(context: &[TokenId]) -> ([TokenId; MAX_MATCH], usize) {
    let mut query = [END; MAX_MATCH];
    let mut len = 0;
    for &token in context.iter().rev().take(MAX_MATCH).take_while(|token| **token != END) {
        query[len] = token;
        len += 1;
    }
    (query, len)
}

/// The same four tokens of a query as [`last_four`] has of a position.
fn key_of(query: &[TokenId]) -> u64 {
    let shifts = [48, 32, 16, 0];
    query.iter().zip(shifts).fold(0, |key, (token, shift)| key | u64::from(*token) << shift)
}

#[cfg(test)]
mod tests;
