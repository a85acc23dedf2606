//! Activations as rows of int8, each row with one scale.

use serde::{Deserialize, Serialize};

use crate::isa::{Isa, compiled_per_isa};
use crate::lanes::{Chunk, F32x16, LANES, exp, for_each_chunk, inverse_root, sum};
use crate::runtime::memory::{AlignedBytes, DisjointMut};
use crate::runtime::pool::Pool;

/// Columns that share one entry of `sums`, and what rows are padded to.
pub(crate) const BLOCK: usize = LANES;

/// int8 rows, `value = scale(row) · q`, q within ±127, and the sums that integer products are corrected by. Keeps its
/// buffers from one use to the next.
///
/// Each row is quantised by its largest magnitude: q = round half to even(x · 127 / max|x|), scale = max|x| / 127.
///
/// ```
/// use nanochat_kernels::{Int8Rows, Isa, Pool};
///
/// let mut rows = Int8Rows::new(3);
/// rows.quantize(Isa::best(), &Pool::new(1), &[127.0, -63.0, 0.0, 1.0, 2.0, -4.0]); // two rows
/// assert_eq!(rows.row(0), [127, -63, 0]);
/// assert_eq!(rows.row(1), [32, 64, -127]);
/// assert_eq!(rows.scales(), [1.0, 4.0 / 127.0]);
/// ```
#[derive(Clone, Debug)]
pub struct Int8Rows {
    n_rows: usize,
    cols: usize,
    stride: usize,
    values: AlignedBytes,
    scales: Vec<f32>,
    /// Sums over blocks of [`BLOCK`] columns, `[n_rows, stride / BLOCK]`.
    sums: Vec<i32>,
}

impl Int8Rows {
    /// An empty set of rows with `cols` columns.
    pub fn new(cols: usize) -> Self {
        Self {
            n_rows: 0,
            cols,
            stride: cols.next_multiple_of(BLOCK),
            values: AlignedBytes::default(),
            scales: Vec::new(),
            sums: Vec::new(),
        }
    }

    /// Removes all rows; those added next have `cols` columns.
    pub fn set_cols(&mut self, cols: usize) {
        (self.n_rows, self.cols, self.stride) = (0, cols, cols.next_multiple_of(BLOCK));
    }

    /// The number of rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// The number of columns, without padding.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The quantised values of a row, without padding.
    pub fn row(&self, row_idx: usize) -> &[i8] {
        &self.values.as_i8()[row_idx * self.stride..][..self.cols]
    }

    /// The scale of each row.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Quantises rows of x `[n, cols]`.
    pub fn quantize(&mut self, isa: Isa, pool: &Pool, x: &[f32]) {
        let cols = self.cols;
        self.fill(pool, x.len() / cols, |row_idx, values, sums| {
            quantize_row(isa, &x[row_idx * cols..][..cols], values, sums)
        });
    }

    /// Quantises rows of x `[n, cols]` ∘ factors `[cols]`.
    pub fn quantize_scaled(&mut self, isa: Isa, pool: &Pool, x: &[f32], factors: &[f32]) {
        let cols = self.cols;
        assert_eq!(factors.len(), cols, "{} factors for {cols} columns", factors.len());
        self.fill(pool, x.len() / cols, |row_idx, values, sums| {
            scaled_row(isa, &x[row_idx * cols..][..cols], factors, values, sums)
        });
    }

    /// Normalises rows of x `[n, cols]` and quantises the result: x · gain / √(mean x² + eps) (arXiv 1910.07467).
    pub fn rms_norm(&mut self, isa: Isa, pool: &Pool, x: &[f32], norm: Norm<'_>) {
        let cols = self.cols;
        assert_eq!(norm.gain.len(), cols, "{} gains for {cols} columns", norm.gain.len());
        self.fill(pool, x.len() / cols, |row_idx, values, sums| {
            norm_row(isa, &x[row_idx * cols..][..cols], norm, values, sums)
        });
    }

