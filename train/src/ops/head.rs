//! Final norm → int8 → tied int8 head → cross-entropy, some rows at a time.
//!
//! The gradient is taken in the forward pass: dlogits = (softmax − one-hot) · weight. Logits exist for some columns at
//! a time; what is kept of them are their exponentials, laid out for both products that follow. These are multiplied as
//! they are: what makes them sum to the weight is applied to their d-wide products, and the one-hot part is a row taken
//! off.
//!
//! An exponential is of the distance to the largest of a row's first logits, since the largest of all is not known yet.
//! Any number in its place gives the same quotients; it has to be near enough for f32.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use nanochat_engine::model::weights::Int8Matrix;
use nanochat_kernels::{
    Gemm, HeadBits, Int8Rows, Isa, Lhs, Norm, PackedMatrix, Panels, Precision, PreparedHead, Write,
};

use super::linear::norm_backward_tensors;
use super::{Scratch, has_faster_tiles, matrix, simd, sized, slice, with_slice};
use crate::data::batch::NO_TARGET;

/// Rows whose exponentials exist at the same time: whole tiles of 12 rows, and nearly of 32. Each time, the gradient of
/// the embedding is read and written once.
const CHUNK_ROWS: usize = 252;
/// Columns of them whose logits exist: half a megabyte, which stays in L2.
const CHUNK_COLS: usize = 2 * PackedMatrix::COLUMNS;
/// How far above a row's first logits another one may be, in nats: e⁸⁸ is the end of f32, and thousands are summed.
const FAR: f32 = 60.0;

/// The tied head, rounded once per step.
#[derive(Debug)]
pub struct Int8Head {
    /// The rounded embedding, which export writes.
    pub rows: Arc<Int8Matrix>,
    forward: Forward,
    /// `[V, d]`, times their scale.
    values: Panels,
}

/// Two ways to the same bits.
#[derive(Debug)]
enum Forward {
    /// Integer products, as in the engine.
    Integers(PreparedHead),
    /// `[d, V]`, whole numbers, which tiles of bf16 hold exactly, as f32 does their sums.
    Tiles(Panels),
}

impl Forward {
    /// Tiles where these are faster, as f32 is too before VNNI.
    fn new(rows: &Int8Matrix, precision: Precision) -> Self {
        match PreparedHead::shares_weights(Isa::best()) && !has_faster_tiles(precision) {
            true => Self::integers(rows),
            false => Self::tiles(rows, precision),
        }
    }

    fn integers(rows: &Int8Matrix) -> Self {
        Self::Integers(PreparedHead::new(rows.cols, &rows.values, &rows.scales, HeadBits::Eight, Isa::best()))
    }

    fn tiles(rows: &Int8Matrix, precision: Precision) -> Self {
        let whole: Vec<f32> = rows.values.iter().map(|v| f32::from(*v)).collect();
        let mut transposed = Panels::new(precision);
        transposed.fill_columns(rows.cols, rows.rows, &whole, rows.cols);
        Self::Tiles(transposed)
    }
}

impl Int8Head {
    /// Rounds the master embedding `[vocab_size, d]`.
    pub fn quantize(embed: &[f32], vocab_size: usize, d: usize, precision: Precision) -> Self {
        let rows = Int8Matrix::quantize(embed, vocab_size, d);
        let mut values = Panels::new(precision);
        simd::dispatch(
            #[inline(always)]
            || {
                values.fill(
                    vocab_size,
                    d,
                    #[inline(always)]
                    |row_idx, first, out| {
                        let scale = rows.scales[row_idx];
                        for (out, value) in out.iter_mut().zip(&rows.values[row_idx * d + first..]) {
                            *out = f32::from(*value) * scale;
                        }
                    },
                );
            },
        );
        let forward = Forward::new(&rows, precision);
        Self { rows: Arc::new(rows), forward, values }
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
        let n_logits = self.rows.rows;
        let mut all = vec![0.0; rows.len() * n_logits];
        self.columns(&q, &rows, scratch, |n, logits, stride| {
            for (all, logits) in all.chunks_exact_mut(n_logits).zip(logits.chunks(stride)) {
                all[n.clone()].copy_from_slice(&logits[..n.len()]);
            }
        });
        Ok(all)
    }

