//! Rotary embedding and causal softmax attention within documents, over packed sequences.
//!
//! ```text
//! per sequence, head and block of queries, over the keys from the first start of the block to its end:
//! q, k = rope(q), rope(k)     S = q·kᵀ / √hd     P = softmax(S over start..=i)     o = P·v
//! dv = Pᵀ·do    dP = do·vᵀ    dS = P ∘ (dP − Σ do∘o)    dq = dS·k / √hd    dk = dSᵀ·q / √hd
//! ```
//!
//! P is made again in the backward pass, from the logarithm of its sum: keeping it costs more memory traffic than the
//! product. Keys that no query of a block sees are not multiplied with.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use nanochat_kernels::{Gemm, Isa, Lhs, PackBuffer, Panels, Precision, Write};

use super::{Scratch, matrix, simd, sized, slice, with_slice};

/// Queries whose scores exist at the same time, at most: with 512 keys their scores stay in L2.
const BLOCK: usize = 64;

/// The operation: `[N, d + 2·kv_dim]` (queries, keys, values side by side) → `[N, d]`.
pub struct Attention {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Number of columns of one head.
    pub head_dim: usize,
    /// Rows in one sequence; divides N.
    pub seq_len: usize,
    /// For each row, the position in its sequence at which its document starts.
    pub starts: Arc<Vec<u32>>,
    /// cos and sin, `[seq_len, head_dim / 2]` each.
    pub rope: Arc<(Vec<f32>, Vec<f32>)>,
    /// What queries, keys, values, their weights and all their gradients are rounded to before they are multiplied.
    pub precision: Precision,
}

/// What the backward pass needs in addition to the result.
#[derive(Default)]
pub struct LogSums {
    /// log Σ exp of the scores, `[N, n_heads]`.
    log_sums: Vec<f32>,
}

/// Queries of one head of one sequence, and the keys that they see some of.
struct Block {
    head: usize,
    /// Rows of the batch.
    rows: Range<usize>,
    /// Rows of the sequence, from a multiple of 16 on.
    keys: Range<usize>,
}

impl Attention {
    fn width(&self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
    }

    /// The first column of a key head, and of its values.
    fn columns(&self, kv: usize) -> (usize, usize) {
        ((self.n_heads + kv) * self.head_dim, (self.n_heads + self.n_kv_heads + kv) * self.head_dim)
    }

