//! Grouped-query attention over a growing int8 cache of keys and values.
//!
//! ```text
//! for row = (token, query head), for block of 64 positions, in order:
//!     s [64]  = (q8 · k8) · (scale of q · log₂e / √hd) · scales of k      exact integer sums; lanes are positions
//!     m'      = max(m, max s);   c = 2^(m − m')
//!     p [64]  = 2^(s − m')                                        l = c·l + Σ p
//!     w [64]  = p · scales of v, rounded to 8 bits of its largest
//!     o [hd]  = c·o + (w8 · v8) · scale of w                      exact integer sums; lanes are features
//! out = o / l
//! ```
//!
//! This is the online softmax of arXiv 1805.02867 over fixed blocks: what a row comes to depends on nothing but its
//! query and the keys before it, not on the rows that are computed along with it. Four rows share each load of a key,
//! and a tile of tokens each block while it is in the first cache.

mod dots;
mod exact;

use std::cell::RefCell;
use std::sync::Arc;

use crate::isa::{Isa, compiled_per_isa};
use crate::lanes::{F32x16, LANES, exp2, first_lanes, first_lanes_mut, sum};
use crate::rows::quantize_row;
use crate::runtime::memory::{AlignedBytes, DisjointMut};
use crate::runtime::pool::Pool;
use crate::vector;
use dots::{Dots, POSITIONS, QUERY_ROWS};
use exact::ExactCache;

/// Tokens whose queries pass a block of keys together.
const TOKENS: usize = 8;

/// Sizes of the heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// The number of query heads.
    pub n_heads: usize,
    /// Key and value heads; query head i uses `i / (n_heads / n_kv_heads)`.
    pub n_kv_heads: usize,
    /// Features of each head; even.
    pub head_dim: usize,
}

impl Heads {
    /// Features with their padding.
    fn width(self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }
}

/// Cosines and sines by which features i and i + head_dim / 2 are rotated, `[positions, head_dim / 2]` each (arXiv
/// 2104.09864).
#[derive(Clone, Copy, Debug)]
pub struct Rope<'a> {
    /// Cosines of the angles.
    pub cos: &'a [f32],
    /// Sines of the angles.
    pub sin: &'a [f32],
}

/// Rows of numbers and the positions of the tokens that they belong to.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// `n` rows; each starts with the features that the call reads.
    pub x: &'a [f32],
    /// Numbers from the start of one row to the start of the next.
    pub stride: usize,
    /// The number of rows.
    pub n: usize,
    /// The position of the first row's token.
    pub first: usize,
}

/// How a cache holds keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvBits {
    /// int8 with a scale for each position and head.
    #[default]
    Eight,
    /// f32, unquantized: slow, and exact enough to compare a model with its counterpart in training.
    ThirtyTwo,
}

/// Keys and values of one layer. Memory is taken as positions are written, 64 at a time.
#[derive(Clone, Debug)]
pub struct KvCache {
    heads: Heads,
    capacity: usize,
    /// `[blocks][n_kv_heads]`; shared with forks until one of them writes.
    slabs: Vec<Arc<Slab>>,
    /// Instead of slabs, with [`KvBits::ThirtyTwo`].
    exact: Option<ExactCache>,
}

/// 64 positions of one key and value head.
#[derive(Clone, Debug)]
struct Slab {
    /// Keys + 128, `[width/4][64 positions][4]`, then values, `[64/4][width][4 positions]`.
    bytes: AlignedBytes,
    key_scales: [f32; POSITIONS],
    value_scales: [f32; POSITIONS],
}

impl Slab {
    fn new(width: usize) -> Self {
        let mut bytes = AlignedBytes::zeroed(2 * POSITIONS * width);
        bytes.as_mut_slice()[..POSITIONS * width].fill(128);
        Self { bytes, key_scales: [0.0; POSITIONS], value_scales: [0.0; POSITIONS] }
    }

    fn keys(&self) -> &[u8] {
        &self.bytes.as_slice()[..self.bytes.as_slice().len() / 2]
    }

