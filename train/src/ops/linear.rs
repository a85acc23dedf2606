//! RMSNorm → int8 → ternary product: what stands before every hidden matrix.
//!
//! ```text
//! x̂ = x / √(mean x² + ε)      a = x̂ ∘ g      q, s = int8(a)      y = s · γ · (q·tᵀ)
//! da = (dy ∘ γ)·t   dW = (dy ∘ s)ᵀ·q   dg = Σ da ∘ x̂   dx = (da∘g − x̂ · mean(da∘g∘x̂)) / rms
//! ```

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use nanochat_kernels::{ScaleGroup, TernaryMatrix};

use super::{matrix, simd, slice, with_slice};

/// Master weights rounded to ternary once per step: several matrices over the same input, one below the other.
#[derive(Debug)]
pub struct TernaryStack {
    /// The matrices; what export writes.
    pub parts: Vec<TernaryMatrix>,
    /// `[rows, cols]`: −1, 0, +1; with scales by column group, these times their scale.
    trits: Tensor,
    /// One per row, all 1 with scales by column group.
    row_scales: Vec<f32>,
}

impl TernaryStack {
    /// Rounds `weights` `[Σ rows, cols]`, each run of `part_rows` rows by itself.
    pub fn quantize(weights: &[f32], part_rows: &[usize], cols: usize, group: ScaleGroup) -> Result<Self> {
        let mut parts = Vec::with_capacity(part_rows.len());
        let mut start = 0;
        for rows in part_rows {
            let shape = nanochat_kernels::Shape { rows: *rows, cols };
            parts.push(TernaryMatrix::quantize(&weights[start..][..rows * cols], shape, group));
            start += rows * cols;
        }
        Self::from_parts(parts)
    }

    /// Takes matrices that are ternary already.
    pub fn from_parts(parts: Vec<TernaryMatrix>) -> Result<Self> {
        let cols = parts[0].shape().cols;
        let (mut trits, mut row_scales) = (Vec::new(), Vec::new());
        for part in &parts {
            match part.group() {
                ScaleGroup::Matrix => row_scales.extend(std::iter::repeat_n(part.scales()[0], part.shape().rows)),
                ScaleGroup::Row => row_scales.extend_from_slice(part.scales()),
                ScaleGroup::Columns(_) => row_scales.extend(std::iter::repeat_n(1.0, part.shape().rows)),
            }
            if let ScaleGroup::Columns(_) = part.group() {
                let start = trits.len();
                trits.resize(start + part.trits().len(), 0.0);
                part.dequantize_into(&mut trits[start..]);
            } else {
                trits.extend(part.trits().iter().map(|t| f32::from(*t)));
            }
        }
        let rows = row_scales.len();
        Ok(Self { parts, trits: matrix(trits, rows, cols)?, row_scales })
    }
}

/// The operation: `x [N, k]`, gain `[k]`, master weights `[rows, k]` → `[N, rows]`. The master weights are only
/// there to receive their gradient: the values come from the stack.
pub struct NormLinear {
    /// The weights, rounded.
    pub stack: Arc<TernaryStack>,
    /// Added under the root.
    pub eps: f32,
    saved: OnceLock<Saved>,
}

struct Saved {
    q: Tensor,
    scales: Vec<f32>,
    inv_rms: Vec<f32>,
}

impl NormLinear {
    /// One use of `stack`.
    pub fn new(stack: Arc<TernaryStack>, eps: f32) -> Self {
        Self { stack, eps, saved: OnceLock::new() }
    }
}

