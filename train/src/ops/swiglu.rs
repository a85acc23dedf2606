//! SwiGLU over `[N, 2·d_ff]` (gate beside up): m = silu(gate) ∘ up.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use nanochat_kernels::{Int8Rows, Isa, Norm};

use super::linear::NormRow;
use super::{matrix, simd, slice, with_slice};

/// One row of m from one of `[gate | up]`.
#[inline(always)]
pub(crate) fn forward_row(row: &[f32], m: &mut [f32]) {
    let (gate, up) = row.split_at(m.len());
    for i in 0..m.len() {
        m[i] = gate[i] / (1.0 + simd::exp(-gate[i])) * up[i];
    }
}

/// m of all rows of `[gate | up]`, through the norm that follows and rounded.
pub(crate) fn norm_quantize(gate_up: &[f32], norm: Norm<'_>, out: &mut Int8Rows, isa: Isa) {
    let width = 2 * norm.gain.len();
    out.rms_norm_each(isa, gate_up.len() / width, norm, |row_idx, m| {
        simd::dispatch(
            #[inline(always)]
            || forward_row(&gate_up[row_idx * width..][..width], m),
        );
    });
}

/// Through the norm that follows and the gates: turns `[gate | up]` into its gradient, given that of the normed rows
/// `[N, d_ff]`, and adds that of the norm's gain.
pub(crate) fn norm_backward(gate_up: &mut [f32], norm: Norm<'_>, da: &[f32], d_gain: &mut [f32]) {
    let d_ff = norm.gain.len();
    let (mut sigma, mut m) = (vec![0.0; d_ff], vec![0.0; d_ff]);
    simd::dispatch(
        #[inline(always)]
        || {
            // Slices of one length that the compiler sees: with a check at each index nothing is vectorised.
            let (sigma, m) = (&mut sigma[..d_ff], &mut m[..d_ff]);
            for (row, da) in gate_up.chunks_exact_mut(2 * d_ff).zip(da.chunks_exact(d_ff)) {
                let (gate, up) = row.split_at_mut(d_ff);
                let up = &mut up[..d_ff];
                for i in 0..d_ff {
                    sigma[i] = 1.0 / (1.0 + simd::exp(-gate[i]));
                    m[i] = gate[i] * sigma[i] * up[i];
                }
                NormRow::new(m, norm, da).each(
                    d_gain,
                    #[inline(always)]
                    |i, dm| {
                        let (g, u, s) = (gate[i], up[i], sigma[i]);
                        up[i] = dm * g * s;
                        gate[i] = dm * u * s * (1.0 + g * (1.0 - s));
                    },
                );
            }
        },
    );
}

/// The operation; it keeps nothing.
pub struct SwiGlu;

impl CustomOp1 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n_rows, width) = layout.shape().dims2()?;
        let (x, d_ff) = (slice(x, layout)?, width / 2);
        let mut m = vec![0.0; n_rows * d_ff];
        simd::dispatch(
            #[inline(always)]
            || {
                for (m, row) in m.chunks_exact_mut(d_ff).zip(x.chunks_exact(width)) {
                    forward_row(row, m);
                }
            },
        );
        Ok((CpuStorage::F32(m), Shape::from((n_rows, d_ff))))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (n_rows, width) = x.dims2()?;
        let d_ff = width / 2;
        let mut dx = vec![0.0; n_rows * width];
        with_slice(x, |x| {
            with_slice(grad, |grad| {
                simd::dispatch(
                    #[inline(always)]
                    || {
                        for ((dx, row), dm) in
                            dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(grad.chunks_exact(d_ff))
                        {
                            let (gate, up) = row.split_at(d_ff);
                            let (d_gate, d_up) = dx.split_at_mut(d_ff);
                            for i in 0..d_ff {
                                let sigma = 1.0 / (1.0 + simd::exp(-gate[i]));
                                d_up[i] = dm[i] * gate[i] * sigma;
                                d_gate[i] = dm[i] * up[i] * sigma * (1.0 + gate[i] * (1.0 - sigma));
                            }
                        }
                    },
                );
            })
        })??;
        Ok(Some(matrix(dx, n_rows, width)?))
    }
}
