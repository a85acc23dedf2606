//! Positions sorted by what stands before them, read backwards.
//!
//! ```text
//! tokens:  END file₀ END file₁ END …             files in the order of their paths
//! order:   positions p, by (tokens[p-1], tokens[p-2], …)
//! longest: range ← all; for each context token from the end: narrow the range by binary search
//! ```

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;

use super::MAX_MATCH;
use super::lookup::{ENOUGH, LADDER, MAX_ORDERS, Order};
use crate::tokenizer::{END, TokenId};

/// Most occurrences of a match that are counted; of more, evenly spaced ones.
const MAX_COUNTED: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Index {
    tokens: Vec<TokenId>,
    /// Every position whose token is not `END` and whose context is not empty.
    order: Vec<u32>,
    /// Path and where its tokens lie; in path order.
    files: Vec<(String, Range<u32>)>,
}

/// The occurrences of the longest match.
#[derive(Debug)]
pub(super) struct Match<'a> {
    pub(super) len: usize,
    positions: &'a [u32],
    excluded: &'a [Range<u32>],
}

impl Index {
    pub(super) fn build(mut files: Vec<(String, Vec<TokenId>)>) -> Self {
        files.sort();
        let n_tokens: usize = files.iter().map(|(_, tokens)| tokens.len() + 1).sum();
        assert!(n_tokens < u32::MAX as usize, "{n_tokens} tokens do not fit an index of {} positions", u32::MAX);
        let mut tokens = Vec::with_capacity(n_tokens + 1);
        tokens.push(END);
        let files = files
            .into_iter()
            .map(|(path, stream)| {
                let start = tokens.len() as u32;
                tokens.extend(stream);
                let end = tokens.len() as u32;
                tokens.push(END);
                (path, start..end)
            })
            .collect();

        // Most comparisons are decided by the last four tokens, held beside the position.
        let mut keyed: Vec<(u64, u32)> = (1..tokens.len())
            .filter(|&at| tokens[at] != END && tokens[at - 1] != END)
            .map(|at| (last_four(&tokens, at), at as u32))
            .collect();
        keyed.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| compare_contexts(&tokens, a.1, b.1)));
        Self { order: keyed.into_iter().map(|(_, at)| at).collect(), tokens, files }
    }

    /// Tokens of all files.
    pub(super) fn n_tokens(&self) -> usize {
        self.files.iter().map(|(_, range)| range.len()).sum()
    }

    /// Tokens of `path`.
    pub(super) fn n_tokens_of(&self, path: &str) -> usize {
        self.files.iter().filter(|(other, _)| other == path).map(|(_, range)| range.len()).sum()
    }

    /// Where the tokens of `path` lie; empty where it is not known.
    pub(super) fn file(&self, path: &str) -> Range<u32> {
        let first = self.files.partition_point(|(other, _)| other.as_str() < path);
        let n_same = self.files[first..].partition_point(|(other, _)| other == path);
        match &self.files[first..first + n_same] {
            [] => 0..0,
            same => same[0].1.start..same[n_same - 1].1.end,
        }
    }

    /// By length of match, which positions follow the last tokens of `context`: entry i is of i + 1 tokens.
    fn ranges(&self, context: &[TokenId]) -> Vec<Range<usize>> {
        let mut range = 0..self.order.len();
        let mut ranges = Vec::with_capacity(MAX_MATCH);
        for (depth, &token) in context.iter().rev().take(MAX_MATCH).enumerate() {
            if token == END {
                break;
            }
            // All positions of the range have `depth` tokens before them that are not `END`, and so one more.
            let before = |at: u32| self.tokens[at as usize - 1 - depth];
            let positions = &self.order[range.clone()];
            let start = positions.partition_point(|&at| before(at) < token);
            let n_equal = positions[start..].partition_point(|&at| before(at) == token);
            if n_equal == 0 {
                break;
            }
            range = range.start + start..range.start + start + n_equal;
            ranges.push(range.clone());
        }
        ranges
    }

    /// The longest suffix of `context` that occurs outside `excluded`.
    pub(super) fn longest<'a>(&'a self, context: &[TokenId], excluded: &'a [Range<u32>]) -> Option<Match<'a>> {
        let mut ranges = self.ranges(context);
        // From the longest match down. Ranges are nested: each position is looked at once.
        let mut seen = 0..0;
        while let Some(range) = ranges.pop() {
            let fresh =
                if seen.is_empty() { [range.clone(), 0..0] } else { [range.start..seen.start, seen.end..range.end] };
            if fresh.into_iter().flatten().any(|i| !is_excluded(self.order[i], excluded)) {
                return Some(Match { len: ranges.len() + 1, positions: &self.order[range], excluded });
            }
            seen = range;
        }
        None
    }

    /// The longest match and shorter ones, each with what followed it.
    pub(super) fn orders(&self, context: &[TokenId], excluded: &[Range<u32>], orders: &mut Vec<Order>) {
        orders.clear();
        let ranges = self.ranges(context);
        let mut n_before = 0;
        for len in (1..=ranges.len()).rev() {
            if !orders.is_empty() && !LADDER.contains(&len) {
                continue;
            }
            let positions = &self.order[ranges[len - 1].clone()];
            if positions.len() < 2 * n_before {
                continue;
            }
            let mut counts = BTreeMap::new();
            self.count(&Match { len, positions, excluded }, &mut counts);
            let total: u32 = counts.values().sum();
            if total == 0 {
                continue;
            }
            n_before = positions.len();
            let mut next: Vec<(TokenId, u32)> = counts.into_iter().collect();
            // Stable, and the counts came in token order: ties go to the lower id.
            next.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            orders.push(Order { len: len as u32, total, next });
            if orders.len() == MAX_ORDERS || total >= ENOUGH {
                break;
            }
        }
    }

    /// What follows the last positions of the longest match: (its length, at most `n` runs of at most `most` tokens).
    pub(super) fn following(
        &self,
        context: &[TokenId],
        excluded: &[Range<u32>],
        n: usize,
        most: usize,
    ) -> Option<(usize, Vec<Vec<TokenId>>)> {
        let found = self.longest(context, excluded)?;
        let mut positions: Vec<u32> =
            found.positions.iter().copied().filter(|&at| !is_excluded(at, excluded)).take(MAX_COUNTED).collect();
        positions.sort_unstable_by(|a, b| b.cmp(a));
        let run = |at: u32| {
            let rest = &self.tokens[at as usize..];
            rest.iter().copied().take(most).take_while(|token| *token != END).collect()
        };
        Some((found.len, positions.into_iter().take(n).map(run).collect()))
    }

    /// Adds what follows the match.
    pub(super) fn count(&self, found: &Match<'_>, counts: &mut BTreeMap<TokenId, u32>) {
        let stride = found.positions.len().div_ceil(MAX_COUNTED);
        let mut add_each = |stride| {
            let mut n_counted = 0;
            for &at in found.positions.iter().step_by(stride).filter(|&&at| !is_excluded(at, found.excluded)) {
                *counts.entry(self.tokens[at as usize]).or_default() += 1;
                n_counted += 1;
            }
            n_counted
        };
        if add_each(stride) == 0 {
            // The few that are not excluded lie between the strides.
            add_each(1);
        }
    }
}

fn is_excluded(at: u32, excluded: &[Range<u32>]) -> bool {
    excluded.iter().any(|range| range.contains(&at))
}

/// The four tokens before `at`, the nearest in the highest bits; zeros from the first `END` on.
fn last_four(tokens: &[TokenId], at: usize) -> u64 {
    let mut key = 0;
    for (back, shift) in (1..=4).zip([48, 32, 16, 0]) {
        let token = tokens[at - back];
        if token == END {
            break;
        }
        key |= u64::from(token) << shift;
    }
    key
}

/// By context, then by position.
fn compare_contexts(tokens: &[TokenId], a: u32, b: u32) -> Ordering {
    for back in 1..=MAX_MATCH {
        // `END` stands at 0 and is never passed.
        let (left, right) = (tokens[a as usize - back], tokens[b as usize - back]);
        if left != right {
            return left.cmp(&right);
        }
        if left == END {
            break;
        }
    }
    a.cmp(&b)
}
