//! The hot steps as fused candle operations for the CPU, each with its backward pass.
//!
//! Products of quantised numbers are taken over whole numbers held in f32: every sum stays below 2²⁴, so it is
//! exact in any order and equals the engine's integer product; scales are applied afterwards. Rounding has a
//! straight-through gradient (the identity). All state of a step is in the operation, made anew each time.

pub mod attention;
pub mod embed;
pub mod head;
pub mod linear;
pub mod simd;
pub mod swiglu;

use candle_core::{CpuStorage, Device, Layout, Result, Storage, Tensor};

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
