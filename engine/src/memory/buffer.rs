//! The file that is being written, always current: an edit costs what it changes.
//!
//! ```text
//! prefix: a stack of tokens with its top at the cursor;  suffix: another, its top at the cursor too
//! edit:   pop what differs from the last text, push what is new: tokens near the cursor
//! token:  a link to the nearest earlier one that follows the same 1, 2, 4 and 8 tokens
//! lookup: follow the links of the longest of these that leads anywhere, then of the shorter ones
//! ```
//!
//! No text after the cursor counts as following the text before it. The answer depends on the two texts only, not on
//! the edits that led to them.

mod linked;

use std::cmp::Reverse;

use super::MAX_MATCH;
use super::index::{MAX_COUNTED, backwards, order_of};
use super::infill::{InfillCandidate, InfillQuery, MOST_OCCURRENCES, MOST_TOKENS, SUFFIX_LENS};
use super::lookup::{ENOUGH, LADDER, MAX_ORDERS, Order};
use crate::text::tokenizer::{END, MAX_PRETOKEN, TokenId, Tokenizer, pretokens};
use crate::tier::Tier;
use linked::{CONTEXTS, LinkedTokens};

/// Bytes on each side of the cursor that are always remembered, where there are as many.
const REACH: usize = 512 << 10;
/// Text beyond that is cut off at multiples of this, so that the cut seldom moves.
const GRID: usize = 256 << 10;
/// Tokens that one lookup visits at most, of each length of context and on each side.
const MOST_VISITED: usize = 2048;

/// One file, split at the cursor.
#[derive(Clone, Debug, Default)]
pub struct LiveBuffer {
    path: String,
    prefix: Half,
    suffix: Half,
}

/// A text that grows and shrinks at the cursor's end, and its tokens.
#[derive(Clone, Debug, Default)]
struct Half {
    /// In reading order: the cursor is at the end of the prefix and at the start of the suffix.
    bytes: Vec<u8>,
    /// For each pre-token, the farthest from the cursor first: bytes and tokens from the far end up to and with it.
    pieces: Vec<(u32, u32)>,
    tokens: LinkedTokens,
}

/// An occurrence of a context.
#[derive(Clone, Copy, Debug)]
struct Occurrence {
    /// Tokens of the context that match.
    len: usize,
    is_suffix: bool,
    /// Of the token that follows the match, in its half.
    at: usize,
}

impl LiveBuffer {
    /// A file of these tokens, all of them before the cursor.
    pub(super) fn of_tokens(path: String, tokens: &[TokenId]) -> Self {
        let mut file = Self { path, ..Self::default() };
        tokens.iter().for_each(|token| file.prefix.tokens.push(*token, false));
        file
    }

    /// The name of the file in the memory.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Tokens remembered, on both sides of the cursor.
    pub fn n_tokens(&self) -> usize {
        self.prefix.tokens.len() + self.suffix.tokens.len()
    }

    /// Makes this the file `path` with the cursor between `prefix` and `suffix`. Costs a comparison with the last text
    /// and the tokens from the first to the last difference, including those that the cursor moved over.
    ///
    /// The `tokenizer` must be the one that the file was made with.
    pub fn update(&mut self, tokenizer: &Tokenizer, path: &str, prefix: &[u8], suffix: &[u8]) {
        if self.path != path {
            path.clone_into(&mut self.path);
        }
        let n_cut = beyond(prefix.len());
        // From the start of a line on, where there is one: a pre-token starts there.
        let line = prefix[n_cut..].iter().take(GRID).position(|byte| *byte == b'\n').filter(|_| n_cut > 0);
        self.prefix.read_forwards(tokenizer, &prefix[n_cut + line.unwrap_or(0)..]);
        self.suffix.read_backwards(tokenizer, &suffix[..suffix.len() - beyond(suffix.len())]);
    }

    /// The longest match of the context and shorter ones. Where a match has more occurrences than are visited, those
    /// nearest the cursor count.
    pub(super) fn orders(&self, context: &[TokenId], orders: &mut Vec<Order>) {
        self.orders_from(context, [self.prefix.tokens.len(), self.suffix.tokens.len()], orders);
    }