    /// Queries at a time: whole tiles of a product.
    fn block_len(&self) -> usize {
        match self.precision {
            Precision::F32 => 48,
            Precision::Bf16 => BLOCK,
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Rotates the queries and keys of `rows` in place; `sign` −1 rotates back.
    fn rotate(&self, rows: &mut [f32], sign: f32) {
        let (hd, half) = (self.head_dim, self.head_dim / 2);
        let n_rotated = (self.n_heads + self.n_kv_heads) * hd;
        simd::dispatch(
            #[inline(always)]
            || {
                for (row_idx, row) in rows.chunks_exact_mut(self.width()).enumerate() {
                    // Positions count from the document's start, as in the engine.
                    let position = row_idx % self.seq_len - self.starts[row_idx] as usize;
                    let cos = &self.rope.0[position * half..][..half];
                    let sin = &self.rope.1[position * half..][..half];
                    for head in row[..n_rotated].chunks_exact_mut(hd) {
                        let (low, high) = head.split_at_mut(half);
                        for c in 0..half {
                            let (a, b) = (low[c], high[c]);
                            low[c] = a * cos[c] - b * sin[c] * sign;
                            high[c] = b * cos[c] + a * sin[c] * sign;
                        }
                    }
                }
            },
        );
    }

    fn sequences(&self, n_rows: usize) -> impl Iterator<Item = Range<usize>> {
        let t = self.seq_len;
        (0..n_rows / t).map(move |b| b * t..(b + 1) * t)
    }

    /// The blocks of the heads that share `kv`.
    fn blocks(&self, sequence: Range<usize>, kv: usize) -> impl Iterator<Item = Block> {
        let (rep, len) = (self.n_heads / self.n_kv_heads, self.block_len());
        (kv * rep..(kv + 1) * rep).flat_map(move |head| {
            let sequence = sequence.clone();
            sequence.clone().step_by(len).map(move |first| {
                let rows = first..sequence.end.min(first + len);
                let start = self.starts[rows.clone()].iter().min().map_or(0, |start| *start as usize);
                Block { head, keys: start / 16 * 16..rows.end - sequence.start, rows }
            })
        })
    }

    /// What a row of a block sees, counted from the block's first key.
    #[inline(always)]
    fn seen(&self, block: &Block, row: usize) -> Range<usize> {
        self.starts[row] as usize - block.keys.start..row % self.seq_len + 1 - block.keys.start
    }

    /// q·kᵀ `[rows, keys]`, neither scaled nor masked.
    fn scores(&self, block: &Block, qkv: &[f32], keys: &Panels, out: &mut [f32], scratch: &mut GemmScratch<'_>) {
        let q = &qkv[block.rows.start * self.width() + block.head * self.head_dim..];
        let left = Lhs::Rows(q, self.width());
        let product = Gemm { m: block.rows.len(), lhs: left, rhs: keys, k: 0..self.head_dim, n: block.keys.clone() };
        product.write(scratch.isa, out, block.keys.len(), Write::Store, scratch.pack);
    }

    /// Rotates queries and keys of `qkv` in place and writes `out` `[N, d]`.
    pub(crate) fn forward(&self, qkv: &mut [f32], out: &mut [f32], kept: &mut LogSums, scratch: &mut Scratch) {
        let (width, hd, d) = (self.width(), self.head_dim, self.n_heads * self.head_dim);
        let n_rows = qkv.len() / width;
        self.rotate(qkv, 1.0);
        let log_sums = sized(&mut kept.log_sums, n_rows * self.n_heads);
        let Scratch { isa, pack, panels: [keys, values, ..], rows: [scores, ..], .. } = scratch;
        let mut gemm = GemmScratch { isa: *isa, pack };
        for panels in [&mut *keys, values] {
            panels.set_precision(self.precision);
        }
        for sequence in self.sequences(n_rows) {
            for kv in 0..self.n_kv_heads {
                let (k, v) = self.columns(kv);
                let rows = &qkv[sequence.start * width..sequence.end * width];
                keys.fill_columns(hd, sequence.len(), &rows[k..], width);
                values.fill_rows(sequence.len(), hd, &rows[v..], width);
                for block in self.blocks(sequence.clone(), kv) {
                    let n_keys = block.keys.len();
                    let scores = sized(scores, block.rows.len() * n_keys);
                    self.scores(&block, qkv, keys, scores, &mut gemm);
                    let mut inverses = [0.0; BLOCK];
                    self.weigh(&block, scores, &mut inverses, log_sums);
                    let out = &mut out[block.rows.start * d + block.head * hd..];
                    let left = Lhs::Rows(scores, n_keys);
                    let product = Gemm { m: block.rows.len(), lhs: left, rhs: values, k: block.keys.clone(), n: 0..hd };
                    product.write(gemm.isa, out, d, Write::Store, gemm.pack);
                    for (out, inverse) in out.chunks_mut(d).zip(&inverses[..block.rows.len()]) {
                        out[..hd].iter_mut().for_each(|o| *o *= inverse);
                    }
                }
            }
        }
    }

    /// Turns scores into exp(score − largest), 0 where a row does not see, and keeps what makes them sum to 1.
    fn weigh(&self, block: &Block, scores: &mut [f32], inverses: &mut [f32; BLOCK], log_sums: &mut [f32]) {
        let scale = self.scale();
        simd::dispatch(
            #[inline(always)]
            || {
                let rows = scores.chunks_exact_mut(block.keys.len()).zip(block.rows.clone());
                for ((scores, row), inverse) in rows.zip(inverses) {
                    let seen = self.seen(block, row);
                    scores[..seen.start].fill(0.0);
                    scores[seen.end..].fill(0.0);
                    let scores = &mut scores[seen];
                    let max = simd::max(scores, f32::NEG_INFINITY, |x| x) * scale;
                    for s in scores.iter_mut() {
                        *s = simd::exp(*s * scale - max);
                    }
                    let sum = simd::sum(scores, |x| x);
                    *inverse = 1.0 / sum;
                    log_sums[row * self.n_heads + block.head] = max + sum.ln();
                }
            },
        );
    }

    /// Writes the gradient of what came in, `[N, d + 2·kv_dim]`, from `qkv` as the forward pass left it, its result and
    /// the gradient of that.
    pub(crate) fn backward(&self, given: &BackwardInputs<'_>, d_qkv: &mut [f32], scratch: &mut Scratch) {
        let (width, hd, d) = (self.width(), self.head_dim, self.n_heads * self.head_dim);
        let BackwardInputs { qkv, d_out, .. } = *given;
        let n_rows = qkv.len() / width;
        let Scratch { isa, pack, panels: [keys, values, key_rows, block_rows], rows: [p, d_s, d_k, d_v], .. } = scratch;
        let mut gemm = GemmScratch { isa: *isa, pack };
        for panels in [&mut *keys, values, key_rows, block_rows] {
            panels.set_precision(self.precision);
        }
        for sequence in self.sequences(n_rows) {
            for kv in 0..self.n_kv_heads {
                let (k, v) = self.columns(kv);
                let rows = &qkv[sequence.start * width..sequence.end * width];
                keys.fill_columns(hd, sequence.len(), &rows[k..], width);
                key_rows.fill_rows(sequence.len(), hd, &rows[k..], width);
                values.fill_columns(hd, sequence.len(), &rows[v..], width);
                let (d_k, d_v) = (sized(d_k, sequence.len() * hd), sized(d_v, sequence.len() * hd));
                d_k.fill(0.0);
                d_v.fill(0.0);
                for block in self.blocks(sequence.clone(), kv) {
                    let (m, n_keys) = (block.rows.len(), block.keys.len());
                    let (p, d_s) = (sized(p, m * n_keys), sized(d_s, m * n_keys));
                    self.scores(&block, qkv, keys, p, &mut gemm);
                    let d_o = &d_out[block.rows.start * d + block.head * hd..];
                    let left = Lhs::Rows(d_o, d);
                    let product = Gemm { m, lhs: left, rhs: values, k: 0..hd, n: block.keys.clone() };
                    product.write(gemm.isa, d_s, n_keys, Write::Store, gemm.pack);
                    self.weigh_back(&block, given, p, d_s);

                    let d_q = &mut d_qkv[block.rows.start * width + block.head * hd..];
                    let left = Lhs::Rows(d_s, n_keys);
                    let product = Gemm { m, lhs: left, rhs: key_rows, k: block.keys.clone(), n: 0..hd };
                    product.write(gemm.isa, d_q, width, Write::Store, gemm.pack);
                    let q = &qkv[block.rows.start * width + block.head * hd..];
                    for (left, right, stride, out) in [(&*d_s, q, width, &mut *d_k), (&*p, d_o, d, &mut *d_v)] {
                        block_rows.fill_rows(m, hd, right, stride);
                        let product = Gemm::new(n_keys, Lhs::Columns(left, n_keys), block_rows);
                        product.write(gemm.isa, &mut out[block.keys.start * hd..], hd, Write::Add, gemm.pack);
                    }
                }
                let rows = d_qkv[sequence.start * width..sequence.end * width].chunks_exact_mut(width);
                for (row, (d_k, d_v)) in rows.zip(d_k.chunks_exact(hd).zip(d_v.chunks_exact(hd))) {
                    row[k..k + hd].copy_from_slice(d_k);
                    row[v..v + hd].copy_from_slice(d_v);
                }
            }
        }
        self.rotate(d_qkv, -1.0);
    }

    /// Scores → P, and dP → dS.
    fn weigh_back(&self, block: &Block, given: &BackwardInputs<'_>, p: &mut [f32], d_s: &mut [f32]) {
        let (scale, hd, d) = (self.scale(), self.head_dim, self.n_heads * self.head_dim);
        let n_keys = block.keys.len();
        simd::dispatch(
            #[inline(always)]
            || {
                for ((p, d_s), row) in
                    p.chunks_exact_mut(n_keys).zip(d_s.chunks_exact_mut(n_keys)).zip(block.rows.clone())
                {
                    let at = row * d + block.head * hd;
                    let along = simd::sum2(&given.d_out[at..][..hd], &given.out[at..][..hd], |a, b| a * b);
                    let log_sum = given.kept.log_sums[row * self.n_heads + block.head];
                    let seen = self.seen(block, row);
                    for values in [&mut *p, &mut *d_s] {
                        values[..seen.start].fill(0.0);
                        values[seen.end..].fill(0.0);
                    }
                    for (p, d_s) in p[seen.clone()].iter_mut().zip(&mut d_s[seen]) {
                        *p = simd::exp(*p * scale - log_sum);
                        *d_s = *p * (*d_s - along) * scale;
                    }
                }
            },
        );
    }
}

/// Inputs of [`Attention::backward`].
#[derive(Clone, Copy)]
pub(crate) struct BackwardInputs<'a> {
    /// Queries and keys are rotated.
    pub(crate) qkv: &'a [f32],
    pub(crate) kept: &'a LogSums,
    pub(crate) out: &'a [f32],
    pub(crate) d_out: &'a [f32],
}

/// What a matrix product needs in addition to its operands.
struct GemmScratch<'a> {
    isa: Isa,
    pack: &'a mut PackBuffer,
}