    fn values(&self) -> &[i8] {
        &self.bytes.as_i8()[self.bytes.as_slice().len() / 2..]
    }
}

impl KvCache {
    /// Room for `capacity` positions.
    pub fn new(heads: Heads, capacity: usize, bits: KvBits) -> Self {
        let exact = (bits == KvBits::ThirtyTwo).then(|| ExactCache::new(heads));
        Self { heads, capacity, slabs: Vec::new(), exact }
    }

    /// Bytes of the blocks that have been written to; those that are shared count for each that shares them.
    pub fn n_bytes(&self) -> usize {
        let exact = self.exact.as_ref().map_or(0, ExactCache::n_bytes);
        exact + self.slabs.iter().map(|slab| slab.bytes.as_slice().len() + size_of::<Slab>()).sum::<usize>()
    }

    /// A cache of positions `0..len`. Blocks are shared until one of the two writes into them: a fork costs next to
    /// nothing, and its first token a block.
    ///
    /// # Panics
    /// If fewer positions have been written.
    pub fn fork(&self, len: usize) -> Self {
        let Self { heads, capacity, .. } = *self;
        if let Some(exact) = &self.exact {
            return Self { heads, capacity, slabs: Vec::new(), exact: Some(exact.prefix(len)) };
        }
        Self { heads, capacity, slabs: self.slabs[..len.div_ceil(POSITIONS) * heads.n_kv_heads].to_vec(), exact: None }
    }

    /// Writes keys, which are rotated by `rope` first, and values: each row is `[k, v]`, `n_kv_heads · head_dim` each.
    ///
    /// # Panics
    /// If a position is beyond the capacity or the rope, or rows are too short.
    pub fn append(&mut self, isa: Isa, pool: &Pool, rows: Rows<'_>, rope: Rope<'_>) {
        let Heads { n_kv_heads, head_dim, .. } = self.heads;
        let Rows { x, stride, n, first } = rows;
        assert!(first + n <= self.capacity, "{n} positions from {first} of {}", self.capacity);
        if let Some(exact) = &mut self.exact {
            return exact.append(isa, rows, rope);
        }
        let width = self.heads.width();
        let n_slabs = (first + n).div_ceil(POSITIONS) * n_kv_heads;
        if self.slabs.len() < n_slabs {
            self.slabs.resize_with(n_slabs, || Arc::new(Slab::new(width)));
        }
        let blocks = first / POSITIONS..(first + n).div_ceil(POSITIONS);
        let slabs = DisjointMut::new(&mut self.slabs);
        let write = |piece_idx: usize| {
            let (block, kv_head) = (blocks.start + piece_idx / n_kv_heads, piece_idx % n_kv_heads);
            // SAFETY: each slab is one piece's, and the slabs are borrowed until `for_each` returns.
            let slab = unsafe { &mut slabs.part(block * n_kv_heads + kv_head, 1)[0] };
            let slab = Arc::make_mut(slab);
            for position in first.max(block * POSITIONS)..(first + n).min((block + 1) * POSITIONS) {
                let row = &x[(position - first) * stride..];
                let key = &row[kv_head * head_dim..][..head_dim];
                let value = &row[(n_kv_heads + kv_head) * head_dim..][..head_dim];
                write_position(isa, slab, position % POSITIONS, width, key, value, rope.at(position, head_dim));
            }
        };
        match n {
            1 => (0..n_kv_heads).for_each(write), // less than a hand-over
            _ => pool.for_each(blocks.len() * n_kv_heads, write),
        }
    }

