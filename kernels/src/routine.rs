//! The integer inner loops, one file per instruction set.

use crate::isa::{Isa, Level};
use crate::prepared::SCALE_BYTES;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
pub(crate) mod dots;
#[cfg(target_arch = "aarch64")]
mod neon;
pub(crate) mod nibbles;
mod scalar;

/// Superblocks of 64 output rows of a ternary matrix, and the int8 rows that they multiply. The layout stands in
/// [`crate::prepared`].
pub(crate) struct Product<'a> {
    /// `[n_superblocks][n_groups] { codes [stride / n_groups / 4][64], scales [64] f32 }`, on a 64-byte boundary; plane p's
    /// scales are divided by `Routine::units()[p]`.
    pub(crate) superblocks: &'a [u8],
    pub(crate) n_groups: usize,
    /// `[n_rows][stride]`, no value −128.
    pub(crate) x: &'a [i8],
    /// Columns with their padding, a multiple of 16.
    pub(crate) stride: usize,
    /// What the sums of the planes start at for each group of each row of x: [`Routine::starts`], `[n_rows][n_groups]`.
    pub(crate) starts: &'a [[i32; 4]],
    /// `[n_rows]`.
    pub(crate) row_scales: &'a [f32],
}

/// Where results go: `n_superblocks · 64` numbers for each row of x, rows `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) start: *mut f32,
    pub(crate) stride: usize,
    /// Whether they are added to what is there.
    pub(crate) add: bool,
}

impl Product<'_> {
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
pub(crate) fn ternary(isa: Isa) -> Routine {
    Routine(isa)
}

impl Routine {
    /// What this routine's integer sums of the four planes count by: a sum is so many times what it stands for, and its
    /// scale as many times smaller. Powers of two: nothing is rounded.
    pub(crate) fn units(self) -> [i32; 4] {
        match self.0.level() {
            Level::Scalar => [1; 4],
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::UNITS,
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni | Level::Avx512 => avx512::UNITS,
            #[cfg(target_arch = "aarch64")]
            Level::NeonDotprod => neon::UNITS,
        }
    }

    /// What the accumulators of the four planes start at where the x of a group add up to `sum`. Codes are trit + 1, so the
    /// sum of x is taken off in advance.
    pub(crate) fn starts(self, sum: i32) -> [i32; 4] {
        let weights = match self.0.level() {
            Level::Scalar => [1; 4],
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::UNITS,
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni | Level::Avx512 => avx512::STARTS,
            #[cfg(target_arch = "aarch64")]
            Level::NeonDotprod => neon::STARTS,
        };
        weights.map(|weight| -sum * weight)
    }

