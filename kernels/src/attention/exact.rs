//! Unquantized keys and values in f32, attention in two passes: the reference that quantization is compared with.

use crate::isa::Isa;
use crate::runtime::memory::DisjointMut;
use crate::runtime::pool::Pool;
use crate::vector;

use super::{Heads, Rope, Rows, rotate};

#[derive(Clone, Debug)]
pub(super) struct ExactCache {
    heads: Heads,
    /// `[positions][2 · n_kv_heads][head_dim]`: rotated keys, then values.
    rows: Vec<f32>,
}

impl ExactCache {
    pub(super) fn new(heads: Heads) -> Self {
        Self { heads, rows: Vec::new() }
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.rows.len() * size_of::<f32>()
    }

    fn width(&self) -> usize {
        2 * self.heads.n_kv_heads * self.heads.head_dim
    }

    pub(super) fn prefix(&self, len: usize) -> Self {
        Self { heads: self.heads, rows: self.rows[..len * self.width()].to_vec() }
    }

    pub(super) fn append(&mut self, isa: Isa, rows: Rows<'_>, rope: Rope<'_>) {
        let Heads { n_kv_heads, head_dim, .. } = self.heads;
        self.rows.truncate(rows.first * self.width());
        for i in 0..rows.n {
            let start = self.rows.len();
            self.rows.extend_from_slice(&rows.x[i * rows.stride..][..self.width()]);
            let keys = &mut self.rows[start..][..n_kv_heads * head_dim];
            for key in keys.chunks_exact_mut(head_dim) {
                rotate(isa, rope.at(rows.first + i, head_dim), key);
            }
        }
    }

    pub(super) fn attend(&self, isa: Isa, pool: &Pool, queries: Rows<'_>, rope: Rope<'_>, out: &mut [f32]) {
        let Heads { n_heads, n_kv_heads, head_dim } = self.heads;
        let Rows { x, stride, n, first } = queries;
        assert!((first + n) * self.width() <= self.rows.len(), "{n} queries from {first}");
        let out = DisjointMut::new(out);
        pool.for_each(n * n_heads, |piece_idx| {
            let (i, head) = (piece_idx / n_heads, piece_idx % n_heads);
            let mut q = x[i * stride + head * head_dim..][..head_dim].to_vec();
            rotate(isa, rope.at(first + i, head_dim), &mut q);
            let kv_head = head / (n_heads / n_kv_heads);
            let rows = || self.rows.chunks_exact(self.width()).take(first + i + 1);
            let keys = rows().map(|row| &row[kv_head * head_dim..][..head_dim]);
            let root = (head_dim as f32).sqrt();
            let mut shares: Vec<f32> = keys.map(|key| vector::dot(isa, &q, key) / root).collect();
            vector::softmax(isa, &mut shares);
            // SAFETY: each token's head is one piece's, and `out` is borrowed until `for_each` returns.
            let out = unsafe { out.part(piece_idx * head_dim, head_dim) };
            out.fill(0.0);
            for (share, row) in shares.iter().zip(rows()) {
                let value = &row[(n_kv_heads + kv_head) * head_dim..][..head_dim];
                out.iter_mut().zip(value).for_each(|(out, value)| *out += share * value);
            }
        });
    }
}