    /// out `[n, n_heads · head_dim]`: attention of queries, which are rotated by `rope` first, each over its own
    /// position and those before it.
    ///
    /// # Panics
    /// If a position has not been written, or a length is wrong.
    pub fn attend(&self, isa: Isa, pool: &Pool, queries: Rows<'_>, rope: Rope<'_>, out: &mut [f32]) {
        let Heads { n_heads, n_kv_heads, head_dim } = self.heads;
        let Rows { n, first, .. } = queries;
        let row_len = n_heads * head_dim;
        assert_eq!(out.len(), n * row_len, "{} numbers for {n} rows", out.len());
        if let Some(exact) = &self.exact {
            return exact.attend(isa, pool, queries, rope, out);
        }
        assert!((first + n).div_ceil(POSITIONS) * n_kv_heads <= self.slabs.len(), "{n} queries from {first}");
        let per_kv = n_heads / n_kv_heads;
        // One token: halves of a group, where whole groups cannot be shared out evenly.
        let whole = n > 1 || n_kv_heads.is_multiple_of(pool.n_threads()) || per_kv == 1;
        let per_piece = if whole { per_kv } else { per_kv.div_ceil(2) };
        let pieces_per_kv = per_kv.div_ceil(per_piece);
        let n_tiles = n.div_ceil(TOKENS);
        let out = DisjointMut::new(out);
        // Measured: a row takes about 50 ns for each block of 64 keys of 64 features.
        let n_blocks = n * n_heads * (first + n).div_ceil(POSITIONS) * self.heads.width().div_ceil(64);
        pool.share(n_tiles * n_kv_heads * pieces_per_kv, 50 * n_blocks as u64, |piece_idx| {
            // The last tokens first: they have most keys.
            let tile = n_tiles - 1 - piece_idx / (n_kv_heads * pieces_per_kv);
            let kv_head = piece_idx / pieces_per_kv % n_kv_heads;
            let from = kv_head * per_kv + piece_idx % pieces_per_kv * per_piece;
            let heads = from..(from + per_piece).min((kv_head + 1) * per_kv);
            let tokens = tile * TOKENS..((tile + 1) * TOKENS).min(n);
            SCRATCH.with_borrow_mut(|scratch| {
                let n_rows = tokens.len() * heads.len();
                scratch.clear(n_rows, self.heads.width());
                for (row_idx, (i, head)) in
                    tokens.clone().flat_map(|i| heads.clone().map(move |head| (i, head))).enumerate()
                {
                    let q = &queries.x[i * queries.stride + head * head_dim..][..head_dim];
                    scratch.load_query(isa, row_idx, q, first + i, rope.at(first + i, head_dim));
                }
                attend_tile(isa, Dots::of(isa), &self.slabs, kv_head, n_kv_heads, scratch);
                for (row_idx, (i, head)) in tokens.flat_map(|i| heads.clone().map(move |head| (i, head))).enumerate() {
                    // SAFETY: each token's head is one piece's, and `out` is borrowed until `for_each` returns.
                    let out = unsafe { out.part(i * row_len + head * head_dim, head_dim) };
                    out.copy_from_slice(&scratch.outputs[row_idx * self.heads.width()..][..head_dim]);
                }
            });
        });
    }
}

