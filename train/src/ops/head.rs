//! Final norm → int8 → tied int8 head → cross-entropy, some rows at a time.
//!
//! The gradient is taken in the forward pass, so that the logits of a chunk are made once and never kept:
//! dlogits = (softmax − one-hot) · weight. The exponentials are multiplied as they are: what makes them sum to the weight
//! is applied to their d-wide products, and the one-hot part is a row taken off.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use nanochat_engine::weights::Int8Matrix;
use nanochat_kernels::{Int8Rows, Left, Norm, Panels, Precision, Product, Write};

use super::linear::norm_backward_tensors;
use super::{Scratch, matrix, simd, sized, slice, with_slice};

/// A row without a target.
pub const NO_TARGET: u32 = u32::MAX;

/// Rows whose logits exist at the same time: 4 MB at a vocabulary of 8,192, whole tiles of 12 or of 32 rows.
const CHUNK_ROWS: usize = 126;
/// Columns of them that are scaled while they are in L2.
const CHUNK_COLS: usize = 512;

/// The tied head, rounded once per step.
#[derive(Debug)]
pub struct Int8Head {
    /// What export writes.
    pub rows: Arc<Int8Matrix>,
    /// `[d, V]`, whole numbers: a sum over them is exact and equals the engine's.
    transposed: Panels,
    /// `[V, d]`, times their scale.
    values: Panels,
}

impl Int8Head {
    /// Rounds the master embedding `[vocab_size, d]`.
    pub fn quantize(embed: &[f32], vocab_size: usize, d: usize, precision: Precision) -> Self {
        let rows = Int8Matrix::quantize(embed, vocab_size, d);
        let whole: Vec<f32> = rows.values.iter().map(|v| f32::from(*v)).collect();
        let [mut transposed, mut values] = [(); 2].map(|()| Panels::new(precision));
        transposed.fill_columns(d, vocab_size, &whole, d);
        values.fill(vocab_size, d, |row_idx, first, out| {
            let scale = rows.scales[row_idx];
            for (out, value) in out.iter_mut().zip(&whole[row_idx * d + first..]) {
                *out = value * scale;
            }
        });
        Self { rows: Arc::new(rows), transposed, values }
    }

    /// What products are made in.
    pub(crate) fn precision(&self) -> Precision {
        self.values.precision()
    }

    /// Logits `[N, V]` of `x` `[N, d]`.
    pub fn logits(&self, x: &Tensor, gain: &[f32], eps: f32) -> Result<Vec<f32>> {
        let scratch = &mut Scratch::default();
        let mut q = Int8Rows::new(self.rows.cols);
        with_slice(x, |x| q.rms_norm(scratch.isa, &scratch.pool, x, Norm { gain, eps }))?;
        let rows: Vec<usize> = (0..q.n_rows()).collect();
        let (mut logits, mut largest) = (vec![0.0; q.n_rows() * self.stride()], vec![0.0; q.n_rows()]);
        self.chunk(&q, &rows, &mut logits, &mut largest, scratch);
        Ok(logits.chunks_exact(self.stride()).flat_map(|row| &row[..self.rows.rows]).copied().collect())
    }

    /// Places of a row of logits. Rows that begin a power of two apart fall into the same few sets of a cache.
    fn stride(&self) -> usize {
        self.rows.rows.next_multiple_of(16) + 16
    }

