//! The gated linear unit of the MLP over `[N, 2·d_ff]` (gate columns, then up columns): m = f(gate) ∘ up.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use nanochat_kernels::{Activation, Int8Rows, Isa, Norm};

use super::linear::NormRow;
use super::{matrix, simd, slice, with_slice};

/// An activation with its derivative.
trait ActivationFn {
    /// Subexpression that value and slope share, computed once per entry.
    fn shared(x: f32) -> f32;
    /// f(x).
    fn value(x: f32, shared: f32) -> f32;
    /// f′(x).
    fn slope(x: f32, shared: f32) -> f32;
}

struct Silu;

impl ActivationFn for Silu {
    #[inline(always)]
    fn shared(x: f32) -> f32 {
        1.0 / (1.0 + simd::exp(-x))
    }

    #[inline(always)]
    fn value(x: f32, sigma: f32) -> f32 {
        x * sigma
    }

    #[inline(always)]
    fn slope(x: f32, sigma: f32) -> f32 {
        sigma * (1.0 + x * (1.0 - sigma))
    }
}

struct Relu2;

impl ActivationFn for Relu2 {
    #[inline(always)]
    fn shared(x: f32) -> f32 {
        x.max(0.0)
    }

    #[inline(always)]
    fn value(_: f32, positive: f32) -> f32 {
        positive * positive
    }

    #[inline(always)]
    fn slope(_: f32, positive: f32) -> f32 {
        2.0 * positive
    }
}

/// One row of m from one of `[gate | up]`.
#[inline(always)]
fn forward_row<F: ActivationFn>(row: &[f32], m: &mut [f32]) {
    let (gate, up) = row.split_at(m.len());
    for i in 0..m.len() {
        m[i] = F::value(gate[i], F::shared(gate[i])) * up[i];
    }
}

/// m of all rows of `[gate | up]`, through the norm that follows and rounded.
pub(crate) fn norm_quantize(gate_up: &[f32], f: Activation, norm: Norm<'_>, out: &mut Int8Rows, isa: Isa) {
    let width = 2 * norm.gain.len();
    let row = |row_idx: usize| &gate_up[row_idx * width..][..width];
    let n_rows = gate_up.len() / width;
    match f {
        Activation::Silu => out.rms_norm_each(isa, n_rows, norm, |row_idx, m| {
            simd::dispatch(
                #[inline(always)]
                || forward_row::<Silu>(row(row_idx), m),
            );
        }),
        Activation::Relu2 => out.rms_norm_each(isa, n_rows, norm, |row_idx, m| {
            simd::dispatch(
                #[inline(always)]
                || forward_row::<Relu2>(row(row_idx), m),
            );
        }),
    }
}

/// Backward through the norm that follows and the unit: turns `[gate | up]` into its gradient, given that of the normed
/// rows `[N, d_ff]`, and adds that of the norm's gain.
pub(crate) fn norm_backward(gate_up: &mut [f32], f: Activation, norm: Norm<'_>, da: &[f32], d_gain: &mut [f32]) {
    match f {
        Activation::Silu => norm_backward_of::<Silu>(gate_up, norm, da, d_gain),
        Activation::Relu2 => norm_backward_of::<Relu2>(gate_up, norm, da, d_gain),
    }
}

fn norm_backward_of<F: ActivationFn>(gate_up: &mut [f32], norm: Norm<'_>, da: &[f32], d_gain: &mut [f32]) {
    let d_ff = norm.gain.len();
    let (mut shared, mut m) = (vec![0.0; d_ff], vec![0.0; d_ff]);
    simd::dispatch(
        #[inline(always)]
        || {
            // Slices of one length that the compiler sees: with a check at each index nothing is vectorised.
            let (shared, m) = (&mut shared[..d_ff], &mut m[..d_ff]);
            for (row, da) in gate_up.chunks_exact_mut(2 * d_ff).zip(da.chunks_exact(d_ff)) {
                let (gate, up) = row.split_at_mut(d_ff);
                let up = &mut up[..d_ff];
                for i in 0..d_ff {
                    shared[i] = F::shared(gate[i]);
                    m[i] = F::value(gate[i], shared[i]) * up[i];
                }
                NormRow::new(m, norm, da).each(
                    d_gain,
                    #[inline(always)]
                    |i, dm| {
                        let (g, u, s) = (gate[i], up[i], shared[i]);
                        up[i] = dm * F::value(g, s);
                        gate[i] = dm * u * F::slope(g, s);
                    },
                );
            }
        },
    );
}

/// The candle operation, with its activation f; it saves nothing for the backward pass.
pub struct Glu(pub Activation);

impl CustomOp1 for Glu {
    fn name(&self) -> &'static str {
        "glu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n_rows, width) = layout.shape().dims2()?;
        let x = slice(x, layout)?;
        let m = match self.0 {
            Activation::Silu => forward::<Silu>(x, width),
            Activation::Relu2 => forward::<Relu2>(x, width),
        };
        Ok((CpuStorage::F32(m), Shape::from((n_rows, width / 2))))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (n_rows, width) = x.dims2()?;
        let dx = with_slice(x, |x| {
            with_slice(grad, |grad| match self.0 {
                Activation::Silu => backward::<Silu>(x, grad, width),
                Activation::Relu2 => backward::<Relu2>(x, grad, width),
            })
        })??;
        Ok(Some(matrix(dx, n_rows, width)?))
    }
}

fn forward<F: ActivationFn>(x: &[f32], width: usize) -> Vec<f32> {
    let mut m = vec![0.0; x.len() / 2];
    simd::dispatch(
        #[inline(always)]
        || {
            for (m, row) in m.chunks_exact_mut(width / 2).zip(x.chunks_exact(width)) {
                forward_row::<F>(row, m);
            }
        },
    );
    m
}

fn backward<F: ActivationFn>(x: &[f32], grad: &[f32], width: usize) -> Vec<f32> {
    let d_ff = width / 2;
    let mut dx = vec![0.0; x.len()];
    simd::dispatch(
        #[inline(always)]
        || {
            for ((dx, row), dm) in dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(grad.chunks_exact(d_ff)) {
                let (gate, up) = row.split_at(d_ff);
                let (d_gate, d_up) = dx.split_at_mut(d_ff);
                for i in 0..d_ff {
                    let shared = F::shared(gate[i]);
                    d_up[i] = dm[i] * F::value(gate[i], shared);
                    d_gate[i] = dm[i] * up[i] * F::slope(gate[i], shared);
                }
            }
        },
    );
    dx
}
