//! RMSNorm → int8 → ternary product: every hidden matrix with the norm before it.
//!
//! ```text
//! x̂ = x / √(mean x² + ε)      a = x̂ ∘ g      q, s = int8(a)      y = s · γ · (q·tᵀ)
//! da = dy·(γ ∘ t)   dW = dyᵀ·(s ∘ q)   dg = Σ da ∘ x̂   dx = (da∘g − x̂ · mean(da∘g∘x̂)) / rms
//! ```
//!
//! The forward product is the engine's, in integers or, where tiles of bf16 are faster, to the same bits by them. Both
//! scales of the backward ones go into the side that is laid out for the product, which costs nothing.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use nanochat_kernels::{
    Gemm, Int8Rows, Lhs, Norm, Panels, Plan, Precision, Prepared, ScaleGroup, TernaryMatrix, Write,
};

use super::{MatmulPrecision, Scratch, has_faster_tiles, matrix, simd, sized, slice, transpose, with_slice};

/// Master weights rounded to ternary once per step: several matrices over the same input, stacked by rows.
#[derive(Debug)]
pub struct TernaryStack {
    /// The matrices; what export writes. None where they are not ternary.
    pub parts: Vec<TernaryMatrix>,
    forward: Forward,
    backward: Backward,
    /// Outputs of all matrices, and inputs.
    dims: (usize, usize),
    precision: Precision,
}

/// Two ways to the same bits, and one for weights that the engine does not have.
#[derive(Debug)]
enum Forward {
    /// Integer products, as in the engine.
    Integers(Prepared),
    /// By tiles of bf16, which hold whole numbers up to 256 exactly, as f32 does their sums.
    Tiles {
        /// `[cols, rows]`, without their scale.
        trits: Panels,
        /// Scale of each row.
        scales: Vec<f32>,
    },
    /// By the weights as they are, `[cols, rows]`.
    Values(Panels),
}

/// Operands of the input's gradient.
#[derive(Debug)]
enum Backward {
    /// `[rows, cols]`, times their scale.
    Values(Panels),
    /// By integers: dy takes the scales over before it is rounded.
    Integers { transposed: Prepared, scales: Vec<f32> },
}

/// Rows of the input at a time: their outputs are scaled while they are in cache.
const TILE_ROWS: usize = 128;
/// The largest sum of products of int8 and trits that f32 holds exactly has so many terms.
const MOST_COLS: usize = (1 << 24) / 127;

impl Forward {
    fn new(parts: &[TernaryMatrix], precision: Precision) -> Self {
        let (_, cols) = dims(parts);
        let Some(scales) = scales(parts).filter(|_| has_faster_tiles(precision) && cols <= MOST_COLS) else {
            return Self::Integers(Prepared::new(&parts.iter().collect::<Vec<_>>(), Plan::default()));
        };
        Self::tiles(parts, scales, precision)
    }

    /// By tiles, whatever multiplies bf16 here.
    fn tiles(parts: &[TernaryMatrix], scales: Vec<f32>, precision: Precision) -> Self {
        let (rows, cols) = dims(parts);
        let whole: Vec<f32> = parts.iter().flat_map(|part| part.trits()).map(|trit| f32::from(*trit)).collect();
        let mut trits = Panels::new(precision);
        trits.fill_columns(cols, rows, &whole, cols);
        Self::Tiles { trits, scales }
    }
}

impl Backward {
    fn new(parts: &[TernaryMatrix], matmul: MatmulPrecision) -> Self {
        let (rows, cols) = dims(parts);
        if matmul.int8_gradients
            && let Some(scales) = scales(parts)
        {
            let trits: Vec<i8> = parts.iter().flat_map(|part| part.trits()).copied().collect();
            let mut transposed = vec![0; trits.len()];
            transpose(&trits, rows, cols, &mut transposed);
            let shape = nanochat_kernels::Shape { rows: cols, cols: rows };
            let matrix = TernaryMatrix::from_trits(shape, ScaleGroup::Matrix, transposed, vec![1.0]);
            let matrix = matrix.expect("the transpose of ternary matrices is one");
            return Self::Integers { transposed: Prepared::new(&[&matrix], Plan::default()), scales };
        }
        let mut dequantized = vec![0.0; rows * cols];
        let mut start = 0;
        for part in parts {
            let n_weights = part.trits().len();
            part.dequantize_into(&mut dequantized[start..start + n_weights]);
            start += n_weights;
        }
        let mut values = Panels::new(matmul.precision);
        values.fill_rows(rows, cols, &dequantized, cols);
        Self::Values(values)
    }
}

