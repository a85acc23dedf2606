//! The integer inner loops, one file per instruction set.

use crate::isa::{Isa, Level};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

/// Input rows that a routine takes at once: 6 × 4 quads of accumulators fill 24 of 32 AVX-512 registers.
pub(crate) const MAX_ROWS: usize = 6;

/// 64 output rows of a ternary matrix; the layout stands in [`crate::prepared`].
pub(crate) struct Tile<'a> {
    /// `[k_blocks][4][64]`.
    pub(crate) codes: &'a [u8],
    /// `[n_groups][64]`.
    pub(crate) scales: &'a [f32],
    pub(crate) n_groups: usize,
}

/// Up to [`MAX_ROWS`] rows of int8, each `stride` = 16 · k_blocks long.
pub(crate) struct TileInput<'a> {
    pub(crate) values: &'a [i8],
    pub(crate) stride: usize,
    /// Sums of each row's groups, `[n, n_groups]`.
    pub(crate) group_sums: &'a [i32],
}

/// A routine that this CPU can run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Routine(Isa);

/// The ternary routine of an instruction set.
pub(crate) fn ternary(isa: Isa) -> Routine {
    Routine(isa)
}

impl Routine {
    /// out `[n, 64]` = Σ over groups of (Σ x·trit as f32) · scale.
    pub(crate) fn run(self, tile: &Tile<'_>, input: &TileInput<'_>, out: &mut [f32]) {
        // Checked here once, so that the loops below may trust it.
        let n = out.len() / 64;
        assert!((1..=MAX_ROWS).contains(&n) && out.len() == n * 64);
        assert!(input.values.len() == n * input.stride && tile.codes.len() == input.stride * 16);
        assert!(tile.scales.len() == tile.n_groups * 64 && input.group_sums.len() == n * tile.n_groups);
        assert!(tile.n_groups > 0 && (input.stride / 16).is_multiple_of(tile.n_groups));
        match self.0.level() {
            Level::Scalar => scalar::ternary(tile, input, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level proves AVX2; the lengths were checked above.
            Level::Avx2 => unsafe { avx2::ternary(tile, input, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level proves AVX-512 with VNNI; the lengths were checked above.
            Level::Avx512 => unsafe { avx512::ternary(tile, input, out) },
        }
    }
}

/// out `[64]` = Σ x·w for 64 rows of int8 weights `[cols/4][64][4]`, exact; `x.len()` is a multiple of 4.
/// `row_sums` are the sums of each row's weights.
pub(crate) fn dense(isa: Isa, weights: &[i8], row_sums: &[i32], x: &[i8], out: &mut [i32; 64]) {
    assert!(x.len().is_multiple_of(4) && weights.len() == x.len() * 64 && row_sums.len() == 64);
    match isa.level() {
        Level::Scalar => scalar::dense(weights, x, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX2; the lengths were checked above.
        Level::Avx2 => unsafe { avx2::dense(weights, x, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX-512 with VNNI; the lengths were checked above.
        Level::Avx512 => unsafe { avx512::dense(weights, row_sums, x, out) },
    }
}