    /// Logits of `rows` of q, some columns of all of them at a time: calls `f` with which these are, and rows of them
    /// that start a stride apart.
    fn columns(
        &self,
        q: &Int8Rows,
        rows: &[usize],
        scratch: &mut Scratch,
        mut f: impl FnMut(Range<usize>, &mut [f32], usize),
    ) {
        // Rows that start a power of two apart fall into the same few sets of a cache.
        const STRIDE: usize = CHUNK_COLS + 16;
        let (vocab_size, d) = (self.rows.rows, self.rows.cols);
        let Scratch { isa, pack, quantized, rows: [logits, whole, ..], .. } = scratch;
        let logits = sized(logits, rows.len() * STRIDE);
        match &self.forward {
            Forward::Integers(_) => quantized.gather(q, rows),
            Forward::Tiles(_) => {
                for (whole, row) in sized(whole, rows.len() * d).chunks_exact_mut(d).zip(rows) {
                    whole.iter_mut().zip(q.row(*row)).for_each(|(whole, q)| *whole = f32::from(*q));
                }
            }
        }
        for first in (0..vocab_size).step_by(CHUNK_COLS) {
            let n = first..vocab_size.min(first + CHUNK_COLS);
            match &self.forward {
                Forward::Integers(head) => head.gemm_part(quantized, n.clone(), logits, STRIDE),
                Forward::Tiles(transposed) => {
                    let left = Lhs::Rows(whole, d);
                    let product = Gemm { m: rows.len(), lhs: left, rhs: transposed, k: 0..d, n: n.clone() };
                    product.write(*isa, logits, STRIDE, Write::Store, pack);
                    self.scale(q, rows, n.clone(), logits.chunks_exact_mut(STRIDE));
                }
            }
            f(n, logits, STRIDE);
        }
    }

    /// Makes logits of the sums of some columns.
    fn scale<'a>(&self, q: &Int8Rows, rows: &[usize], n: Range<usize>, sums: impl Iterator<Item = &'a mut [f32]>) {
        simd::dispatch(
            #[inline(always)]
            || {
                for (sums, row) in sums.zip(rows) {
                    let s = q.scales()[*row];
                    for (sum, row_scale) in sums[..n.len()].iter_mut().zip(&self.rows.scales[n.clone()]) {
                        *sum = *sum * row_scale * s; // the order of the kernels
                    }
                }
            },
        );
    }

    /// Σ exp(logit − shift) of each of `rows`, and the exponentials themselves, if they are to be kept: then each times
    /// 1 + `entropy` · (ln p + H), which is what regularisation makes of it.
    fn exponentials(
        &self,
        q: &Int8Rows,
        rows: &[usize],
        targets: HeadTargets<'_>,
        sums: &mut [RowSums],
        mut keep: Option<&mut PackedMatrix>,
        scratch: &mut Scratch,
    ) {
        if let Some(keep) = &mut keep {
            keep.resize(self.precision(), rows.len(), self.rows.rows);
        }
        let isa = scratch.isa;
        let HeadTargets { tokens, entropy, .. } = targets;
        let mut pass = |sums: &mut [RowSums], shifts_are_known: bool, keep: Option<&mut PackedMatrix>| {
            let mut keep = keep;
            self.columns(q, rows, scratch, |n, logits, stride| {
                simd::dispatch(
                    #[inline(always)]
                    || {
                        for ((logits, row), sum) in logits.chunks_exact_mut(stride).zip(rows).zip(&mut *sums) {
                            let logits = &mut logits[..n.len()];
                            let largest = simd::max(logits, f32::NEG_INFINITY, |x| x);
                            if n.start == 0 {
                                let shift = if shifts_are_known { sum.largest } else { largest };
                                *sum = RowSums { shift, largest, ..RowSums::default() };
                            }
                            sum.largest = sum.largest.max(largest);
                            let token = tokens[*row] as usize;
                            if n.contains(&token) {
                                sum.at_target = logits[token - n.start];
                            }
                            let shift = sum.shift;
                            if entropy != 0.0 {
                                sum.weighted += simd::sum(
                                    logits,
                                    #[inline(always)]
                                    |x| simd::exp(x - shift) * (x - shift),
                                );
                            }
                            sum.exponentials += simd::replace_sum(
                                logits,
                                #[inline(always)]
                                |x| simd::exp(x - shift),
                            );
                        }
                    },
                );
                if let Some(keep) = &mut keep {
                    keep.pack(isa, n, logits, stride);
                }
            });
        };
        let mut first_keep = keep.as_deref_mut().filter(|_| entropy == 0.0);
        pass(sums, false, first_keep.as_deref_mut());
        if sums.iter().any(|sum| sum.largest - sum.shift > FAR) {
            pass(sums, true, first_keep);
        }
        let Some(keep) = keep.filter(|_| entropy != 0.0) else { return };
        self.columns(q, rows, scratch, |n, logits, stride| {
            simd::dispatch(
                #[inline(always)]
                || {
                    for (logits, sum) in logits.chunks_exact_mut(stride).zip(&*sums) {
                        let (shift, ln_sum, h) = (sum.shift, sum.exponentials.ln(), sum.entropy());
                        for x in &mut logits[..n.len()] {
                            let ln_e = *x - shift;
                            *x = simd::exp(ln_e) * (1.0 + entropy * (ln_e - ln_sum + h));
                        }
                    }
                },
            );
            keep.pack(isa, n, logits, stride);
        });
    }
}