    /// Logits of `rows` of q, `stride` apart, and the largest of each.
    fn chunk(&self, q: &Int8Rows, rows: &[usize], logits: &mut [f32], largest: &mut [f32], scratch: &mut Scratch) {
        let (vocab_size, d) = (self.rows.rows, self.rows.cols);
        let Scratch { isa, aside, rows: [_, whole, ..], .. } = scratch;
        let whole = sized(whole, rows.len() * d);
        for (whole, row) in whole.chunks_exact_mut(d).zip(rows) {
            whole.iter_mut().zip(q.row(*row)).for_each(|(whole, q)| *whole = f32::from(*q));
        }
        largest.fill(f32::NEG_INFINITY);
        for first in (0..vocab_size).step_by(CHUNK_COLS) {
            let n = first..vocab_size.min(first + CHUNK_COLS);
            let left = Left::Rows(whole, d);
            let product = Product { m: rows.len(), left, right: &self.transposed, k: 0..d, n: n.clone() };
            product.write(*isa, &mut logits[first..], self.stride(), Write::Store, aside);
            simd::dispatch(
                #[inline(always)]
                || {
                    for ((logits, row), largest) in logits.chunks_exact_mut(self.stride()).zip(rows).zip(&mut *largest)
                    {
                        let (logits, s) = (&mut logits[n.clone()], q.scales()[*row]);
                        for (logit, row_scale) in logits.iter_mut().zip(&self.rows.scales[n.clone()]) {
                            *logit = *logit * row_scale * s; // the order of the kernels
                        }
                        *largest = simd::max(logits, *largest, |x| x);
                    }
                },
            );
        }
    }
}

/// What the loss is taken of.
#[derive(Clone, Copy)]
pub(crate) struct Targets<'a> {
    /// One per row, [`NO_TARGET`] where there is none.
    pub(crate) tokens: &'a [u32],
    /// Weight of each row's loss.
    pub(crate) weight: f32,
}

impl Int8Head {
    /// Σ −ln p(target) of normed rows, without the weight. With gradients, writes that of the normed rows, `[N, d]`, and
    /// adds that of the embedding.
    pub(crate) fn loss(
        &self,
        q: &Int8Rows,
        targets: Targets<'_>,
        mut gradients: Option<(&mut [f32], &mut [f32])>,
        scratch: &mut Scratch,
    ) -> f64 {
        let (vocab_size, d, stride) = (self.rows.rows, self.rows.cols, self.stride());
        let with_target: Vec<usize> = (0..q.n_rows()).filter(|row| targets.tokens[*row] != NO_TARGET).collect();
        if let Some((da, _)) = &mut gradients {
            da.fill(0.0);
        }
        let mut loss = 0.0f64;
        let mut logits = std::mem::take(&mut scratch.rows[0]);
        let mut part = std::mem::take(&mut scratch.rows[2]);
        for rows in with_target.chunks(CHUNK_ROWS) {
            let logits = sized(&mut logits, rows.len() * stride);
            let mut factors = [0.0; CHUNK_ROWS];
            let factors = &mut factors[..rows.len()];
            self.chunk(q, rows, logits, factors, scratch);
            simd::dispatch(
                #[inline(always)]
                || {
                    for ((row, logits), factor) in rows.iter().zip(logits.chunks_exact_mut(stride)).zip(&mut *factors) {
                        let logits = &mut logits[..vocab_size];
                        let max = *factor;
                        let at_target = logits[targets.tokens[*row] as usize];
                        let sum = simd::replace_sum(
                            logits,
                            #[inline(always)]
                            |x| simd::exp(x - max),
                        );
                        loss += f64::from(sum).ln() + f64::from(max) - f64::from(at_target);
                        *factor = targets.weight / sum;
                    }
                },
            );
            let Some((da, d_embed)) = &mut gradients else { continue };
            let Scratch { isa, aside, right, .. } = scratch;
            right.set_precision(self.precision());
            let part = sized(&mut part, rows.len() * d);
            Product::new(rows.len(), Left::Rows(logits, stride), &self.values).write(
                *isa,
                part,
                d,
                Write::Store,
                aside,
            );
            simd::dispatch(
                #[inline(always)]
                || {
                    right.fill(
                        rows.len(),
                        d,
                        #[inline(always)]
                        |idx, first, out| {
                            let factor = q.scales()[rows[idx]] * factors[idx];
                            for (out, q) in out.iter_mut().zip(&q.row(rows[idx])[first..]) {
                                *out = f32::from(*q) * factor;
                            }
                        },
                    );
                },
            );
            let product = Product::new(vocab_size, Left::Columns(logits, stride), right);
            product.write(*isa, d_embed, d, Write::Add, aside);
            simd::dispatch(
                #[inline(always)]
                || {
                    for ((row, part), factor) in rows.iter().zip(part.chunks_exact(d)).zip(&*factors) {
                        let token = targets.tokens[*row] as usize;
                        let (da, d_target) = (&mut da[row * d..][..d], &mut d_embed[token * d..][..d]);
                        let (values, whole) = (&self.rows.values[token * d..][..d], &q.row(*row)[..d]);
                        let by_row = self.rows.scales[token] * targets.weight;
                        let by_q = q.scales()[*row] * targets.weight;
                        for i in 0..d {
                            da[i] = part[i] * factor - f32::from(values[i]) * by_row;
                            d_target[i] -= f32::from(whole[i]) * by_q;
                        }
                    }
                },
            );
        }
        scratch.rows[0] = logits;
        scratch.rows[2] = part;
        loss
    }
}