    /// The same for the file's own tokens before its token `next`, of which nothing later is known.
    pub(super) fn orders_within(&self, next: usize, orders: &mut Vec<Order>) {
        let next = next.min(self.prefix.tokens.len());
        let start = next.saturating_sub(MAX_MATCH);
        self.orders_from(&self.prefix.tokens.tokens()[start..next], [next, 0], orders);
    }

    /// Adds the infill candidates next to the longest matches of each side.
    pub(super) fn infill(&self, query: &InfillQuery<'_>, out: &mut Vec<InfillCandidate>) {
        let ends = [self.prefix.tokens.len(), self.suffix.tokens.len()];
        let mut tokens = Vec::with_capacity(2 * MOST_TOKENS);
        for occurrence in self.occurrences(query.before, ends, MOST_OCCURRENCES).into_iter().take(MOST_OCCURRENCES) {
            let side = self.half(occurrence.is_suffix);
            tokens.clear();
            tokens.extend(side.following(occurrence.at, occurrence.is_suffix).take(2 * MOST_TOKENS));
            if occurrence.is_suffix {
                tokens.push(END); // the file's end ends a line, the cursor does not
            }
            out.extend(query.candidate_after(Tier::File, occurrence.len, &tokens));
        }
        for n in SUFFIX_LENS.into_iter().filter(|n| *n <= query.after.len()) {
            let occurrences = self.occurrences(&query.after[..n], ends, MOST_OCCURRENCES).into_iter();
            let n_before = out.len();
            for occurrence in occurrences.filter(|occurrence| occurrence.len == n).take(MOST_OCCURRENCES) {
                let side = self.half(occurrence.is_suffix);
                tokens.clear();
                tokens.extend(side.preceding(occurrence.at, occurrence.is_suffix).skip(n).take(2 * MOST_TOKENS));
                out.extend(query.candidate_before(Tier::File, n, &tokens));
            }
            if out.len() > n_before {
                break;
            }
        }
    }

    fn orders_from(&self, context: &[TokenId], ends: [usize; 2], orders: &mut Vec<Order>) {
        orders.clear();
        // A length with so many occurrences is counted in any case, and is the last: it has twice what any before it
        // had.
        let occurrences = self.occurrences(context, ends, 2 * ENOUGH as usize);
        let Some(longest) = occurrences.first().map(|occurrence| occurrence.len) else { return };
        let mut n_before = 0;
        for len in std::iter::once(longest).chain(LADDER.into_iter().filter(|rung| *rung < longest)) {
            let n = occurrences.partition_point(|occurrence| occurrence.len >= len);
            if n < 2 * n_before {
                continue;
            }
            let next =
                occurrences[..n].iter().map(|occurrence| self.half(occurrence.is_suffix).tokens()[occurrence.at]);
            let order = order_of(len, next.step_by(n.div_ceil(MAX_COUNTED)).collect());
            n_before = n;
            let is_enough = order.total >= ENOUGH;
            orders.push(order);
            if orders.len() == MAX_ORDERS || is_enough {
                return;
            }
        }
    }

    /// Where the context occurs before `ends`: the longest matches first, of equal ones those in the prefix, and of
    /// these the nearest. Once there are `n`, shorter contexts are not tried.
    fn occurrences(&self, context: &[TokenId], ends: [usize; 2], n: usize) -> Vec<Occurrence> {
        let (query, query_len) = backwards(context);
        let query = &query[..query_len];
        let mut occurrences = Vec::new();
        let mut shortest_seen = usize::MAX;
        for (link, &len) in CONTEXTS.iter().enumerate().rev().filter(|(_, len)| **len <= query.len()) {
            for (is_suffix, end) in [(false, ends[0]), (true, ends[1])] {
                let side = self.half(is_suffix);
                let linked = side.linked(link, query, end, is_suffix).take(MOST_VISITED);
                let found = linked.filter_map(|at| {
                    let found_len = side.common(at, query, is_suffix);
                    // Longer matches were found by the links of longer contexts.
                    (len..shortest_seen).contains(&found_len).then_some(Occurrence { len: found_len, is_suffix, at })
                });
                occurrences.extend(found);
            }
            shortest_seen = len;
            if occurrences.len() >= n {
                break;
            }
        }
        // Stable: equal ones stay in the order of their links.
        occurrences.sort_by_key(|occurrence| Reverse(occurrence.len));
        occurrences
    }

