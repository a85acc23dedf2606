//! Sorts positions by the tokens before them.
//!
//! ```text
//! cut the vocabulary into ranges with about as many positions each
//! for each range, on the next free thread:
//!     take the positions whose last token is in it, each with its last four tokens as one number
//!     sort by that number; among equals sort by the four tokens before those; and so on to MAX_MATCH
//! hand the ranges on in order
//! ```
//!
//! A range that is being sorted takes 16 bytes a position, one that waits for those before it four. Suffix-array
//! libraries sort whole texts without a limit on the depth, need five to nine bytes for every token at once, and are
//! written in C.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use super::{MAX_MATCH, last_four, token};
use crate::text::tokenizer::{END, TokenId, VOCAB_LIMIT};

/// Positions of a range, unless a single token has more.
const RANGE: usize = 1 << 20;
/// Most ranges: each reads all tokens once.
const MOST_RANGES: usize = 32;

/// Calls `each` with the sorted positions, piece after piece. Every position counts whose token is not `END` and whose
/// context is not empty; equal contexts are in the order of their positions.
pub(super) fn sort<E>(tokens: &[u8], n_threads: usize, each: &mut dyn FnMut(&[u32]) -> Result<(), E>) -> Result<(), E> {
    let ranges = ranges(tokens);
    let n_threads = n_threads.clamp(1, ranges.len().max(1));
    if n_threads == 1 {
        return ranges.into_iter().try_for_each(|range| each(&sorted(tokens, &range)));
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // A range that is done waits for those before it, in `waiting` without a bound: if the first is slow, all the
        // others may, at four bytes a position. That is less than the tokens and the order take on the disk.
        let (sender, receiver) = sync_channel(n_threads);
        for _ in 0..n_threads {
            let (sender, next, ranges) = (sender.clone(), &next, &ranges);
            scope.spawn(move || {
                while let Some((i, range)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    ranges.get(i).map(|range| (i, range))
                } {
                    // An error of the receiver ends the work.
                    if sender.send((i, sorted(tokens, range))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut due = 0;
        for (i, positions) in receiver {
            waiting.insert(i, positions);
            while let Some(positions) = waiting.remove(&due) {
                each(&positions)?;
                due += 1;
            }
        }
        Ok(())
    })
}

/// How many positions [`sort`] gives.
pub(super) fn count(tokens: &[u8]) -> usize {
    let mut last = token(tokens, 0);
    let here = tokens.chunks_exact(2).skip(1).map(|bytes| TokenId::from_le_bytes([bytes[0], bytes[1]]));
    here.filter(|here| std::mem::replace(&mut last, *here) != END && *here != END).count()
}

/// Ranges of last tokens with about as many positions each.
fn ranges(tokens: &[u8]) -> Vec<Range<TokenId>> {
    let mut counts = vec![0usize; VOCAB_LIMIT];
    for bytes in tokens.chunks_exact(2) {
        let token = usize::from(TokenId::from_le_bytes([bytes[0], bytes[1]]));
        if let Some(count) = counts.get_mut(token) {
            *count += 1;
        }
    }
    let most = RANGE.max(tokens.len() / 2 / MOST_RANGES);
    let mut ranges = Vec::new();
    let (mut start, mut n) = (END + 1, 0);
    for token in END + 1..VOCAB_LIMIT as TokenId {
        let count = counts[usize::from(token)];
        if n > 0 && n + count > most {
            ranges.push(start..token);
            (start, n) = (token, 0);
        }
        n += count;
    }
    ranges.push(start..VOCAB_LIMIT as TokenId);
    ranges
}

fn sorted(tokens: &[u8], range: &Range<TokenId>) -> Vec<u32> {
    let mut keyed: Vec<(u64, u32)> = Vec::new();
    let mut last = token(tokens, 0);
    for (before, bytes) in tokens.chunks_exact(2).skip(1).enumerate() {
        let here = TokenId::from_le_bytes([bytes[0], bytes[1]]);
        if range.contains(&last) && here != END {
            keyed.push((last_four(tokens, before + 1), before as u32 + 1));
        }
        last = here;
    }
    refine(tokens, &mut keyed, 4);
    keyed.into_iter().map(|(_, at)| at).collect()
}

/// Sorts by key, and equal keys, whose contexts are equal for `depth` tokens, by the tokens before those.
fn refine(tokens: &[u8], keyed: &mut [(u64, u32)], depth: usize) {
    keyed.sort_unstable();
    if depth >= MAX_MATCH {
        return;
    }
    for equal in keyed.chunk_by_mut(|a, b| a.0 == b.0) {
        // Contexts that end within the key are equal, and were sorted by position.
        if equal.len() == 1 || equal[0].0 & 0xFFFF == 0 {
            continue;
        }
        for (key, at) in equal.iter_mut() {
            *key = last_four(tokens, *at as usize - depth);
        }
        refine(tokens, equal, depth + 4);
    }
}