/// One for each row of all matrices, if a row has one.
fn scales(parts: &[TernaryMatrix]) -> Option<Vec<f32>> {
    let of_parts: Option<Vec<Vec<f32>>> = parts.iter().map(TernaryMatrix::row_scales).collect();
    Some(of_parts?.concat())
}

/// Outputs of all matrices, and inputs.
fn dims(parts: &[TernaryMatrix]) -> (usize, usize) {
    (parts.iter().map(|part| part.shape().rows).sum(), parts.first().map_or(0, |part| part.shape().cols))
}

impl TernaryStack {
    /// Rounds `weights` `[Σ rows, cols]`, each run of `part_rows` rows by itself. Backward products are made as
    /// `matmul` says.
    pub fn quantize(
        weights: &[f32],
        part_rows: &[usize],
        cols: usize,
        group: ScaleGroup,
        matmul: impl Into<MatmulPrecision>,
    ) -> Self {
        let mut parts = Vec::with_capacity(part_rows.len());
        let mut start = 0;
        for rows in part_rows {
            let shape = nanochat_kernels::Shape { rows: *rows, cols };
            parts.push(TernaryMatrix::quantize(&weights[start..][..rows * cols], shape, group));
            start += rows * cols;
        }
        Self::from_parts(parts, matmul)
    }

    /// Takes `weights` `[Σ rows, cols]` that are rounded already, not to ternary. Both products are made in
    /// `precision`.
    pub fn from_values(weights: &[f32], cols: usize, precision: Precision) -> Self {
        let rows = weights.len() / cols;
        let [mut transposed, mut values] = [(); 2].map(|()| Panels::new(precision));
        transposed.fill_columns(cols, rows, weights, cols);
        values.fill_rows(rows, cols, weights, cols);
        let (forward, backward) = (Forward::Values(transposed), Backward::Values(values));
        Self { parts: Vec::new(), forward, backward, dims: (rows, cols), precision }
    }

    /// Takes matrices that are ternary already.
    pub fn from_parts(parts: Vec<TernaryMatrix>, matmul: impl Into<MatmulPrecision>) -> Self {
        let matmul = matmul.into();
        let (forward, backward) = (Forward::new(&parts, matmul.precision), Backward::new(&parts, matmul));
        let dims = dims(&parts);
        Self { parts, forward, backward, dims, precision: matmul.precision }
    }

    /// Outputs of all matrices, and inputs.
    pub(crate) fn dims(&self) -> (usize, usize) {
        self.dims
    }

    /// y `[N, rows]` = x · Wᵀ, or is increased by it.
    pub(crate) fn forward(&self, x: &Int8Rows, y: &mut [f32], write: Write, scratch: &mut Scratch) {
        let (trits, scales) = match &self.forward {
            Forward::Integers(prepared) => return prepared.gemm(&scratch.pool, x, y, write),
            Forward::Values(weights) => return by_values(weights, x, y, write, scratch),
            Forward::Tiles { trits, scales } => (trits, scales),
        };
        let (rows, cols) = self.dims();
        let Scratch { isa, pack, rows: [sums, whole, ..], .. } = scratch;
        for (first, y) in (0..x.n_rows()).step_by(TILE_ROWS).zip(y.chunks_mut(TILE_ROWS * rows)) {
            let n = y.len() / rows;
            let (sums, whole) = (sized(sums, n * rows), sized(whole, n * cols));
            simd::dispatch(
                #[inline(always)]
                || {
                    for (row_idx, whole) in whole.chunks_exact_mut(cols).enumerate() {
                        whole.iter_mut().zip(x.row(first + row_idx)).for_each(|(whole, q)| *whole = f32::from(*q));
                    }
                },
            );
            Gemm::new(n, Lhs::Rows(whole, cols), trits).write(*isa, sums, rows, Write::Store, pack);
            simd::dispatch(
                #[inline(always)]
                || {
                    for (row_idx, (y, sums)) in y.chunks_exact_mut(rows).zip(sums.chunks_exact(rows)).enumerate() {
                        let s = x.scales()[first + row_idx];
                        // In the order of the kernels.
                        let outputs = sums.iter().zip(scales).map(|(sum, scale)| sum * scale * s);
                        match write {
                            Write::Store => y.iter_mut().zip(outputs).for_each(|(y, out)| *y = out),
                            Write::Add => y.iter_mut().zip(outputs).for_each(|(y, out)| *y += out),
                        }
                    }
                },
            );
        }
    }