    /// y = (0 + Σ over groups in column order of (Σ x·trit as f32) · scale) · row scale, or y += that.
    ///
    /// # Safety
    /// `out` may be written, and read where `add` is set, as it says for the rows and superblocks of `product`.
    pub(crate) unsafe fn run(self, product: &Product<'_>, out: Output) {
        // Checked here once, so that the loops below may trust it.
        let &Product { superblocks, n_groups, x, stride, starts, row_scales } = product;
        assert!(stride > 0 && n_groups > 0 && stride.is_multiple_of(16) && (stride / 16).is_multiple_of(n_groups));
        assert!(
            superblocks.len().is_multiple_of(product.superblock_len())
                && superblocks.as_ptr().addr().is_multiple_of(64)
        );
        assert!(x.len() == row_scales.len() * stride && starts.len() == row_scales.len() * n_groups);
        match self.0.level() {
            // SAFETY: the lengths were checked above; `out` is the caller's promise.
            Level::Scalar => unsafe { scalar::ternary(product, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, and the level proves AVX2.
            Level::Avx2 => unsafe { avx2::ternary(product, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, and the level proves AVX2 and AVX-VNNI.
            Level::AvxVnni => unsafe { avxvnni::ternary(product, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, and the level proves AVX-512 with VNNI.
            Level::Avx512 => unsafe { avx512::ternary(product, out) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above, and the level proves NEON and its dot product.
            Level::NeonDotprod => unsafe { neon::ternary(product, out) },
        }
    }
}

/// 64 rows of an int8 matrix, and the int8 rows that they multiply.
#[derive(Clone, Copy)]
pub(crate) struct Dense<'a> {
    /// `[stride / 4][64][4]`.
    pub(crate) weights: &'a [i8],
    /// Sums of each row's weights.
    pub(crate) row_sums: &'a [i32],
    /// Of the weights' rows.
    pub(crate) scales: &'a [f32],
    /// `[n_rows][stride]`.
    pub(crate) x: &'a [i8],
    /// Columns with their padding, a multiple of 4.
    pub(crate) stride: usize,
    /// `[n_rows]`.
    pub(crate) row_scales: &'a [f32],
}

/// Whether [`dense`] reads weights once for several rows.
pub(crate) fn dense_shares_weights(isa: Isa) -> bool {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => true,
        _ => false,
    }
}

/// Σ x·w, exact, · scale · row scale: 64 numbers for each row of x.
///
/// # Safety
/// `out` may be written as it says for these rows and one superblock.
pub(crate) unsafe fn dense(isa: Isa, product: &Dense<'_>, out: Output) {
    let &Dense { weights, row_sums, scales, x, stride, row_scales } = product;
    // Checked here once, so that the loops below may trust it.
    assert!(stride > 0 && stride.is_multiple_of(4) && x.len() == row_scales.len() * stride);
    assert!(weights.len() == stride * 64 && row_sums.len() == 64 && scales.len() == 64);
    #[cfg(target_arch = "x86_64")]
    if isa.level() == Level::Avx512 && row_scales.len() > 1 {
        // SAFETY: the level proves AVX-512 with VNNI, the lengths were checked above, `out` is the caller's promise.
        return unsafe { avx512::dense_rows(product, out) };
    }
    let mut sums = [0; 64];
    for (row_idx, (x, row_scale)) in x.chunks_exact(stride).zip(row_scales).enumerate() {
        dense_sums(isa, weights, row_sums, x, &mut sums);
        // SAFETY: the caller's promise.
        let out = unsafe { std::slice::from_raw_parts_mut(out.start.add(row_idx * out.stride), 64) };
        for ((out, sum), scale) in out.iter_mut().zip(&sums).zip(scales) {
            *out = *sum as f32 * scale * row_scale;
        }
    }
}

/// out = Σ x·w for one row.
fn dense_sums(isa: Isa, weights: &[i8], row_sums: &[i32], x: &[i8], out: &mut [i32; 64]) {
    match isa.level() {
        Level::Scalar => scalar::dense(weights, x, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX2; `dense` has checked the lengths.
        Level::Avx2 => unsafe { avx2::dense(weights, x, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX2 and AVX-VNNI; `dense` has checked the lengths.
        Level::AvxVnni => unsafe { avxvnni::dense(weights, row_sums, x, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX-512 with VNNI; `dense` has checked the lengths.
        Level::Avx512 => unsafe { avx512::dense(weights, row_sums, x, out) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves NEON and its dot product; `dense` has checked the lengths.
        Level::NeonDotprod => unsafe { neon::dense(weights, x, out) },
    }
}

/// Runs `n_steps` of the 8-bit multiply instruction on registers; returns its multiplications and additions.
pub(crate) fn multiply_registers(isa: Isa, n_steps: usize) -> usize {
    match isa.level() {
        Level::Scalar => scalar::multiply_registers(n_steps),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX2.
        Level::Avx2 => unsafe { avx2::multiply_registers(n_steps) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX2 and AVX-VNNI.
        Level::AvxVnni => unsafe { avxvnni::multiply_registers(n_steps) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX-512 with VNNI.
        Level::Avx512 => unsafe { avx512::multiply_registers(n_steps) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves NEON and its dot product.
        Level::NeonDotprod => unsafe { neon::multiply_registers(n_steps) },
    }
}

/// Reads all bytes, a multiple of 256, and returns something that depends on each.
pub(crate) fn read(isa: Isa, bytes: &[u8]) -> u64 {
    assert!(bytes.len().is_multiple_of(256));
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX2; the length was checked above.
        Level::Avx2 | Level::AvxVnni => unsafe { avx2::read(bytes) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX-512; the length was checked above.
        Level::Avx512 => unsafe { avx512::read(bytes) },
        _ => scalar::read(bytes),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
