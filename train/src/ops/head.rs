//! Final norm → int8 → tied int8 head → cross-entropy, a few hundred rows at a time.
//!
//! The gradient is taken in the forward pass, so that the logits of a chunk are made once and never kept:
//! dlogits = (softmax − one-hot) · weight.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use nanochat_engine::weights::Int8Matrix;

use super::linear::{Normed, norm_backward, norm_quantize};
use super::{matrix, simd, slice, with_slice};

/// A row without a target.
pub const NO_TARGET: u32 = u32::MAX;

/// Rows whose logits exist at the same time: 8 MB at a vocabulary of 4,096.
const CHUNK_ROWS: usize = 512;

/// The tied head, rounded once per step.
#[derive(Debug)]
pub struct Int8Head {
    /// What export writes.
    pub rows: Arc<Int8Matrix>,
    /// `[V, d]`, whole numbers.
    values: Tensor,
}

impl Int8Head {
    /// Rounds the master embedding `[vocab_size, d]`.
    pub fn quantize(embed: &[f32], vocab_size: usize, d: usize) -> Result<Self> {
        let rows = Int8Matrix::quantize(embed, vocab_size, d);
        let values = matrix(rows.values.iter().map(|v| f32::from(*v)).collect(), vocab_size, d)?;
        Ok(Self { rows: Arc::new(rows), values })
    }

    /// Logits `[N, V]` of `x` `[N, d]`.
    pub fn logits(&self, x: &Tensor, gain: &[f32], eps: f32) -> Result<Vec<f32>> {
        let (n_rows, d) = x.dims2()?;
        let Normed { q, scales, .. } = with_slice(x, |x| norm_quantize(x, gain, eps))?;
        let sums = matrix(q, n_rows, d)?.matmul(&self.values.t()?)?;
        let mut logits = vec![0.0; n_rows * self.rows.rows];
        with_slice(&sums, |sums| self.scale(sums, &scales, &mut logits))?;
        Ok(logits)
    }

    fn scale(&self, sums: &[f32], scales: &[f32], logits: &mut [f32]) {
        let vocab_size = self.rows.rows;
        simd::dispatch(|| {
            for ((logits, sums), s) in
                logits.chunks_exact_mut(vocab_size).zip(sums.chunks_exact(vocab_size)).zip(scales)
            {
                for ((logit, sum), row_scale) in logits.iter_mut().zip(sums).zip(&self.rows.scales) {
                    *logit = sum * row_scale * s; // the order of the kernels
                }
            }
        });
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
    inv_rms: Vec<f32>,
    da: Tensor,
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
        let (n_rows, d) = x_layout.shape().dims2()?;
        let vocab_size = self.head.rows.rows;
        let Normed { q, scales, inv_rms } = norm_quantize(slice(x, x_layout)?, slice(gain, gain_layout)?, self.eps);
        let mut loss = 0.0f64;
        let mut da = Vec::with_capacity(if self.train { n_rows * d } else { 0 });
        let mut d_embed: Option<Tensor> = None;
        for start in (0..n_rows).step_by(CHUNK_ROWS) {
            let rows = start..n_rows.min(start + CHUNK_ROWS);
            let q = matrix(q[rows.start * d..rows.end * d].to_vec(), rows.len(), d)?;
            let sums = q.matmul(&self.head.values.t()?)?;
            let mut logits = vec![0.0; rows.len() * vocab_size];
            with_slice(&sums, |sums| self.head.scale(sums, &scales[rows.clone()], &mut logits))?;
            drop(sums);
            loss += self.losses(&mut logits, &self.targets[rows.clone()]);
            if !self.train {
                continue;
            }
            // `logits` now holds dlogits.
            let mut by_scale = vec![0.0; logits.len()];
            simd::dispatch(|| {
                let both = by_scale.chunks_exact_mut(vocab_size).zip(logits.chunks_exact_mut(vocab_size));
                for ((by_scale, dl), s) in both.zip(&scales[rows.clone()]) {
                    for i in 0..vocab_size {
                        by_scale[i] = dl[i] * s;
                        dl[i] *= self.head.rows.scales[i];
                    }
                }
            });
            let part = matrix(logits, rows.len(), vocab_size)?.matmul(&self.head.values)?;
            with_slice(&part, |part| da.extend_from_slice(part))?;
            let part = matrix(by_scale, rows.len(), vocab_size)?.t()?.matmul(&q)?;
            d_embed = Some(match d_embed {
                None => part,
                Some(sum) => (sum + part)?,
            });
        }
        if let Some(d_embed) = d_embed {
            // As in `NormLinear`: an operation is used once.
            let _ = self.saved.set(Saved { inv_rms, da: matrix(da, n_rows, d)?, d_embed });
        }
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
        let scaled = |tensor: &Tensor| if grad == 1.0 { Ok(tensor.clone()) } else { tensor * grad };
        let (dx, d_gain) = norm_backward(x, gain, &saved.inv_rms, &scaled(&saved.da)?)?;
        Ok((Some(dx), Some(d_gain), Some(scaled(&saved.d_embed)?)))
    }
}

impl CrossEntropy {
    /// Turns logits into their gradients and returns Σ −ln p(target).
    fn losses(&self, logits: &mut [f32], targets: &[u32]) -> f64 {
        let mut loss = 0.0f64;
        simd::dispatch(|| {
            for (row, target) in logits.chunks_exact_mut(self.head.rows.rows).zip(targets) {
                if *target == NO_TARGET {
                    row.fill(0.0);
                    continue;
                }
                let max = simd::max(row, f32::NEG_INFINITY, |x| x);
                let at_target = row[*target as usize];
                for x in row.iter_mut() {
                    *x = simd::exp(*x - max);
                }
                let sum = simd::sum(row, |x| x);
                loss += f64::from(sum).ln() + f64::from(max) - f64::from(at_target);
                let factor = self.weight / sum;
                for x in row.iter_mut() {
                    *x *= factor;
                }
                row[*target as usize] -= self.weight;
            }
        });
        loss
    }
}