    /// f(gate) ∘ up for rows `[gate | up]` of x `[n, 2·cols]`, then as [`Int8Rows::rms_norm`]. The product is left
    /// in the first half of each row of x.
    pub fn gated_rms_norm(&mut self, isa: Isa, pool: &Pool, x: &mut [f32], f: Activation, norm: Norm<'_>) {
        let cols = self.cols;
        assert_eq!(norm.gain.len(), cols, "{} gains for {cols} columns", norm.gain.len());
        let n_rows = x.len() / (2 * cols);
        let x = DisjointMut::new(x);
        self.fill(pool, n_rows, |row_idx, values, sums| {
            // SAFETY: each row is handed to one piece, and `x` is borrowed until `fill` returns.
            let row = unsafe { x.part(row_idx * 2 * cols, 2 * cols) };
            let (gate, up) = row.split_at_mut(cols);
            match f {
                Activation::Silu => silu_norm_row(isa, gate, up, norm, values, sums),
                Activation::Relu2 => relu2_norm_row(isa, gate, up, norm, values, sums),
            }
        });
    }

    /// As [`Int8Rows::rms_norm`], of rows that `make(row_idx, row)` writes, on the caller's own core.
    pub fn rms_norm_each(&mut self, isa: Isa, n_rows: usize, norm: Norm<'_>, mut make: impl FnMut(usize, &mut [f32])) {
        let (cols, stride) = (self.cols, self.stride);
        assert_eq!(norm.gain.len(), cols, "{} gains for {cols} columns", norm.gain.len());
        self.resize(n_rows);
        let values = self.values.as_mut_slice();
        // SAFETY: u8 and i8 have the same layout; the borrow stays unique.
        let values = unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<i8>(), values.len()) };
        let rows = values.chunks_exact_mut(stride).zip(self.sums.chunks_exact_mut(stride / BLOCK));
        let mut row = vec![0.0; cols];
        for (row_idx, ((values, sums), scale)) in rows.zip(&mut self.scales).enumerate() {
            make(row_idx, &mut row);
            *scale = norm_row(isa, &row, norm, values, sums);
        }
    }

    /// Replaces the rows by these rows of `from`, in this order.
    ///
    /// # Panics
    /// If one does not exist.
    pub fn gather(&mut self, from: &Self, rows: &[usize]) {
        self.set_cols(from.cols);
        self.resize(rows.len());
        let (stride, n_sums) = (self.stride, self.stride / BLOCK);
        let values = self.values.as_mut_slice().chunks_exact_mut(stride).zip(self.sums.chunks_exact_mut(n_sums));
        for (((values, sums), scale), row) in values.zip(&mut self.scales).zip(rows) {
            values.copy_from_slice(&from.values.as_slice()[row * stride..][..stride]);
            sums.copy_from_slice(&from.sums[row * n_sums..][..n_sums]);
            *scale = from.scales[*row];
        }
    }

    fn resize(&mut self, n_rows: usize) {
        self.n_rows = n_rows;
        self.values.resize(n_rows * self.stride);
        self.scales.resize(n_rows, 0.0);
        self.sums.resize(n_rows * self.stride / BLOCK, 0);
    }

    /// Calls `fill_row(row, values [stride], sums [stride / BLOCK]) -> scale` for each row.
    pub(crate) fn fill(
        &mut self,
        pool: &Pool,
        n_rows: usize,
        fill_row: impl Fn(usize, &mut [i8], &mut [i32]) -> f32 + Sync,
    ) {
        let stride = self.stride;
        self.resize(n_rows);
        let values = self.values.as_mut_slice();
        // SAFETY: u8 and i8 have the same layout; the borrow stays unique.
        let values = unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<i8>(), values.len()) };
        let values = DisjointMut::new(values);
        let scales = DisjointMut::new(&mut self.scales);
        let sums = DisjointMut::new(&mut self.sums);
        // A piece has several rows: claiming one costs as much as a short row.
        const ROWS: usize = 8;
        // Measured: a column takes about 0.3 ns.
        let work_ns = (n_rows * stride) as u64 / 3;
        pool.share(n_rows.div_ceil(ROWS), work_ns, |piece_idx| {
            for row_idx in piece_idx * ROWS..((piece_idx + 1) * ROWS).min(n_rows) {
                // SAFETY: each row is handed to one piece, and the buffers are borrowed until `for_each` returns.
                let (values, sums, scale) = unsafe {
                    (
                        values.part(row_idx * stride, stride),
                        sums.part(row_idx * stride / BLOCK, stride / BLOCK),
                        &mut scales.part(row_idx, 1)[0],
                    )
                };
                *scale = fill_row(row_idx, values, sums);
            }
        });
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// A row, padded to `stride` with zeros, and its sums over every [`BLOCK`] columns.
    pub(crate) fn padded_row(&self, row_idx: usize) -> (&[i8], &[i32]) {
        let n_blocks = self.stride / BLOCK;
        (&self.padded()[row_idx * self.stride..][..self.stride], &self.sums[row_idx * n_blocks..][..n_blocks])
    }

    /// All rows, padded to `stride` with zeros.
    pub(crate) fn padded(&self) -> &[i8] {
        self.values.as_i8()
    }

    /// The sums of `n_groups` equal runs of blocks of each row, `[n_rows, n_groups]`.
    pub(crate) fn group_sums(&self, n_groups: usize) -> impl Iterator<Item = i32> {
        self.sums.chunks_exact(self.stride / BLOCK / n_groups).map(|group| group.iter().sum())
    }
}

