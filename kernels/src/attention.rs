//! Grouped-query attention over a growing cache of keys and values.
//!
//! ```text
//! for token, for kv head, its G query heads together:
//!     scores [G, t] = q · k_t / √hd          lanes are positions: keys lie in blocks of 32 positions
//!     weights       = softmax(scores)
//!     out [G, hd]   = Σ_t weights_t · v_t    lanes are features
//! ```

use crate::isa::{Isa, compiled_per_isa};
use crate::lanes::{LANES, Lanes, head, head_mut};
use crate::memory::Parts;
use crate::pool::Pool;
use crate::vector::softmax_body;

/// Positions in a block of keys, and features that values are padded to.
const WIDTH: usize = 32;
/// Query heads that share each load of a key.
const GROUP: usize = 4;

/// Sizes of the heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; query head i uses `i / (n_heads / n_kv_heads)`.
    pub n_kv_heads: usize,
    /// Features of each.
    pub head_dim: usize,
}

/// Keys and values of one layer.
#[derive(Clone, Debug)]
pub struct KvCache {
    heads: Heads,
    capacity: usize,
    /// `[n_kv_heads][capacity / 32][head_dim][32 positions]`.
    keys: Vec<f32>,
    /// `[n_kv_heads][capacity][padded head_dim]`.
    values: Vec<f32>,
}

impl KvCache {
    /// Room for `capacity` positions; memory is taken as they are written.
    pub fn new(heads: Heads, capacity: usize) -> Self {
        Self { heads, capacity: capacity.next_multiple_of(WIDTH), keys: Vec::new(), values: Vec::new() }.with_room()
    }

    fn with_room(mut self) -> Self {
        // Zero pages come from the system untouched, so an unused part of the cache costs nothing.
        self.keys = vec![0.0; self.heads.n_kv_heads * self.capacity * self.heads.head_dim];
        self.values = vec![0.0; self.heads.n_kv_heads * self.capacity * self.padded_dim()];
        self
    }

    fn padded_dim(&self) -> usize {
        self.heads.head_dim.next_multiple_of(WIDTH)
    }

    /// Writes the key and the value `[n_kv_heads · head_dim]` of one position.
    ///
    /// # Panics
    /// If the position is beyond the capacity, or a length is wrong.
    pub fn write(&mut self, position: usize, key: &[f32], value: &[f32]) {
        let Heads { n_kv_heads, head_dim, .. } = self.heads;
        assert!(position < self.capacity, "position {position} of {}", self.capacity);
        assert_eq!((key.len(), value.len()), (n_kv_heads * head_dim, n_kv_heads * head_dim), "key and value");
        let padded = self.padded_dim();
        for head in 0..n_kv_heads {
            let block = (head * self.capacity + position / WIDTH * WIDTH) * head_dim + position % WIDTH;
            for (d, x) in key[head * head_dim..][..head_dim].iter().enumerate() {
                self.keys[block + d * WIDTH] = *x;
            }
            self.values[(head * self.capacity + position) * padded..][..head_dim]
                .copy_from_slice(&value[head * head_dim..][..head_dim]);
        }
    }

    /// out `[n, n_heads · head_dim]`: attention of queries at positions `first..first + n`, each over itself and what
    /// stands before it. Queries are rows of `q`, `q_stride` apart.
    ///
    /// # Panics
    /// If a position is beyond the capacity, or a length is wrong.
    pub fn attend(&self, isa: Isa, pool: &Pool, queries: Queries<'_>, out: &mut [f32]) {
        let Heads { n_heads, n_kv_heads, head_dim } = self.heads;
        let width = n_heads * head_dim;
        let n = out.len() / width;
        assert!(out.len() == n * width && queries.first + n <= self.capacity, "{n} queries at {}", queries.first);
        assert!(n == 0 || queries.q.len() >= (n - 1) * queries.stride + width, "queries are too short");
        let per_kv = n_heads / n_kv_heads;
        let out = Parts::new(out);
        pool.for_each(n * n_kv_heads, |piece_idx| {
            let (i, kv_head) = (piece_idx / n_kv_heads, piece_idx % n_kv_heads);
            let n_keys = queries.first + i + 1;
            let keys = &self.keys[kv_head * self.capacity * head_dim..][..n_keys.next_multiple_of(WIDTH) * head_dim];
            let padded = self.padded_dim();
            let values = &self.values[kv_head * self.capacity * padded..][..n_keys * padded];
            for head in (kv_head * per_kv..(kv_head + 1) * per_kv).step_by(GROUP) {
                let n_group = GROUP.min((kv_head + 1) * per_kv - head);
                let q = &queries.q[i * queries.stride + head * head_dim..][..n_group * head_dim];
                // SAFETY: each token's group of heads is one piece's, and `out` is borrowed until `for_each` returns.
                let out = unsafe { out.part(i * width + head * head_dim, n_group * head_dim) };
                let cache = Keys { keys, values, n_keys, head_dim };
                match n_group {
                    4 => attend_4(isa, q, cache, out),
                    2 => attend_2(isa, q, cache, out),
                    _ => {
                        for (q, out) in q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
                            attend_1(isa, q, cache, out);
                        }
                    }
                }
            }
        });
    }
}

/// Query rows and where they stand.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// Rows of at least `n_heads · head_dim` numbers.
    pub q: &'a [f32],
    /// From one row to the next.
    pub stride: usize,
    /// Position of the first row.
    pub first: usize,
}

#[derive(Clone, Copy)]
struct Keys<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    n_keys: usize,
    head_dim: usize,
}