impl CustomOp3 for NormLinear {
    fn name(&self) -> &'static str {
        "norm-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gain: &CpuStorage,
        gain_layout: &Layout,
        _weights: &CpuStorage,
        _weights_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, gain) = (slice(x, x_layout)?, slice(gain, gain_layout)?);
        let (n_rows, cols) = x_layout.shape().dims2()?;
        let normed = norm_quantize(x, gain, self.eps);
        let q = matrix(normed.q, n_rows, cols)?;
        let product = q.matmul(&self.stack.trits.t()?)?;
        let n_out = self.stack.row_scales.len();
        let y = with_slice(&product, |product| {
            let mut y = vec![0.0; n_rows * n_out];
            simd::dispatch(|| {
                for ((y, sums), s) in y.chunks_exact_mut(n_out).zip(product.chunks_exact(n_out)).zip(&normed.scales) {
                    for ((y, sum), gamma) in y.iter_mut().zip(sums).zip(&self.stack.row_scales) {
                        *y = sum * gamma * s; // the order of the kernels, so that both round alike
                    }
                }
            });
            y
        })?;
        // Ignored if the operation is used twice: it never is, and its backward pass reads the first use.
        let _ = self.saved.set(Saved { q, scales: normed.scales, inv_rms: normed.inv_rms });
        Ok((CpuStorage::F32(y), Shape::from((n_rows, n_out))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gain: &Tensor,
        _weights: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(saved) = self.saved.get() else {
            candle_core::bail!("norm-linear: backward before forward");
        };
        let (n_rows, n_out) = grad.dims2()?;
        let (mut by_gamma, mut by_scale) = (vec![0.0; n_rows * n_out], vec![0.0; n_rows * n_out]);
        with_slice(grad, |grad| {
            simd::dispatch(|| {
                let rows = by_gamma.chunks_exact_mut(n_out).zip(by_scale.chunks_exact_mut(n_out));
                for (((by_gamma, by_scale), dy), s) in rows.zip(grad.chunks_exact(n_out)).zip(&saved.scales) {
                    for i in 0..n_out {
                        by_gamma[i] = dy[i] * self.stack.row_scales[i];
                        by_scale[i] = dy[i] * s;
                    }
                }
            });
        })?;
        let da = matrix(by_gamma, n_rows, n_out)?.matmul(&self.stack.trits)?;
        let d_weights = matrix(by_scale, n_rows, n_out)?.t()?.matmul(&saved.q)?;
        let (dx, d_gain) = norm_backward(x, gain, &saved.inv_rms, &da)?;
        Ok((Some(dx), Some(d_gain), Some(d_weights)))
    }
}

/// Rows after RMSNorm and the int8 quantiser.
pub(crate) struct Normed {
    /// Whole numbers within ±127.
    pub(crate) q: Vec<f32>,
    /// One per row.
    pub(crate) scales: Vec<f32>,
    /// One per row.
    pub(crate) inv_rms: Vec<f32>,
}

pub(crate) fn norm_quantize(x: &[f32], gain: &[f32], eps: f32) -> Normed {
    let cols = gain.len();
    let n_rows = x.len() / cols;
    let mut normed = Normed { q: vec![0.0; x.len()], scales: vec![0.0; n_rows], inv_rms: vec![0.0; n_rows] };
    let mut a = vec![0.0; cols];
    simd::dispatch(|| {
        for (row_idx, (row, q)) in x.chunks_exact(cols).zip(normed.q.chunks_exact_mut(cols)).enumerate() {
            let inv = 1.0 / (simd::sum(row, |x| x * x) / cols as f32 + eps).sqrt();
            for ((a, x), g) in a.iter_mut().zip(row).zip(gain) {
                *a = x * inv * g;
            }
            normed.inv_rms[row_idx] = inv;
            normed.scales[row_idx] = simd::quantize_row(&a, q);
        }
    });
    normed
}

/// Gradients of `x` and the gain from that of the normed rows.
pub(crate) fn norm_backward(x: &Tensor, gain: &Tensor, inv_rms: &[f32], da: &Tensor) -> Result<(Tensor, Tensor)> {
    let (n_rows, cols) = x.dims2()?;
    let (mut dx, mut d_gain) = (vec![0.0; n_rows * cols], vec![0.0; cols]);
    with_slice(x, |x| {
        with_slice(gain, |gain| {
            with_slice(da, |da| {
                let mut dag = vec![0.0; cols];
                simd::dispatch(|| {
                    for (row_idx, dx) in dx.chunks_exact_mut(cols).enumerate() {
                        let (x, da) = (&x[row_idx * cols..][..cols], &da[row_idx * cols..][..cols]);
                        let inv = inv_rms[row_idx];
                        for i in 0..cols {
                            dag[i] = da[i] * gain[i];
                            d_gain[i] += da[i] * x[i] * inv;
                        }
                        let mean = simd::sum2(&dag, x, |d, x| d * x) * inv / cols as f32;
                        for i in 0..cols {
                            dx[i] = (dag[i] - x[i] * inv * mean) * inv;
                        }
                    }
                });
            })
        })
    })???;
    Ok((matrix(dx, n_rows, cols)?, Tensor::from_vec(d_gain, cols, x.device())?))
}
