//! Finds what follows a context in an index.
//!
//! ```text
//! at      ← where the context would be inserted: by the keys, and within one block by the positions
//! longest ← the more of what it has in common with the entries on both sides of `at`
//! bounds  ← widened from `at` to all entries that have that much in common; then to shorter lengths
//! ```

use std::cmp::Ordering;
use std::ops::Range;

use super::{BLOCK, Index, MAX_COUNTED, MAX_MATCH, backwards, key_of, last_four, token};
use crate::memory::infill::{InfillCandidate, InfillQuery, MOST_OCCURRENCES, MOST_TOKENS, SUFFIX_LENS};
use crate::memory::lookup::{ENOUGH, LADDER, MAX_ORDERS, Order};
use crate::text::tokenizer::TokenId;
use crate::tier::Tier;

/// How far from the bounds entries are tried one by one, each twice as far, before the keys are searched.
const NEAR: usize = BLOCK;

/// The sections that are searched.
struct Searcher<'a> {
    tokens: &'a [u8],
    order: &'a [u8],
    keys: &'a [u8],
    n_order: usize,
    bits: u32,
}

/// A context, the nearest token first.
struct Query {
    /// Four tokens each, as in [`last_four`].
    keys: [u64; MAX_MATCH / 4],
    len: usize,
}

impl Query {
    fn new(context: &[TokenId]) -> Self {
        let (tokens, len) = backwards(context);
        let mut keys = [0; MAX_MATCH / 4];
        for (key, four) in keys.iter_mut().zip(tokens.chunks(4)) {
            *key = key_of(four);
        }
        Self { keys, len }
    }

    /// The last `len` tokens of it.
    fn cut(&self, len: usize) -> Self {
        let mut keys = self.keys;
        for (i, key) in keys.iter_mut().enumerate() {
            *key &= mask(len.saturating_sub(4 * i));
        }
        Self { keys, len }
    }
}

/// The bits of the first `n` of four tokens.
fn mask(n: usize) -> u64 {
    if n >= 4 { u64::MAX } else { !(u64::MAX >> (16 * n)) }
}

/// The ranks that have as much in common with the context as the longest match that is not excluded, and how much.
struct LongestMatch {
    len: usize,
    bounds: Range<usize>,
}

impl Index {
    /// What followed the longest match outside `excluded`, which is in order, and shorter ones.
    pub(crate) fn orders(&self, context: &[TokenId], excluded: &[Range<u32>], orders: &mut Vec<Order>) {
        orders.clear();
        let (reader, query) = (self.reader(), Query::new(context));
        let Some(LongestMatch { mut len, mut bounds }) = reader.longest(&query, excluded) else { return };
        loop {
            let order = reader.count(len, &bounds, excluded);
            let is_enough = order.total >= ENOUGH;
            orders.push(order);
            if orders.len() == MAX_ORDERS || is_enough {
                return;
            }
            let n_before = reader.size(&bounds, excluded);
            loop {
                // Down to what the neighbours share: no length between has more occurrences.
                let shared = reader.shared(&query, &bounds);
                let Some(&shorter) = LADDER.iter().find(|rung| **rung < len && **rung <= shared) else { return };
                len = shorter;
                bounds = reader.widen(&query, bounds, len);
                if bounds.len() >= 2 * n_before && reader.size(&bounds, excluded) >= 2 * n_before {
                    break;
                }
            }
        }
    }

    /// Adds the infill candidates next to the longest matches of each side outside `excluded`.
    pub(crate) fn infill(
        &self,
        tier: Tier,
        query: &InfillQuery<'_>,
        excluded: &[Range<u32>],
        out: &mut Vec<InfillCandidate>,
    ) {
        let reader = self.reader();
        let mut tokens = Vec::with_capacity(2 * MOST_TOKENS);
        reader.each_occurrence(query.before, excluded, |at, len| {
            tokens.clear();
            tokens.extend((at..at + 2 * MOST_TOKENS).map(|at| token(reader.tokens, at)));
            out.extend(query.candidate_after(tier, len, &tokens));
        });
        // The position after the match is found; what precedes the match is wanted.
        for n in SUFFIX_LENS.into_iter().filter(|n| *n <= query.after.len()) {
            let mut n_found = 0;
            reader.each_occurrence(&query.after[..n], excluded, |at, len| {
                if len == n {
                    n_found += 1;
                    tokens.clear();
                    tokens.extend((0..(at - n).min(2 * MOST_TOKENS)).map(|i| token(reader.tokens, at - n - 1 - i)));
                    out.extend(query.candidate_before(tier, n, &tokens));
                }
            });
            if n_found > 0 {
                break;
            }
        }
    }