    fn half(&self, is_suffix: bool) -> &LinkedTokens {
        if is_suffix { &self.suffix.tokens } else { &self.prefix.tokens }
    }
}

impl Half {
    /// Becomes `text`, at whose end the cursor is.
    fn read_forwards(&mut self, tokenizer: &Tokenizer, text: &[u8]) {
        let n_common = common_prefix(&self.bytes, text);
        // A pre-token depends on no more bytes than this from its start on.
        let n_safe = n_common.saturating_sub(MAX_PRETOKEN);
        let n_kept = if n_common == self.bytes.len() && n_common == text.len() {
            self.pieces.len()
        } else {
            // Pre-tokens that start at or before `n_safe` are kept: each but the first starts where one ends.
            self.pieces.partition_point(|(end, _)| *end as usize <= n_safe)
        };
        let (start, n_tokens) = n_kept.checked_sub(1).map_or((0, 0), |last| self.pieces[last]);
        self.pieces.truncate(n_kept);
        self.tokens.truncate(n_tokens as usize, false);
        let mut tokens = Vec::new();
        let mut end = start;
        tokenizer.encode_into(&text[start as usize..], &mut tokens, |n_bytes, n_new| {
            end += n_bytes as u32;
            self.pieces.push((end, n_tokens + n_new as u32));
        });
        tokens.into_iter().for_each(|token| self.tokens.push(token, false));
        self.bytes.truncate(n_common);
        self.bytes.extend(&text[n_common..]);
    }

    /// Becomes `text`, at whose start the cursor is.
    fn read_backwards(&mut self, tokenizer: &Tokenizer, text: &[u8]) {
        let n_common = common_suffix(&self.bytes, text);
        if n_common == self.bytes.len() && n_common == text.len() {
            return;
        }
        // A pre-token depends on nothing before it: once one starts where an old one did, all after it are the same.
        let mut n_kept = 0;
        let (mut tokens, mut starts) = (Vec::new(), Vec::new());
        let mut n_left = text.len();
        for pretoken in pretokens(text) {
            let same = self.pieces.binary_search_by_key(&n_left, |(end, _)| *end as usize);
            if n_left <= n_common
                && let Ok(piece) = same
            {
                n_kept = piece + 1;
                break;
            }
            starts.push((n_left, tokens.len()));
            tokenizer.encode_into(pretoken, &mut tokens, |_, _| ());
            n_left -= pretoken.len();
        }
        let n_tokens = n_kept.checked_sub(1).map_or(0, |last| self.pieces[last].1);
        self.pieces.truncate(n_kept);
        self.tokens.truncate(n_tokens as usize, true);
        tokens.iter().rev().for_each(|token| self.tokens.push(*token, true));
        for (n_bytes, n_before) in starts.into_iter().rev() {
            self.pieces.push((n_bytes as u32, n_tokens + (tokens.len() - n_before) as u32));
        }
        self.bytes.clear();
        self.bytes.extend(text);
    }
}

/// How many bytes of a text of `len` are too far from the cursor.
fn beyond(len: usize) -> usize {
    len.saturating_sub(REACH) / GRID * GRID
}

/// Bytes that are compared at once, as one memory comparison.
const STRETCH: usize = 1 << 12;

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let same = a.chunks(STRETCH).zip(b.chunks(STRETCH)).take_while(|(a, b)| a == b);
    let len: usize = same.map(|(a, _)| a.len()).sum();
    len + a[len..].iter().zip(&b[len..]).take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let same = a.rchunks(STRETCH).zip(b.rchunks(STRETCH)).take_while(|(a, b)| a == b);
    let len: usize = same.map(|(a, _)| a.len()).sum();
    let (a, b) = (&a[..a.len() - len], &b[..b.len() - len]);
    len + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