/// The function f of a gated unit, f(gate) ∘ up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x / (1 + e⁻ˣ): SwiGLU (arXiv 2002.05202).
    #[default]
    Silu,
    /// max(x, 0)², as BitNet b1.58 2B4T gates (arXiv 2504.12285).
    Relu2,
}

/// Gain and epsilon of an RMSNorm.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// The gain of each column.
    pub gain: &'a [f32],
    /// Added under the square root.
    pub eps: f32,
}

compiled_per_isa! {
    /// Quantises one row as [`Int8Rows`] says; returns its scale. `values` may be longer than x: the rest becomes 0.
    /// `sums` has one place for every 16 of them.
    ///
    /// # Panics
    /// If there are too few places, or they are not 16 for each sum.
    pub fn quantize_row<V>(x: &[f32], values: &mut [i8], sums: &mut [i32]) -> f32 {
        let mut absmax = V::splat(0.0);
        for_each_chunk::<V>(x.len(), #[inline(always)] |chunk| absmax = chunk.load::<V>(x).abs().max(absmax));
        quantize_with::<V>(x.len(), absmax.largest(), 1.0, values, sums, #[inline(always)] |chunk| chunk.load(x))
    }
}

compiled_per_isa! {
    fn scaled_row<V>(x: &[f32], factors: &[f32], values: &mut [i8], sums: &mut [i32]) -> f32 {
        let mut absmax = V::splat(0.0);
        for_each_chunk::<V>(x.len(), #[inline(always)] |chunk| {
            absmax = chunk.load::<V>(x).mul(chunk.load(factors)).abs().max(absmax);
        });
        quantize_with::<V>(x.len(), absmax.largest(), 1.0, values, sums, #[inline(always)] |chunk| {
            chunk.load::<V>(x).mul(chunk.load(factors))
        })
    }
}

compiled_per_isa! {
    pub(crate) fn norm_row<V>(x: &[f32], norm: Norm<'_>, values: &mut [i8], sums: &mut [i32]) -> f32 {
        let gain = norm.gain;
        let (mut squares, mut absmax) = (V::splat(0.0), V::splat(0.0));
        for_each_chunk::<V>(x.len(), #[inline(always)] |chunk| {
            let x = chunk.load::<V>(x);
            squares = x.mul_add(x, squares);
            absmax = x.mul(chunk.load(gain)).abs().max(absmax);
        });
        let rms = inverse_root(sum(squares), x.len(), norm.eps);
        // The factor that all entries share goes into the scale; the rounded numbers do not depend on it.
        quantize_with::<V>(x.len(), absmax.largest(), rms, values, sums, #[inline(always)] |chunk| {
            chunk.load::<V>(x).mul(chunk.load(gain))
        })
    }
}