    /// da `[N, cols]` from dy `[N, rows]`.
    pub(crate) fn input_gradient(&self, dy: &[f32], da: &mut [f32], scratch: &mut Scratch) {
        let (rows, cols) = self.dims();
        match &self.backward {
            Backward::Values(values) => {
                let product = Gemm::new(dy.len() / rows, Lhs::Rows(dy, rows), values);
                product.write(scratch.isa, da, cols, Write::Store, &mut scratch.pack);
            }
            Backward::Integers { transposed, scales } => {
                let q = &mut scratch.quantized;
                q.set_cols(rows);
                q.quantize_scaled(scratch.isa, &scratch.pool, dy, scales);
                transposed.gemm(&scratch.pool, q, da, Write::Store);
            }
        }
    }

    /// The gradient of the weights that met `x` and sent `dy` `[N, rows]` back.
    pub(crate) fn weight_gradient(
        &self,
        x: &Int8Rows,
        dy: &[f32],
        d_weights: &mut [f32],
        write: Write,
        scratch: &mut Scratch,
    ) {
        weight_gradient(x, dy, d_weights, write, self.precision, scratch);
    }
}

/// y `[N, rows]` = x · weights `[cols, rows]`, or is increased by it.
fn by_values(weights: &Panels, x: &Int8Rows, y: &mut [f32], write: Write, scratch: &mut Scratch) {
    let (cols, rows) = weights.shape();
    let Scratch { isa, pack, rows: [values, ..], .. } = scratch;
    let values = sized(values, x.n_rows() * cols);
    for (row_idx, values) in values.chunks_exact_mut(cols).enumerate() {
        let scale = x.scales()[row_idx];
        values.iter_mut().zip(x.row(row_idx)).for_each(|(value, q)| *value = f32::from(*q) * scale);
    }
    Gemm::new(x.n_rows(), Lhs::Rows(values, cols), weights).write(*isa, y, rows, write, pack);
}

fn weight_gradient(
    x: &Int8Rows,
    dy: &[f32],
    d_weights: &mut [f32],
    write: Write,
    precision: Precision,
    scratch: &mut Scratch,
) {
    let (n_rows, cols) = (x.n_rows(), x.cols());
    let rows = dy.len() / n_rows;
    let panels = &mut scratch.right;
    panels.set_precision(precision);
    simd::dispatch(
        #[inline(always)]
        || {
            panels.fill(
                n_rows,
                cols,
                #[inline(always)]
                |row_idx, first, out| {
                    let scale = x.scales()[row_idx];
                    for (out, q) in out.iter_mut().zip(&x.row(row_idx)[first..]) {
                        *out = f32::from(*q) * scale;
                    }
                },
            );
        },
    );
    let product = Gemm::new(rows, Lhs::Columns(dy, rows), panels);
    product.write(scratch.isa, d_weights, cols, write, &mut scratch.pack);
}

