//! SwiGLU over `[N, 2·d_ff]` (gate beside up): m = silu(gate) ∘ up.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{matrix, simd, slice, with_slice};

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
        simd::dispatch(|| {
            for (m, row) in m.chunks_exact_mut(d_ff).zip(x.chunks_exact(width)) {
                let (gate, up) = row.split_at(d_ff);
                for i in 0..d_ff {
                    m[i] = gate[i] / (1.0 + simd::exp(-gate[i])) * up[i];
                }
            }
        });
        Ok((CpuStorage::F32(m), Shape::from((n_rows, d_ff))))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (n_rows, width) = x.dims2()?;
        let d_ff = width / 2;
        let mut dx = vec![0.0; n_rows * width];
        with_slice(x, |x| {
            with_slice(grad, |grad| {
                simd::dispatch(|| {
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
                });
            })
        })??;
        Ok(Some(matrix(dx, n_rows, width)?))
    }
}
