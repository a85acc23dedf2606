//! int8 × int4 with an integer multiplier for every 32 columns of a row, exact.

use crate::isa::{Isa, Level};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

/// Columns that share a multiplier.
pub(crate) const GROUP_COLS: usize = 32;

/// 64 rows of weights; [`crate::head`] describes the layout.
pub(crate) struct Block<'a> {
    /// `[cols/8][64][4]`.
    pub(crate) codes: &'a [u8],
    /// `[groups][64]`.
    pub(crate) multipliers: &'a [u8],
}

/// out `[64]` = Σ over groups of multiplier · Σ x · (nibble − 8). `x.len()` is a multiple of 16, no x is −128, and
/// `block_sums` are Σ of every 16 of x. A row has at most 8,192 columns: 256 · 255 · 32 · 7 · 127 is below 2³¹.
pub(crate) fn multiply(isa: Isa, weights: &Block<'_>, x: &[i8], block_sums: &[i32], out: &mut [i32; 64]) {
    assert!(x.len().is_multiple_of(16) && x.len() <= 8192 && block_sums.len() * 16 == x.len());
    assert!(weights.codes.len() == x.len() * 32 && weights.multipliers.len() == x.len().div_ceil(GROUP_COLS) * 64);
    match isa.level() {
        Level::Scalar => scalar::multiply(weights, x, block_sums, out),
        #[cfg(target_arch = "aarch64")]
        // The compiler uses NEON for the portable loops.
        Level::NeonDotprod => scalar::multiply(weights, x, block_sums, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: either level proves AVX2; the lengths were checked above.
        Level::Avx2 | Level::AvxVnni => unsafe { avx2::multiply(weights, x, block_sums, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX-512 with VNNI; the lengths were checked above.
        Level::Avx512 => unsafe { avx512::multiply(weights, x, block_sums, out) },
    }
}