/// The operation: `x [N, k]`, gain `[k]`, master weights `[rows, k]` → `[N, rows]`. The master weights are only
/// there to receive their gradient: the values come from the stack.
pub struct NormLinear {
    /// The rounded weights.
    pub stack: Arc<TernaryStack>,
    /// ε of the norm, added under the root.
    pub eps: f32,
    saved: OnceLock<Int8Rows>,
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
        let scratch = &mut Scratch::default();
        let mut q = Int8Rows::new(cols);
        q.rms_norm(scratch.isa, &scratch.pool, x, Norm { gain, eps: self.eps });
        let n_out = self.stack.dims().0;
        let mut y = vec![0.0; n_rows * n_out];
        self.stack.forward(&q, &mut y, Write::Store, scratch);
        // Ignored if the operation is used twice: it never is, and its backward pass reads the first use.
        let _ = self.saved.set(q);
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
        let Some(q) = self.saved.get() else {
            candle_core::bail!("norm-linear: backward before forward");
        };
        let (n_rows, (n_out, cols)) = (q.n_rows(), self.stack.dims());
        let (mut da, mut d_weights) = (vec![0.0; n_rows * cols], vec![0.0; n_out * cols]);
        let scratch = &mut Scratch::default();
        with_slice(grad, |grad| {
            self.stack.input_gradient(grad, &mut da, scratch);
            self.stack.weight_gradient(q, grad, &mut d_weights, Write::Store, scratch);
        })?;
        let (dx, d_gain) = norm_backward_tensors(x, gain, self.eps, &da)?;
        Ok((Some(dx), Some(d_gain), Some(matrix(d_weights, n_out, cols)?)))
    }
}

/// Gradients of `x` and the gain from that of the normed rows.
pub(crate) fn norm_backward_tensors(x: &Tensor, gain: &Tensor, eps: f32, da: &[f32]) -> Result<(Tensor, Tensor)> {
    let (n_rows, cols) = x.dims2()?;
    let (mut dx, mut d_gain) = (vec![0.0; n_rows * cols], vec![0.0; cols]);
    with_slice(x, |x| {
        with_slice(gain, |gain| norm_backward(x, Norm { gain, eps }, da, &mut dx, Write::Store, &mut d_gain))
    })??;
    Ok((matrix(dx, n_rows, cols)?, Tensor::from_vec(d_gain, cols, x.device())?))
}

/// Writes the gradient of rows `x` or adds it to `dx`, and adds that of the gain to `d_gain`, from that of the normed
/// rows.
pub(crate) fn norm_backward(x: &[f32], norm: Norm<'_>, da: &[f32], dx: &mut [f32], write: Write, d_gain: &mut [f32]) {
    let cols = norm.gain.len();
    simd::dispatch(
        #[inline(always)]
        || {
            for ((x, da), dx) in x.chunks_exact(cols).zip(da.chunks_exact(cols)).zip(dx.chunks_exact_mut(cols)) {
                let row = NormRow::new(x, norm, da);
                match write {
                    Write::Store => row.each(
                        d_gain,
                        #[inline(always)]
                        |i, value| dx[i] = value,
                    ),
                    Write::Add => row.each(
                        d_gain,
                        #[inline(always)]
                        |i, value| dx[i] += value,
                    ),
                }
            }
        },
    );
}

/// The gradient of one row.
pub(crate) struct NormRow<'a> {
    x: &'a [f32],
    gain: &'a [f32],
    da: &'a [f32],
    inverse_rms: f32,
    /// mean(da∘g∘x̂) / rms
    along: f32,
}

impl<'a> NormRow<'a> {
    #[inline(always)]
    pub(crate) fn new(x: &'a [f32], norm: Norm<'a>, da: &'a [f32]) -> Self {
        let n = x.len();
        let (gain, da) = (&norm.gain[..n], &da[..n]);
        let inverse_rms = 1.0 / (simd::sum(x, |x| x * x) / n as f32 + norm.eps).sqrt();
        let along = simd::sum3(da, gain, x, |d, g, x| d * g * x) * inverse_rms / n as f32 * inverse_rms;
        Self { x, gain, da, inverse_rms, along }
    }