compiled_per_isa! {
    fn attend_1<V>(q: &[f32], cache: Keys<'_>, out: &mut [f32]) {
        attend_group::<V, 1>(q, cache, out);
    }
}

compiled_per_isa! {
    fn attend_2<V>(q: &[f32], cache: Keys<'_>, out: &mut [f32]) {
        attend_group::<V, 2>(q, cache, out);
    }
}

compiled_per_isa! {
    fn attend_4<V>(q: &[f32], cache: Keys<'_>, out: &mut [f32]) {
        attend_group::<V, 4>(q, cache, out);
    }
}

/// q and out are `[G, head_dim]`. The result for a head does not depend on G.
#[inline(always)]
fn attend_group<V: Lanes, const G: usize>(q: &[f32], cache: Keys<'_>, out: &mut [f32]) {
    let Keys { keys, values, n_keys, head_dim } = cache;
    let n_padded = n_keys.next_multiple_of(WIDTH);
    let scale = 1.0 / (head_dim as f32).sqrt();
    let mut scores = vec![0.0f32; G * n_padded];
    for (block, keys) in keys.chunks_exact(WIDTH * head_dim).enumerate() {
        let mut acc = [[V::splat(0.0); 2]; G];
        for (d, keys) in keys.chunks_exact(WIDTH).enumerate() {
            let keys = [V::load(head(keys)), V::load(head(&keys[LANES..]))];
            for g in 0..G {
                let q = V::splat(q[g * head_dim + d]);
                acc[g][0] = q.mul_add(keys[0], acc[g][0]);
                acc[g][1] = q.mul_add(keys[1], acc[g][1]);
            }
        }
        for g in 0..G {
            let scores = &mut scores[g * n_padded + block * WIDTH..][..WIDTH];
            acc[g][0].mul(V::splat(scale)).store(head_mut(scores));
            acc[g][1].mul(V::splat(scale)).store(head_mut(&mut scores[LANES..]));
        }
    }
    for g in 0..G {
        softmax_body(&mut scores[g * n_padded..][..n_keys]);
    }
    let padded = head_dim.next_multiple_of(WIDTH);
    for start in (0..head_dim).step_by(WIDTH) {
        let mut acc = [[V::splat(0.0); 2]; G];
        for (t, values) in values.chunks_exact(padded).enumerate() {
            let values = &values[start..start + WIDTH];
            let values = [V::load(head(values)), V::load(head(&values[LANES..]))];
            for g in 0..G {
                let weight = V::splat(scores[g * n_padded + t]);
                acc[g][0] = weight.mul_add(values[0], acc[g][0]);
                acc[g][1] = weight.mul_add(values[1], acc[g][1]);
            }
        }
        let width = WIDTH.min(head_dim - start);
        for g in 0..G {
            let mut row = [0.0; WIDTH];
            acc[g][0].store(head_mut(&mut row));
            acc[g][1].store(head_mut(&mut row[LANES..]));
            out[g * head_dim + start..][..width].copy_from_slice(&row[..width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37 + seed).sin()).collect()
    }

    #[test]
    fn attention_agrees_with_f64_and_between_instruction_sets() {
        for (heads, n_keys) in [
            (Heads { n_heads: 8, n_kv_heads: 2, head_dim: 64 }, 70),
            (Heads { n_heads: 6, n_kv_heads: 2, head_dim: 16 }, 33),
            (Heads { n_heads: 4, n_kv_heads: 2, head_dim: 6 }, 1),
            (Heads { n_heads: 5, n_kv_heads: 1, head_dim: 40 }, 65),
        ] {
            let Heads { n_heads, n_kv_heads, head_dim } = heads;
            let (kv, width) = (n_kv_heads * head_dim, n_heads * head_dim);
            let mut cache = KvCache::new(heads, 128);
            let keys: Vec<_> = (0..n_keys).map(|t| wave(kv, t as f32)).collect();
            let values: Vec<_> = (0..n_keys).map(|t| wave(kv, t as f32 * 1.7 + 9.0)).collect();
            for t in 0..n_keys {
                cache.write(t, &keys[t], &values[t]);
            }
            let q = wave(n_keys * width, 0.5);
            let mut outcomes = Vec::new();
            for isa in Isa::available() {
                for n_threads in [1, 2] {
                    let mut out = vec![f32::NAN; n_keys * width];
                    cache.attend(isa, &Pool::new(n_threads), Queries { q: &q, stride: width, first: 0 }, &mut out);
                    outcomes.push(out);
                }
            }
            assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]));
            for t in 0..n_keys {
                for head in 0..n_heads {
                    let kv_head = head / (n_heads / n_kv_heads);
                    let of = |row: &[f32], d: usize| f64::from(row[kv_head * head_dim + d]);
                    let query = &q[t * width + head * head_dim..][..head_dim];
                    let scores: Vec<f64> = (0..=t)
                        .map(|s| (0..head_dim).map(|d| f64::from(query[d]) * of(&keys[s], d)).sum::<f64>())
                        .map(|score| (score / (head_dim as f64).sqrt()).exp())
                        .collect();
                    let total: f64 = scores.iter().sum();
                    for d in 0..head_dim {
                        let exact: f64 = (0..=t).map(|s| scores[s] / total * of(&values[s], d)).sum();
                        let got = f64::from(outcomes[0][t * width + head * head_dim + d]);
                        // At most 70 weights, each off by a few ulp of numbers below 1.
                        assert!((got - exact).abs() < 2e-5, "{got} for {exact}");
                    }
                }
            }
        }
    }
}
