//! 64 rows of an int8 matrix times int8 rows, exact sums scaled once.

use crate::isa::{Isa, Level};
use crate::output::Output;

mod scalar;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

/// 64 rows of an int8 matrix, and the int8 rows that they multiply.
#[derive(Clone, Copy)]
pub(crate) struct Int8Operands<'a> {
    /// `[stride / 4][64][4]`.
    pub(crate) weights: &'a [i8],
    /// Σ of each row's weights.
    pub(crate) row_sums: &'a [i32],
    /// Scales of the rows of weights.
    pub(crate) scales: &'a [f32],
    /// Rows of x, `[n_rows][stride]`, no value −128.
    pub(crate) x: &'a [i8],
    /// Columns with their padding, a multiple of 4.
    pub(crate) stride: usize,
    /// Scales of the rows of x, `[n_rows]`.
    pub(crate) row_scales: &'a [f32],
}

/// Whether [`multiply`] reads weights once for several rows.
pub(crate) fn shares_weights(isa: Isa) -> bool {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => true,
        _ => false,
    }
}

/// Σ x·w, exact, · scale · row scale: 64 numbers for each row of x.
///
/// # Safety
/// `out` is valid for writes for these rows and one superblock.
pub(crate) unsafe fn multiply(isa: Isa, operands: &Int8Operands<'_>, out: Output) {
    let &Int8Operands { weights, row_sums, scales, x, stride, row_scales } = operands;
    // Checked here once, so that the loops below may trust it.
    assert!(stride > 0 && stride.is_multiple_of(4) && x.len() == row_scales.len() * stride);
    assert!(weights.len() == stride * 64 && row_sums.len() == 64 && scales.len() == 64);
    #[cfg(target_arch = "x86_64")]
    if isa.level() == Level::Avx512 && row_scales.len() > 1 {
        // SAFETY: the level proves AVX-512 with VNNI, the lengths were checked above, `out` is the caller's promise.
        return unsafe { avx512::several_rows(operands, out) };
    }
    let mut sums = [0; 64];
    for (row_idx, (x, row_scale)) in x.chunks_exact(stride).zip(row_scales).enumerate() {
        one_row(isa, weights, row_sums, x, &mut sums);
        // SAFETY: the caller's promise.
        let out = unsafe { std::slice::from_raw_parts_mut(out.start.add(row_idx * out.stride), 64) };
        for ((out, sum), scale) in out.iter_mut().zip(&sums).zip(scales) {
            *out = *sum as f32 * scale * row_scale;
        }
    }
}

/// out = Σ x·w for one row.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "only VNNI needs the sums of the weights"))]
fn one_row(isa: Isa, weights: &[i8], row_sums: &[i32], x: &[i8], out: &mut [i32; 64]) {
    match isa.level() {
        Level::Scalar => scalar::one_row(weights, x, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX2; `multiply` has checked the lengths.
        Level::Avx2 => unsafe { avx2::one_row(weights, x, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX2 and AVX-VNNI; `multiply` has checked the lengths.
        Level::AvxVnni => unsafe { avxvnni::one_row(weights, row_sums, x, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX-512 with VNNI; `multiply` has checked the lengths.
        Level::Avx512 => unsafe { avx512::one_row(weights, row_sums, x, out) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves NEON and its dot product; `multiply` has checked the lengths.
        Level::NeonDotprod => unsafe { neon::one_row(weights, x, out) },
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