/// The candle operation: an [`Attention`] that keeps what its backward pass needs.
pub struct AttentionOp {
    attention: Attention,
    saved: OnceLock<(Vec<f32>, LogSums)>,
}

impl AttentionOp {
    /// An operation for one use.
    pub fn new(attention: Attention) -> Self {
        Self { attention, saved: OnceLock::new() }
    }
}

impl CustomOp1 for AttentionOp {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n_rows, _) = layout.shape().dims2()?;
        let d = self.attention.n_heads * self.attention.head_dim;
        let mut qkv = slice(x, layout)?.to_vec();
        let (mut out, mut kept) = (vec![0.0; n_rows * d], LogSums::default());
        self.attention.forward(&mut qkv, &mut out, &mut kept, &mut Scratch::default());
        // As in `NormLinear`: an operation is used once.
        let _ = self.saved.set((qkv, kept));
        Ok((CpuStorage::F32(out), Shape::from((n_rows, d))))
    }

    fn bwd(&self, x: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let Some((qkv, kept)) = self.saved.get() else {
            candle_core::bail!("attention: backward before forward");
        };
        let (n_rows, width) = x.dims2()?;
        let mut d_qkv = vec![0.0; n_rows * width];
        with_slice(res, |out| {
            with_slice(grad, |d_out| {
                let given = BackwardInputs { qkv, kept, out, d_out };
                self.attention.backward(&given, &mut d_qkv, &mut Scratch::default());
            })
        })??;
        Ok(Some(matrix(d_qkv, n_rows, width)?))
    }
}