compiled_per_isa! {
    /// gate ← silu(gate) ∘ up, and its norm.
    fn silu_norm_row<V>(gate: &mut [f32], up: &[f32], norm: Norm<'_>, values: &mut [i8], sums: &mut [i32]) -> f32 {
        gated_norm_row::<V>(gate, up, norm, values, sums, #[inline(always)] |x| {
            x.div(exp(x.mul(V::splat(-1.0))).add(V::splat(1.0)))
        })
    }
}

compiled_per_isa! {
    /// gate ← max(gate, 0)² ∘ up, and its norm.
    fn relu2_norm_row<V>(gate: &mut [f32], up: &[f32], norm: Norm<'_>, values: &mut [i8], sums: &mut [i32]) -> f32 {
        gated_norm_row::<V>(gate, up, norm, values, sums, #[inline(always)] |x| {
            let x = x.max(V::splat(0.0));
            x.mul(x)
        })
    }
}

/// gate ← f(gate) ∘ up, and its norm. Inlined, so that it is compiled for what calls it.
#[inline(always)]
fn gated_norm_row<V: F32x16>(
    gate: &mut [f32],
    up: &[f32],
    norm: Norm<'_>,
    values: &mut [i8],
    sums: &mut [i32],
    f: impl Fn(V) -> V,
) -> f32 {
    let gain = norm.gain;
    let (mut squares, mut absmax) = (V::splat(0.0), V::splat(0.0));
    for_each_chunk::<V>(
        up.len(),
        #[inline(always)]
        |chunk| {
            let x = f(chunk.load::<V>(gate)).mul(chunk.load(up));
            chunk.store(x, gate);
            squares = x.mul_add(x, squares);
            absmax = x.mul(chunk.load(gain)).abs().max(absmax);
        },
    );
    let (gate, rms) = (&*gate, inverse_root(sum(squares), up.len(), norm.eps));
    quantize_with::<V>(
        up.len(),
        absmax.largest(),
        rms,
        values,
        sums,
        #[inline(always)]
        |chunk| chunk.load::<V>(gate).mul(chunk.load(gain)),
    )
}

