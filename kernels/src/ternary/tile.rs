//! The integer inner loops, one file per instruction set.

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

/// Output rows of a superblock.
pub(crate) const SUPERBLOCK: usize = 64;
/// Bytes of the scales of one group of a superblock.
pub(crate) const SCALE_BYTES: usize = SUPERBLOCK * 4;

/// Superblocks of 64 output rows of a ternary matrix, and the int8 rows that they multiply. The layout stands in
/// [`crate::ternary::prepared`].
pub(crate) struct TernaryOperands<'a> {
    /// `[n_superblocks][n_groups] { codes [stride / n_groups / 4][64], scales [64] f32 }`, on a 64-byte boundary; plane p's
    /// scales are divided by `Routine::plane_factors()[p]`.
    pub(crate) superblocks: &'a [u8],
    pub(crate) n_groups: usize,
    /// `[n_rows][stride]`, no value −128.
    pub(crate) x: &'a [i8],
    /// Columns with their padding, a multiple of 16.
    pub(crate) stride: usize,
    /// What the sums of the planes start at for each group of each row of x: [`Routine::initial_sums`], `[n_rows][n_groups]`.
    pub(crate) initial_sums: &'a [[i32; 4]],
    /// `[n_rows]`.
    pub(crate) row_scales: &'a [f32],
}

impl TernaryOperands<'_> {
    fn n_rows(&self) -> usize {
        self.row_scales.len()
    }

    fn n_superblocks(&self) -> usize {
        self.superblocks.len() / self.superblock_len()
    }

    /// Bytes of a superblock.
    fn superblock_len(&self) -> usize {
        self.stride * 16 + self.n_groups * SCALE_BYTES
    }
}

/// A routine that this CPU can run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Routine(Isa);

/// The ternary routine of an instruction set.
pub(crate) fn routine(isa: Isa) -> Routine {
    Routine(isa)
}

impl Routine {
    /// What this routine's integer sums of the four planes count by: a sum is so many times what it stands for, and its
    /// scale as many times smaller. Powers of two: nothing is rounded.
    pub(crate) fn plane_factors(self) -> [i32; 4] {
        match self.0.level() {
            Level::Scalar => [1; 4],
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::PLANE_FACTORS,
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni | Level::Avx512 => avx512::PLANE_FACTORS,
            #[cfg(target_arch = "aarch64")]
            Level::NeonDotprod => neon::PLANE_FACTORS,
        }
    }

    /// What the accumulators of the four planes start at where the x of a group add up to `sum`. Codes are trit + 1, so the
    /// sum of x is taken off in advance.
    pub(crate) fn initial_sums(self, sum: i32) -> [i32; 4] {
        let weights = match self.0.level() {
            Level::Scalar => [1; 4],
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::PLANE_FACTORS,
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni | Level::Avx512 => avx512::START_FACTORS,
            #[cfg(target_arch = "aarch64")]
            Level::NeonDotprod => neon::START_FACTORS,
        };
        weights.map(|weight| -sum * weight)
    }

    /// y = (0 + Σ over groups in column order of (Σ x·trit as f32) · scale) · row scale, or y += that.
    ///
    /// # Safety
    /// `out` may be written, and read where `add` is set, as it says for the rows and superblocks of `operands`.
    pub(crate) unsafe fn run(self, operands: &TernaryOperands<'_>, out: Output) {
        // Checked here once, so that the loops below may trust it.
        let &TernaryOperands { superblocks, n_groups, x, stride, initial_sums, row_scales } = operands;
        assert!(stride > 0 && n_groups > 0 && stride.is_multiple_of(16) && (stride / 16).is_multiple_of(n_groups));
        assert!(
            superblocks.len().is_multiple_of(operands.superblock_len())
                && superblocks.as_ptr().addr().is_multiple_of(64)
        );
        assert!(x.len() == row_scales.len() * stride && initial_sums.len() == row_scales.len() * n_groups);
        match self.0.level() {
            // SAFETY: the lengths were checked above; `out` is the caller's promise.
            Level::Scalar => unsafe { scalar::ternary(operands, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, and the level proves AVX2.
            Level::Avx2 => unsafe { avx2::ternary(operands, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, and the level proves AVX2 and AVX-VNNI.
            Level::AvxVnni => unsafe { avxvnni::ternary(operands, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, and the level proves AVX-512 with VNNI.
            Level::Avx512 => unsafe { avx512::ternary(operands, out) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above, and the level proves NEON and its dot product.
            Level::NeonDotprod => unsafe { neon::ternary(operands, out) },
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