    fn reader(&self) -> Searcher<'_> {
        let layout = &self.layout;
        Searcher {
            tokens: self.section(&layout.tokens),
            order: self.section(&layout.order),
            keys: self.section(&layout.keys),
            n_order: layout.n_order,
            bits: layout.bits,
        }
    }
}

impl Searcher<'_> {
    /// Calls `each` with positions and how much of their context agrees: the longest matches first, of each length
    /// evenly spaced ones.
    fn each_occurrence(&self, context: &[TokenId], excluded: &[Range<u32>], mut each: impl FnMut(usize, usize)) {
        let query = Query::new(context);
        let Some(LongestMatch { len, mut bounds }) = self.longest(&query, excluded) else { return };
        let mut seen = 0..0;
        let mut n_left = MOST_OCCURRENCES;
        for len in std::iter::once(len).chain(LADDER.into_iter().filter(|rung| *rung < len)) {
            bounds = self.widen(&query, bounds, len);
            let fresh = || (bounds.start..seen.start.max(bounds.start)).chain(seen.end.max(bounds.start)..bounds.end);
            let stride = fresh().count().div_ceil(n_left).max(1);
            for rank in fresh().step_by(stride) {
                let at = self.position(rank);
                if !is_excluded(at, excluded) {
                    each(at, self.compare(at, &query).0);
                    n_left = n_left.saturating_sub(1);
                }
            }
            seen = bounds.clone();
            if n_left == 0 {
                return;
            }
        }
    }

    /// The position of a rank.
    #[inline]
    fn position(&self, rank: usize) -> usize {
        let bit = rank * self.bits as usize;
        let Some(bytes) = self.order.get(bit / 8..bit / 8 + 8) else { return 0 };
        let packed = u64::from_le_bytes(bytes.try_into().expect("eight bytes were taken"));
        (packed >> (bit % 8) & ((1 << self.bits) - 1)) as usize
    }

    /// Tokens that a position's context has in common with the query, and how the two compare up to there.
    fn compare(&self, at: usize, query: &Query) -> (usize, Ordering) {
        for (i, ours) in query.keys.iter().enumerate().take(query.len.div_ceil(4)) {
            let theirs = last_four(self.tokens, at.saturating_sub(4 * i));
            let len = 4 * i + ((theirs ^ ours).leading_zeros() / 16) as usize;
            if len >= query.len {
                break;
            }
            if len < 4 * i + 4 {
                return (len, theirs.cmp(ours));
            }
        }
        (query.len, Ordering::Equal)
    }

    fn common(&self, rank: usize, query: &Query) -> usize {
        self.compare(self.position(rank), query).0
    }

    /// The first rank that is not before the query, or, with `after`, that is after all that start with it.
    fn insertion(&self, query: &Query, after: bool) -> usize {
        let is_before = |order: Ordering| order.is_lt() || (after && order.is_eq());
        let mask = mask(query.len);
        let (mut from, mut to) = (0, self.n_order.div_ceil(BLOCK));
        while from < to {
            let block = from + (to - from) / 2;
            let key = self
                .keys
                .get(8 * block..8 * block + 8)
                .map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes were taken")));
            let order = match (key & mask).cmp(&query.keys[0]) {
                Ordering::Equal if query.len > 4 => self.compare(self.position(block * BLOCK), query).1,
                order => order,
            };
            if is_before(order) { from = block + 1 } else { to = block }
        }
        let (mut from, mut to) = (from.saturating_sub(1) * BLOCK, (from * BLOCK).min(self.n_order));
        while from < to {
            let rank = from + (to - from) / 2;
            if is_before(self.compare(self.position(rank), query).1) { from = rank + 1 } else { to = rank }
        }
        from
    }

    /// The longest match that has an occurrence outside `excluded`.
    fn longest(&self, query: &Query, excluded: &[Range<u32>]) -> Option<LongestMatch> {
        if query.len == 0 {
            return None;
        }
        let at = self.insertion(query, false);
        let mut bounds = at..at;
        // All of these are excluded.
        let mut seen = at..at;
        loop {
            let len = self.shared(query, &bounds);
            if len == 0 {
                return None;
            }
            bounds = self.widen(query, bounds, len);
            let mut fresh = (bounds.start..seen.start).chain(seen.end..bounds.end);
            if excluded.is_empty() || fresh.any(|rank| !is_excluded(self.position(rank), excluded)) {
                return Some(LongestMatch { len, bounds });
            }
            seen = bounds.clone();
        }
    }

    /// What the entries just outside the bounds have in common with the query, the better of the two.
    fn shared(&self, query: &Query, bounds: &Range<usize>) -> usize {
        let before = bounds.start.checked_sub(1).map_or(0, |rank| self.common(rank, query));
        let after = if bounds.end < self.n_order { self.common(bounds.end, query) } else { 0 };
        before.max(after)
    }

    /// The bounds with all entries around them that have `len` tokens in common with the query.
    fn widen(&self, query: &Query, bounds: Range<usize>, len: usize) -> Range<usize> {
        let query = query.cut(len);
        let belongs = |rank: usize| self.common(rank, &query) >= len;
        let Range { mut start, mut end } = bounds.clone();
        let mut step = 1;
        while start > 0 && belongs(start - 1) {
            start = start.saturating_sub(step);
            step *= 2;
            if !belongs(start) || step > NEAR {
                // An index that is out of order must not turn the bounds around.
                start = self.insertion(&query, false).min(bounds.start - 1);
                break;
            }
        }
        step = 1;
        while end < self.n_order && belongs(end) {
            end = (end + step).min(self.n_order);
            step *= 2;
            if !belongs(end - 1) || step > NEAR {
                end = self.insertion(&query, true).max(bounds.end + 1);
                break;
            }
        }
        start..end
    }

    /// How many entries are not excluded; of many, estimated from evenly spaced ones.
    fn size(&self, bounds: &Range<usize>, excluded: &[Range<u32>]) -> usize {
        if excluded.is_empty() {
            return bounds.len();
        }
        let stride = bounds.len().div_ceil(MAX_COUNTED);
        let sample = bounds.clone().step_by(stride).map(|rank| self.position(rank));
        sample.filter(|at| !is_excluded(*at, excluded)).count() * stride
    }

    /// Counts the tokens that follow the entries; of many entries, evenly spaced ones.
    fn count(&self, len: usize, bounds: &Range<usize>, excluded: &[Range<u32>]) -> Order {
        let stride = bounds.len().div_ceil(MAX_COUNTED);
        let next = |stride| -> Vec<TokenId> {
            let positions = bounds.clone().step_by(stride).map(|rank| self.position(rank));
            positions.filter(|at| !is_excluded(*at, excluded)).map(|at| token(self.tokens, at)).collect()
        };
        let mut tokens = next(stride);
        if tokens.is_empty() {
            // The few that are not excluded are between the strides.
            tokens = next(1);
        }
        order_of(len, tokens)
    }
}

/// The order of length `len` of these next tokens.
pub(crate) fn order_of(len: usize, mut tokens: Vec<TokenId>) -> Order {
    tokens.sort_unstable();
    let mut next: Vec<(TokenId, u32)> =
        tokens.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as u32)).collect();
    // Stable, and the counts are in token order: ties go to the lower id.
    next.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Order { len: len as u32, total: tokens.len() as u32, next }
}

fn is_excluded(at: usize, excluded: &[Range<u32>]) -> bool {
    let at = at as u32;
    let i = excluded.partition_point(|range| range.end <= at);
    excluded.get(i).is_some_and(|range| range.contains(&at))
}
