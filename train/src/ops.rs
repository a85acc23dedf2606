//! The hot operations for the CPU, each with its backward pass: as loops over slices, which [`crate::backend::fused`]
//! chains over buffers that it keeps, and as candle operations around the same loops, which the model graph is made of.
//!
//! Products of rounded numbers are the kernels' own, in integers, so that a forward pass makes the same numbers as the
//! engine. Rounding has a straight-through gradient (the identity). All state of a candle operation is in the
//! operation, which is created for each use.

pub mod attention;
pub mod embed;
pub mod glu;
pub mod head;
pub mod linear;
pub mod simd;

use candle_core::{CpuStorage, Device, Layout, Result, Storage, Tensor};
use nanochat_kernels::{Int8Rows, Isa, PackBuffer, PackedMatrix, Panels, Pool, Precision};

/// Precision of the matrix products of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatmulPrecision {
    /// Of all products but those below.
    pub precision: Precision,
    /// Gradients of what goes into ternary matrices are made by integers, of rows of int8, where a row has one scale.
    /// Gradients of weights, which are sums over all rows, are not (arXiv 2304.13013 divides them in the same way).
    pub int8_gradients: bool,
}

impl MatmulPrecision {
    /// The fastest on this CPU.
    pub fn fastest() -> Self {
        let precision = Precision::fastest();
        Self { precision, int8_gradients: !has_faster_tiles(precision) }
    }
}

impl From<Precision> for MatmulPrecision {
    fn from(precision: Precision) -> Self {
        Self { precision, int8_gradients: false }
    }
}

/// Whether tiles in this precision multiply faster than the integer instructions: AMX multiplies four times as many
/// numbers as these, AVX512-BF16 half as many and f32 a quarter.
pub(crate) fn has_faster_tiles(precision: Precision) -> bool {
    precision == Precision::Bf16 && Precision::bf16_unit() == Some("amx")
}

/// Buffers of a worker, kept from one use to the next.
pub struct Scratch {
    pub(crate) isa: Isa,
    /// One thread: a step is spread over cores by its sequences.
    pub(crate) pool: Pool,
    /// Left sides that a product lays out.
    pack: PackBuffer,
    /// Right sides that are used once: of attention, and of a gradient.
    panels: [Panels; 4],
    right: Panels,
    /// Left sides that are used twice.
    strips: PackedMatrix,
    rows: [Vec<f32>; 4],
    /// Rows of a gradient, rounded to int8.
    quantized: Int8Rows,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            isa: Isa::best(),
            pool: Pool::new(1),
            pack: PackBuffer::default(),
            panels: Default::default(),
            right: Panels::default(),
            strips: PackedMatrix::default(),
            rows: Default::default(),
            quantized: Int8Rows::new(0),
        }
    }
}

/// Writes the transpose of `x` `[rows, cols]`.
pub(crate) fn transpose<T: Copy>(x: &[T], rows: usize, cols: usize, out: &mut [T]) {
    // Square pieces: both sides stay in cache lines that are at hand.
    const SIDE: usize = 16;
    for first_row in (0..rows).step_by(SIDE) {
        for first_col in (0..cols).step_by(SIDE) {
            for row in first_row..rows.min(first_row + SIDE) {
                for col in first_col..cols.min(first_col + SIDE) {
                    out[col * rows + row] = x[row * cols + col];
                }
            }
        }
    }
}

/// The first `len` values, whatever they hold; grows the vector if needed.
pub(crate) fn sized(values: &mut Vec<f32>, len: usize) -> &mut [f32] {
    values.resize(len, 0.0);
    values
}

/// The numbers of an argument of a custom operation.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => candle_core::bail!("a fused operation was given a tensor that is not contiguous"),
    }
}

/// Calls `f` with the numbers of a contiguous CPU tensor, without copying them.
pub(crate) fn with_slice<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(slice(storage, layout)?)),
        _ => candle_core::bail!("a fused operation was given a tensor that is not on the CPU"),
    }
}

/// A CPU matrix that takes over `values`.
pub(crate) fn matrix(values: Vec<f32>, rows: usize, cols: usize) -> Result<Tensor> {
    Tensor::from_vec(values, (rows, cols), &Device::Cpu)
}

#[cfg(test)]
mod tests;