/// The operation: `x [N, d]`, gain `[d]`, master embedding `[V, d]` → loss `[1]` = weight · Σ −ln p(target).
pub struct CrossEntropy {
    /// The head, rounded.
    pub head: Arc<Int8Head>,
    /// `[N]`, [`NO_TARGET`] where there is none.
    pub targets: Arc<Vec<u32>>,
    /// Weight of each row's loss.
    pub weight: f32,
    /// Added under the root.
    pub eps: f32,
    /// Whether a backward pass follows.
    pub train: bool,
    saved: OnceLock<Saved>,
}

struct Saved {
    da: Vec<f32>,
    d_embed: Tensor,
}

impl CrossEntropy {
    /// One use of `head`.
    pub fn new(head: Arc<Int8Head>, targets: Arc<Vec<u32>>, weight: f32, eps: f32, train: bool) -> Self {
        Self { head, targets, weight, eps, train, saved: OnceLock::new() }
    }
}

impl CustomOp3 for CrossEntropy {
    fn name(&self) -> &'static str {
        "head-cross-entropy"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gain: &CpuStorage,
        gain_layout: &Layout,
        _embed: &CpuStorage,
        _embed_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, gain) = (slice(x, x_layout)?, slice(gain, gain_layout)?);
        let (vocab_size, d) = (self.head.rows.rows, self.head.rows.cols);
        let scratch = &mut Scratch::default();
        let mut q = Int8Rows::new(d);
        q.rms_norm(scratch.isa, &scratch.pool, x, Norm { gain, eps: self.eps });
        let targets = Targets { tokens: &self.targets, weight: self.weight };
        let loss = if self.train {
            let (mut da, mut d_embed) = (vec![0.0; x.len()], vec![0.0; vocab_size * d]);
            let loss = self.head.loss(&q, targets, Some((&mut da, &mut d_embed)), scratch);
            // As in `NormLinear`: an operation is used once.
            let _ = self.saved.set(Saved { da, d_embed: matrix(d_embed, vocab_size, d)? });
            loss
        } else {
            self.head.loss(&q, targets, None, scratch)
        };
        Ok((CpuStorage::F32(vec![(loss * f64::from(self.weight)) as f32]), Shape::from(1)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gain: &Tensor,
        _embed: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(saved) = self.saved.get() else {
            candle_core::bail!("head-cross-entropy: backward without a forward pass for training");
        };
        let grad = f64::from(grad.to_vec1::<f32>()?[0]);
        let scaled = |tensor: Tensor| if grad == 1.0 { Ok(tensor) } else { tensor * grad };
        let (dx, d_gain) = norm_backward_tensors(x, gain, self.eps, &saved.da)?;
        Ok((Some(scaled(dx)?), Some(scaled(d_gain)?), Some(scaled(saved.d_embed.clone())?)))
    }
}