/// Rounds `load(chunk)`, whose largest magnitude is `absmax`; returns the scale of `factor` times that.
#[inline(always)]
pub(crate) fn quantize_with<V: F32x16>(
    len: usize,
    absmax: f32,
    factor: f32,
    values: &mut [i8],
    sums: &mut [i32],
    load: impl Fn(Chunk) -> V,
) -> f32 {
    let n_blocks = len.div_ceil(BLOCK);
    assert!(values.len() == sums.len() * BLOCK && n_blocks <= sums.len(), "{} places for {len}", values.len());
    // A row that is all zero, or too small to have an inverse, is zero.
    if absmax < f32::MIN_POSITIVE * 127.0 {
        values.fill(0);
        sums.fill(0);
        return 0.0;
    }
    let steps = V::splat(127.0 / absmax);
    let (blocks, _) = values.as_chunks_mut::<BLOCK>();
    for_each_chunk::<V>(
        len,
        #[inline(always)]
        |chunk| {
            let block = chunk.from / BLOCK;
            // 127 / absmax may be rounded up, and x times it beyond 127.5 never: the rounded product is within ±127.
            sums[block] = load(chunk).mul(steps).store_i8(&mut blocks[block]);
        },
    );
    blocks[n_blocks..].as_flattened_mut().fill(0);
    sums[n_blocks..].fill(0);
    absmax / 127.0 * factor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * i + 3 * i + 1) as f32 * 0.37).sin() * 3.0).collect()
    }

    #[test]
    fn rows_read_back_within_half_a_step() {
        let pool = Pool::new(2);
        for cols in [1, 7, 16, 31, 64, 513] {
            let x = wave(3 * cols);
            let mut rows = Int8Rows::new(cols);
            rows.quantize(Isa::best(), &pool, &x);
            for row_idx in 0..3 {
                let scale = rows.scales()[row_idx];
                for (q, x) in rows.row(row_idx).iter().zip(&x[row_idx * cols..]) {
                    assert!((f32::from(*q) * scale - x).abs() <= scale * 0.501, "{q} × {scale} for {x}");
                }
                assert!(rows.row(row_idx).iter().any(|q| q.abs() == 127));
            }
        }
    }

    #[test]
    fn all_instruction_sets_quantise_alike() {
        let pool = Pool::new(1);
        for cols in [1, 15, 16, 17, 48, 130, 1536] {
            let (x, gain) = (wave(2 * 2 * cols), wave(cols));
            let outcomes: Vec<_> = Isa::available()
                .into_iter()
                .map(|isa| {
                    let [mut plain, mut normed, mut silu, mut relu2] = [(); 4].map(|()| Int8Rows::new(cols));
                    let norm = Norm { gain: &gain, eps: 1e-5 };
                    plain.quantize(isa, &pool, &x);
                    normed.rms_norm(isa, &pool, &x, norm);
                    silu.gated_rms_norm(isa, &pool, &mut x.clone(), Activation::Silu, norm);
                    relu2.gated_rms_norm(isa, &pool, &mut x.clone(), Activation::Relu2, norm);
                    [plain, normed, silu, relu2].map(|rows| {
                        let bits: Vec<_> = rows.scales.iter().map(|scale| scale.to_bits()).collect();
                        (rows.values.as_i8().to_vec(), rows.sums.clone(), bits)
                    })
                })
                .collect();
            assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]), "{cols} columns");
        }
    }

    #[test]
    fn rows_made_one_by_one_equal_rows_made_together() {
        for cols in [1, 16, 130] {
            let (x, gain) = (wave(3 * cols), wave(cols));
            let norm = Norm { gain: &gain, eps: 1e-5 };
            let (mut together, mut each) = (Int8Rows::new(cols), Int8Rows::new(cols));
            together.rms_norm(Isa::best(), &Pool::new(1), &x, norm);
            each.quantize(Isa::best(), &Pool::new(1), &wave(5 * cols)); // what it held before must not show
            each.rms_norm_each(Isa::best(), 3, norm, |row_idx, row| row.copy_from_slice(&x[row_idx * cols..][..cols]));
            assert_eq!((each.values.as_i8(), &each.sums, &each.scales), {
                (together.values.as_i8(), &together.sums, &together.scales)
            });
        }
    }

    #[test]
    fn the_norm_agrees_with_f64() {
        let (x, gain) = (wave(512), vec![1.5f32; 512]);
        let mut rows = Int8Rows::new(512);
        rows.rms_norm(Isa::best(), &Pool::new(1), &x, Norm { gain: &gain, eps: 1e-5 });
        let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 512.0;
        for (q, x) in rows.row(0).iter().zip(&x) {
            let expected = f64::from(*x) * 1.5 / (mean + 1e-5).sqrt();
            // Half a step of rounding, and f32's relative error far below it.
            assert!((f64::from(*q) * f64::from(rows.scales[0]) - expected).abs() <= f64::from(rows.scales[0]) * 0.501);
        }
    }

    #[test]
    fn gates_agree_with_f64() {
        let (gates, ups, gain) = (wave(64), wave(128)[64..].to_vec(), vec![1.0f32; 64]);
        for activation in [Activation::Silu, Activation::Relu2] {
            let f = |x: f64| match activation {
                Activation::Silu => x / (1.0 + (-x).exp()),
                Activation::Relu2 => x.max(0.0).powi(2),
            };
            let mut x = [gates.clone(), ups.clone()].concat();
            let mut rows = Int8Rows::new(64);
            rows.gated_rms_norm(Isa::best(), &Pool::new(1), &mut x, activation, Norm { gain: &gain, eps: 1e-5 });
            for ((found, gate), up) in x.iter().zip(&gates).zip(&ups) {
                let expected = f(f64::from(*gate)) * f64::from(*up);
                // Some roundings of f32 in the exponential, the quotient and the product.
                assert!((f64::from(*found) - expected).abs() <= 1e-6 * expected.abs().max(1e-3), "{activation:?}");
            }
        }
    }

    #[test]
    fn zeros_and_tiny_rows_are_zero() {
        for x in [vec![0.0f32; 20], vec![1e-42f32; 20]] {
            let mut rows = Int8Rows::new(20);
            rows.quantize(Isa::best(), &Pool::new(1), &x);
            assert_eq!((rows.row(0), rows.scales()[0]), (&[0i8; 20][..], 0.0));
        }
    }
}