impl<'a> Rope<'a> {
    fn at(self, position: usize, head_dim: usize) -> Self {
        let half = head_dim / 2;
        Self { cos: &self.cos[position * half..][..half], sin: &self.sin[position * half..][..half] }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The query rows of one piece and their results.
#[derive(Default)]
struct Scratch {
    width: usize,
    /// `[rows, width]`
    queries: Vec<i8>,
    states: Vec<RowState>,
    /// `[rows, width]`
    outputs: Vec<f32>,
    rotated: Vec<f32>,
    sums: Vec<i32>,
}

/// The running softmax of a query row.
#[derive(Clone, Copy)]
struct RowState {
    /// Keys that the row attends to.
    n_keys: usize,
    /// Scale of the query · log₂e / √hd.
    scale: f32,
    /// Σ of the rounded query.
    query_sum: i32,
    /// The largest score so far.
    top: f32,
    /// Σ 2^(score − top), in lanes.
    total: [f32; LANES],
}

impl Scratch {
    fn clear(&mut self, n_rows: usize, width: usize) {
        self.width = width;
        self.queries.resize(n_rows * width, 0);
        self.outputs.clear();
        self.outputs.resize(n_rows * width, 0.0);
        self.states.clear();
        self.sums.resize(width / LANES, 0);
    }

    fn load_query(&mut self, isa: Isa, row_idx: usize, q: &[f32], position: usize, rope: Rope<'_>) {
        self.rotated.clear();
        self.rotated.extend_from_slice(q);
        rotate(isa, rope, &mut self.rotated);
        let values = &mut self.queries[row_idx * self.width..][..self.width];
        let scale = quantize_row(isa, &self.rotated, values, &mut self.sums);
        self.states.push(RowState {
            n_keys: position + 1,
            scale: scale * std::f32::consts::LOG2_E / (q.len() as f32).sqrt(),
            query_sum: self.sums.iter().sum(),
            top: f32::NEG_INFINITY,
            total: [0.0; LANES],
        });
    }
}

fn write_position(isa: Isa, slab: &mut Slab, lane: usize, width: usize, key: &[f32], value: &[f32], rope: Rope<'_>) {
    SCRATCH.with_borrow_mut(|scratch| {
        let Scratch { rotated, queries, sums, .. } = scratch;
        rotated.clear();
        rotated.extend_from_slice(key);
        rotate(isa, rope, rotated);
        queries.resize(width.max(queries.len()), 0);
        sums.resize(width / LANES, 0);
        let rounded = &mut queries[..width];
        let (keys, values) = slab.bytes.as_mut_slice().split_at_mut(POSITIONS * width);
        slab.key_scales[lane] = quantize_row(isa, rotated, rounded, sums);
        for (keys, four) in keys.chunks_exact_mut(POSITIONS * 4).zip(rounded.as_chunks::<4>().0) {
            keys[lane * 4..][..4].copy_from_slice(&four.map(|x| x as u8 ^ 128));
        }
        slab.value_scales[lane] = quantize_row(isa, value, rounded, sums);
        let values = &mut values[lane / 4 * width * 4..][..width * 4];
        for (four, x) in values.as_chunks_mut::<4>().0.iter_mut().zip(rounded) {
            four[lane % 4] = *x as u8;
        }
    });
}

compiled_per_isa! {
    fn rotate<V>(rope: Rope<'_>, x: &mut [f32]) {
        let (low, high) = x.split_at_mut(rope.cos.len());
        for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(rope.cos).zip(rope.sin) {
            (*low, *high) = (*low * cos - *high * sin, *low * sin + *high * cos);
        }
    }
}

compiled_per_isa! {
    fn attend_tile<V>(dots: Dots, slabs: &[Arc<Slab>], kv_head: usize, n_kv_heads: usize, scratch: &mut Scratch) {
        let Scratch { width, queries, states, outputs, .. } = scratch;
        let width = *width;
        let n_keys = states.iter().map(|state| state.n_keys).max().unwrap_or(0);
        let mut dot = [[0i32; POSITIONS]; QUERY_ROWS];
        let mut weights = [[0u8; POSITIONS]; QUERY_ROWS];
        let mut steps = [BlockUpdate::default(); QUERY_ROWS];
        let mut sums = vec![0i32; QUERY_ROWS * width];
        for (block, slabs) in slabs.chunks_exact(n_kv_heads).take(n_keys.div_ceil(POSITIONS)).enumerate() {
            let slab = &slabs[kv_head];
            let rows = states.chunks_mut(QUERY_ROWS).zip(queries.chunks(QUERY_ROWS * width));
            for ((states, queries), outputs) in rows.zip(outputs.chunks_mut(QUERY_ROWS * width)) {
                let n = states.len();
                // Rows are in the order of their tokens: the last sees most.
                if states[n - 1].n_keys <= block * POSITIONS {
                    continue;
                }
                dots.scores(slab.keys(), queries, states.iter().map(|state| state.query_sum), &mut dot[..n]);
                for (((state, dot), weights), step) in states.iter_mut().zip(&dot).zip(&mut weights).zip(&mut steps) {
                    let n_seen = state.n_keys.saturating_sub(block * POSITIONS).min(POSITIONS);
                    *step = softmax_block::<V>(state, dot, slab, n_seen, weights);
                }
                let sums = &mut sums[..n * width];
                dots.weighted(slab.values(), &weights[..n], sums);
                let rows = outputs.chunks_exact_mut(width).zip(sums.chunks_exact(width));
                for ((outputs, sums), step) in rows.zip(&steps) {
                    let (keep, scale) = (V::splat(step.keep), V::splat(step.scale));
                    for (output, sum) in outputs.as_chunks_mut().0.iter_mut().zip(sums.as_chunks().0) {
                        V::from_i32(sum).mul_add(scale, V::load(output).mul(keep)).store(output);
                    }
                }
            }
        }
        for (state, outputs) in states.iter().zip(outputs.chunks_exact_mut(width)) {
            let inverse = V::splat(1.0 / sum(V::load(&state.total)));
            for output in outputs.as_chunks_mut().0 {
                V::load(output).mul(inverse).store(output);
            }
        }
    }
}

/// How a block updates a row's output: o = keep·o + scale·(w8 · v8).
#[derive(Clone, Copy, Default)]
struct BlockUpdate {
    keep: f32,
    scale: f32,
}

/// From `POSITIONS - n` on: n ones, then zeros.
const VISIBLE: [f32; 2 * POSITIONS] = {
    let mut seen = [0.0; 2 * POSITIONS];
    let mut i = 0;
    while i < POSITIONS {
        seen[i] = 1.0;
        i += 1;
    }
    seen
};
/// As [`VISIBLE`], of 0 and −∞: adding −∞ to a score masks it.
const MASKED: [f32; 2 * POSITIONS] = {
    let mut hidden = [0.0; 2 * POSITIONS];
    let mut i = POSITIONS;
    while i < 2 * POSITIONS {
        hidden[i] = f32::NEG_INFINITY;
        i += 1;
    }
    hidden
};

/// Softmax over one block: the middle lines of the pseudo-code above.
#[inline(always)]
fn softmax_block<V: F32x16>(
    state: &mut RowState,
    dot: &[i32; POSITIONS],
    slab: &Slab,
    n_seen: usize,
    weights: &mut [u8; POSITIONS],
) -> BlockUpdate {
    const PARTS: usize = POSITIONS / LANES;
    let (dot, weights) = (dot.as_chunks().0, weights.as_chunks_mut().0);
    if n_seen == 0 {
        weights.fill([0; LANES]);
        return BlockUpdate { keep: 1.0, scale: 0.0 };
    }
    let scale = V::splat(state.scale);
    let mut scores = [V::splat(0.0); PARTS];
    for part in 0..PARTS {
        let key_scales = V::load(first_lanes(&slab.key_scales[part * LANES..]));
        scores[part] = V::from_i32(&dot[part]).mul(key_scales.mul(scale));
    }
    if n_seen < POSITIONS {
        for part in 0..PARTS {
            scores[part] = scores[part].add(V::load(first_lanes(&MASKED[POSITIONS - n_seen + part * LANES..])));
        }
    }
    let top = scores[0].max(scores[1]).max(scores[2].max(scores[3])).largest();
    let mut keep = 1.0;
    if top > state.top {
        keep = vector::exp2(state.top - top);
        state.top = top;
    }
    let top = V::splat(-state.top);
    let mut total = V::load(&state.total).mul(V::splat(keep));
    for part in 0..PARTS {
        let mut p = exp2(scores[part].add(top));
        if n_seen < POSITIONS {
            // A power is never quite 0, and a masked key must not contribute.
            p = p.mul(V::load(first_lanes(&VISIBLE[POSITIONS - n_seen + part * LANES..])));
        }
        total = total.add(p);
        scores[part] = p.mul(V::load(first_lanes(&slab.value_scales[part * LANES..])));
    }
    total.store(first_lanes_mut(&mut state.total));
    let largest = scores[0].max(scores[1]).max(scores[2].max(scores[3])).largest();
    // Weights too small to have an inverse are zero.
    if largest < f32::MIN_POSITIVE * 255.0 {
        weights.fill([0; LANES]);
        return BlockUpdate { keep, scale: 0.0 };
    }
    let steps = V::splat(255.0 / largest);
    for part in 0..PARTS {
        scores[part].mul(steps).store_u8(&mut weights[part]);
    }
    BlockUpdate { keep, scale: largest / 255.0 }
}

#[cfg(test)]
mod tests;