/// Sums over the logits of a row.
#[derive(Clone, Copy, Debug, Default)]
struct RowSums {
    /// Taken off each logit.
    shift: f32,
    largest: f32,
    at_target: f32,
    /// Σ exp(logit − shift).
    exponentials: f32,
    /// Σ exp(logit − shift) · (logit − shift), where the entropy is asked for.
    weighted: f32,
}

impl RowSums {
    fn loss(&self) -> f64 {
        f64::from(self.exponentials).ln() + f64::from(self.shift) - f64::from(self.at_target)
    }

    /// H(p) in nats.
    fn entropy(&self) -> f32 {
        self.exponentials.ln() - self.weighted / self.exponentials
    }
}

/// Targets of the loss, and their weights.
#[derive(Clone, Copy)]
pub(crate) struct HeadTargets<'a> {
    /// One per row, [`NO_TARGET`] where there is none.
    pub(crate) tokens: &'a [u32],
    /// How much each row counts.
    pub(crate) counts: &'a [f32],
    /// Weight of the loss of a row that counts once.
    pub(crate) weight: f32,
    /// Weight of the entropy bonus, subtracted per nat of a row's entropy so that predictions do not collapse
    /// (arXiv 1701.06548).
    pub(crate) entropy: f32,
}

/// The loss of rows in nats, each row times its own weight.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeadLoss {
    /// Σ −ln p(target).
    pub(crate) cross_entropy: f64,
    /// Σ H(p), where it counts.
    pub(crate) entropy: f64,
}

impl Int8Head {
    /// The loss of normed rows. With gradients, writes that of the normed rows, `[N, d]`, and
    /// writes or adds that of the embedding.
    pub(crate) fn loss(
        &self,
        q: &Int8Rows,
        targets: HeadTargets<'_>,
        mut gradients: Option<(&mut [f32], &mut [f32], Write)>,
        scratch: &mut Scratch,
    ) -> HeadLoss {
        let (vocab_size, d) = (self.rows.rows, self.rows.cols);
        let with_target: Vec<usize> = (0..q.n_rows()).filter(|row| targets.tokens[*row] != NO_TARGET).collect();
        if let Some((da, d_embed, write)) = &mut gradients {
            da.fill(0.0);
            if with_target.is_empty() && *write == Write::Store {
                d_embed.fill(0.0);
            }
        }
        let mut loss = HeadLoss::default();
        let mut strips = std::mem::take(&mut scratch.strips);
        for rows in with_target.chunks(CHUNK_ROWS) {
            let mut sums = [RowSums::default(); CHUNK_ROWS];
            let sums = &mut sums[..rows.len()];
            let keep = gradients.is_some().then_some(&mut strips);
            self.exponentials(q, rows, targets, sums, keep, scratch);
            let counted = || sums.iter().zip(rows).map(|(sum, row)| (sum, f64::from(targets.counts[*row])));
            loss.cross_entropy += counted().map(|(sum, count)| count * sum.loss()).sum::<f64>();
            if targets.entropy != 0.0 {
                loss.entropy += counted().map(|(sum, count)| count * f64::from(sum.entropy())).sum::<f64>();
            }
            let Some((da, d_embed, write)) = &mut gradients else { continue };
            let mut factors = [0.0; CHUNK_ROWS];
            for ((factor, sum), row) in factors.iter_mut().zip(&*sums).zip(rows) {
                *factor = targets.weight * targets.counts[*row] / sum.exponentials;
            }
            let Scratch { isa, pack, right, rows: [_, _, part, _], .. } = scratch;
            right.set_precision(self.precision());
            let part = sized(part, rows.len() * d);
            Gemm::new(rows.len(), strips.as_is(), &self.values).write(*isa, part, d, Write::Store, pack);
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
            Gemm::new(vocab_size, strips.transposed(), right).write(*isa, d_embed, d, *write, pack);
            *write = Write::Add;
            simd::dispatch(
                #[inline(always)]
                || {
                    for ((row, part), factor) in rows.iter().zip(part.chunks_exact(d)).zip(&factors) {
                        let token = targets.tokens[*row] as usize;
                        let (da, d_target) = (&mut da[row * d..][..d], &mut d_embed[token * d..][..d]);
                        let (values, whole) = (&self.rows.values[token * d..][..d], &q.row(*row)[..d]);
                        let weight = targets.weight * targets.counts[*row];
                        let by_row = self.rows.scales[token] * weight;
                        let by_q = q.scales()[*row] * weight;
                        for i in 0..d {
                            da[i] = part[i] * factor - f32::from(values[i]) * by_row;
                            d_target[i] -= f32::from(whole[i]) * by_q;
                        }
                    }
                },
            );
        }
        scratch.strips = strips;
        loss
    }
}