    /// Calls `put(column, gradient)` for each column.
    #[inline(always)]
    pub(crate) fn each(&self, d_gain: &mut [f32], mut put: impl FnMut(usize, f32)) {
        let Self { x, gain, da, inverse_rms, along } = *self;
        let d_gain = &mut d_gain[..x.len()];
        for i in 0..x.len() {
            let normed = x[i] * inverse_rms;
            d_gain[i] += da[i] * normed;
            put(i, da[i] * gain[i] * inverse_rms - normed * along);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nanochat_engine::rng::Rng;

    #[test]
    fn tiles_make_the_bits_that_integers_make() {
        let (n, rows, cols) = (TILE_ROWS + 7, 50, 70);
        let mut rng = Rng::new(9);
        let mut normals = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal()).collect() };
        let (x, weights, gain) = (normals(n * cols), normals(rows * cols), normals(cols));
        let scratch = &mut Scratch::default();
        let mut q = Int8Rows::new(cols);
        q.rms_norm(scratch.isa, &scratch.pool, &x, Norm { gain: &gain, eps: 1e-5 });
        for group in [ScaleGroup::Matrix, ScaleGroup::Row] {
            let integers = TernaryStack::quantize(&weights, &[30, 20], cols, group, Precision::F32);
            assert!(matches!(integers.forward, Forward::Integers(_)));
            let scales = scales(&integers.parts).expect("a row has one scale");
            let mut tiles = TernaryStack::from_parts(integers.parts.clone(), Precision::Bf16);
            tiles.forward = Forward::tiles(&tiles.parts, scales, Precision::Bf16);
            for write in [Write::Store, Write::Add] {
                let [mut expected, mut found] = [(); 2].map(|()| vec![0.25; n * rows]);
                integers.forward(&q, &mut expected, write, scratch);
                tiles.forward(&q, &mut found, write, scratch);
                assert_eq!(found, expected, "{group:?} {write:?}");
            }
        }
    }

    /// A gradient that is rounded to a 127th of its row's largest is off by half of that at most.
    #[test]
    fn gradients_by_integers_are_off_by_what_rounding_allows() {
        let (n, rows, cols) = (19, 50, 64);
        let mut rng = Rng::new(4);
        let mut normals = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal()).collect() };
        let (dy, mut weights) = (normals(n * rows), normals(rows * cols));
        // Matrices of one stack have scales of their own.
        weights[30 * cols..].iter_mut().for_each(|w| *w *= 20.0);
        let scratch = &mut Scratch::default();
        for group in [ScaleGroup::Matrix, ScaleGroup::Row, ScaleGroup::Columns(16)] {
            let of = |matmul: MatmulPrecision| TernaryStack::quantize(&weights, &[30, 20], cols, group, matmul);
            let exact = of(Precision::F32.into());
            let integers = of(MatmulPrecision { int8_gradients: true, ..Precision::F32.into() });
            let has_row_scales = matches!(group, ScaleGroup::Matrix | ScaleGroup::Row);
            assert_eq!(matches!(integers.backward, Backward::Integers { .. }), has_row_scales, "{group:?}");
            let [mut expected, mut found] = [(); 2].map(|()| vec![0.25; n * cols]);
            exact.input_gradient(&dy, &mut expected, scratch);
            integers.input_gradient(&dy, &mut found, scratch);
            let Some(scales) = scales(&exact.parts) else {
                assert_eq!(found, expected);
                continue;
            };
            for (row_idx, dy) in dy.chunks_exact(rows).enumerate() {
                let largest = dy.iter().zip(&scales).fold(0.0f32, |max, (dy, scale)| max.max((dy * scale).abs()));
                for col in 0..cols {
                    let trits = exact.parts.iter().flat_map(|part| part.trits().iter().skip(col).step_by(cols));
                    let n_terms = trits.filter(|trit| **trit != 0).count() as f32;
                    let at = row_idx * cols + col;
                    let off = (found[at] - expected[at]).abs();
                    assert!(off <= 1.001 * n_terms * largest / 254.0, "{group:?} {row_idx} {col}: off by {off}");
                }
            }
            assert_ne!(found, expected);
        }
    }
}
