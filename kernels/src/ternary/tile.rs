//! The tile loop of ternary products, one file per instruction set.
//!
//! ```text
//! for superblock, for tile of N rows of x:
//!     for group:
//!         sums[row][plane] = initial sums
//!         for step of 4 columns:  sums[row][plane] += dot4(plane of the codes, x)
//!         total[row][plane] += (sums as f32) · scale
//!     y[row] = total · row scale, or += that
//! ```
//!
//! The loop nest is the same everywhere, and yet each file writes it out. What differs is not the instruction in its
//! middle but what surrounds it, and each difference is there for the registers or for exactness:
//!
//! - *Order of the loops.* AVX2 sums pairs in 16 bits, which hold 16 steps, so it has one more level (runs, and a
//!   widening after each) and crosses half the superblock at a time within it; AVX-VNNI and NEON finish one half or
//!   quarter of the superblock over all groups before the next.
//! - *Shape of the tile.* Rows × accumulators are what the register file holds: 2 × 4 of 16 registers (AVX2), 3 × 4 of
//!   16 (AVX-VNNI), 6 × 4 of 32 (AVX-512), 3 × 8 of 32 (NEON). AVX-VNNI's three rows leave one register for the codes,
//!   which must be masked in place and in order; left to the compiler an accumulator is spilled, at half the speed.
//! - *Extraction of the planes.* Masks that nest (AVX-512, AVX-VNNI, NEON's first three), or a shift and disjoint masks
//!   (AVX2): so the factors and initial sums of the planes differ, and so does the step
//!   that ends a group.
//! - *Loads of x.* A broadcast for each step, or (NEON) one register for four steps and a lane of it as an immediate.
//!
//! A shared nest would need each of these as a parameter of a trait whose methods must all be inlined into a
//! `#[target_feature]` function, and it would leave the compiler free to reorder the masks that AVX-VNNI pins. One
//! accumulator spilled within a step is a load and a store, 5 % of the 43 instructions that AVX2 takes for a step
//! (44,285 for the 1,024 steps of a 512 × 512 gemv). What can be shared is shared: the operands, their checks and the
//! dispatch (this file), and the store of a half (`avx2::store`). A count of instructions guards the scalar and the
//! AVX2 loop (`--bench instructions`); valgrind runs none of the others, so a change to those would have to be timed on
//! three kinds of processors.

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

/// Superblocks of 64 output rows of a ternary matrix, and the int8 rows that they multiply. The layout is described
/// in [`crate::ternary::prepared`].
pub(crate) struct TernaryOperands<'a> {
    /// `[n_superblocks][n_groups] { codes [stride / n_groups / 4][64], scales [64] f32 }`, on a 64-byte boundary; plane
    /// p's scales are divided by `Routine::plane_factors()[p]`.
    pub(crate) superblocks: &'a [u8],
    pub(crate) n_groups: usize,
    /// `[n_rows][stride]`, no value −128.
    pub(crate) x: &'a [i8],
    /// Columns of a row including padding, a multiple of 16.
    pub(crate) stride: usize,
    /// The initial sums of the planes for each group of each row of x, `[n_rows][n_groups]`: [`Routine::initial_sums`].
    pub(crate) initial_sums: &'a [[i32; 4]],
    /// Scales of the rows of x, `[n_rows]`.
    pub(crate) row_scales: &'a [f32],
}

impl TernaryOperands<'_> {
    fn n_rows(&self) -> usize {
        self.row_scales.len()
    }

    fn n_superblocks(&self) -> usize {
        self.superblocks.len() / self.superblock_len()
    }

    /// Size of a superblock in bytes.
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
    /// The factor by which this routine's integer sum of each of the four planes is too large; scales are divided by
    /// it. Factors are powers of two, so nothing is rounded.
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

    /// The initial values of the accumulators of the four planes where the x of a group add up to `sum`. Codes are
    /// trit + 1, so the sum of x is subtracted in advance.
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
    /// `out` is valid for writes, and for reads if `add` is set, for the rows and superblocks of `operands`.
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