/// The operation: `x [N, d]`, gain `[d]`, master embedding `[V, d]` → loss `[1]` =
/// weight · Σ (−ln p(target) − entropy · H(p)).
pub struct CrossEntropy {
    /// The rounded head.
    pub head: Arc<Int8Head>,
    /// `[N]`, [`NO_TARGET`] where there is none.
    pub targets: Arc<Vec<u32>>,
    /// `[N]`, how much each row counts.
    pub weights: Arc<Vec<f32>>,
    /// Weight of the loss of a row that counts once.
    pub weight: f32,
    /// Weight of the entropy bonus, subtracted per nat of a row's entropy.
    pub entropy: f32,
    /// ε of the norm, added under the root.
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
        let weights = Arc::new(vec![1.0; targets.len()]);
        Self { head, targets, weights, weight, entropy: 0.0, eps, train, saved: OnceLock::new() }
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
        let Self { weight, entropy, .. } = *self;
        let targets = HeadTargets { tokens: &self.targets, counts: &self.weights, weight, entropy };
        let loss = if self.train {
            let (mut da, mut d_embed) = (vec![0.0; x.len()], vec![0.0; vocab_size * d]);
            let loss = self.head.loss(&q, targets, Some((&mut da, &mut d_embed, Write::Store)), scratch);
            // As in `NormLinear`: an operation is used once.
            let _ = self.saved.set(Saved { da, d_embed: matrix(d_embed, vocab_size, d)? });
            loss
        } else {
            self.head.loss(&q, targets, None, scratch)
        };
        let loss = loss.cross_entropy - f64::from(self.entropy) * loss.entropy;
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

#[cfg(test)]
mod tests {
    use super::*;
    use nanochat_engine::rng::Rng;

    #[test]
    fn tiles_make_the_bits_that_integers_make() {
        let (n, v, d) = (CHUNK_ROWS + 7, CHUNK_COLS + 70, 40);
        let mut rng = Rng::new(9);
        let mut normals = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal()).collect() };
        let (x, embed, gain) = (normals(n * d), normals(v * d), normals(d));
        let scratch = &mut Scratch::default();
        let mut q = Int8Rows::new(d);
        q.rms_norm(scratch.isa, &scratch.pool, &x, Norm { gain: &gain, eps: 1e-5 });
        let rows: Vec<usize> = (0..n).filter(|row| row % 5 != 2).collect();
        for precision in [Precision::F32, Precision::Bf16] {
            let mut head = Int8Head::quantize(&embed, v, d, precision);
            let [integers, tiles] = [Forward::integers(&head.rows), Forward::tiles(&head.rows, precision)];
            let mut logits = |forward| {
                head.forward = forward;
                let mut all = Vec::new();
                head.columns(&q, &rows, scratch, |n, logits, stride| {
                    all.extend(
                        logits.chunks(stride).flat_map(|row| row[..n.len()].iter().map(|logit| logit.to_bits())),
                    );
                });
                all
            };
            let expected = logits(integers);
            assert_eq!(expected.len(), rows.len() * v);
            assert!(logits(tiles) == expected, "{precision:?}");
        }
    }
}
