//! AVX2 without VNNI: `vpmaddubsw` multiplies 8 rows × 4 columns into 16-bit pairs.
//!
//! ```text
//! s0 = s2 = −Σx,  s1 = s3 = −4 Σx                        the codes are trit + 1: Σx is subtracted in advance
//! for run of up to 16 steps (64 columns), for half (8 of a plane's 16 rows):
//!     for step:  w = 32 bytes, v = w >> 4
//!         p0 += pairs(w & 3, x4)    p1 += pairs(w & 12, x4)    p2 += pairs(v & 3, x4)    p3 += pairs(v & 12, x4)
//!     s0 … s3 += p0 … p3, pairwise
//! y = S · scale                                          s1 and s3 are 4 times too large, their scales 4 times smaller
//! ```
//!
//! One shift serves four planes.
//!
//! Numeric hazard: the Ps are 16-bit. A pair of plane 1 or 3 is at most 2 · 8 · 127 = 2,032, as rows hold no −128; 16
//! steps make 32,512, the last multiple below 2^15. Longer runs would be wrong on saturated input.

use std::arch::x86_64::*;

use super::{SCALE_BYTES, TernaryOperands};
use crate::isa::PREFETCH;
use crate::output::Output;

/// Steps of 4 columns before the 16-bit sums are added to the 32-bit ones.
const RUN: usize = 16;

/// The factor by which the sum of each plane is too large; also what the sums start at for Σx = −1.
pub(super) const PLANE_FACTORS: [i32; 4] = [1, 4, 1, 4];

/// # Safety
/// The CPU has AVX2, and the rest is as `Routine::run` checks it.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn ternary(operands: &TernaryOperands<'_>, out: Output) {
    let n_rows = operands.n_rows();
    for superblock in 0..operands.n_superblocks() {
        let mut row = 0;
        while row < n_rows {
            // SAFETY: the caller's promise; these rows and this superblock exist. Two rows are 8 accumulators, what 16
            // registers hold in addition to codes, masks and x.
            unsafe {
                if row + 2 <= n_rows {
                    tile::<2, 1>(operands, superblock, row, out);
                } else {
                    tile::<1, 2>(operands, superblock, row, out);
                }
            }
            row += 2;
        }
    }
}

/// `N` rows of x from `first` times one superblock, with `U` steps at once.
///
/// # Safety
/// As [`ternary`]; `first + N` rows and the superblock exist, and U divides 4.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const N: usize, const U: usize>(
    operands: &TernaryOperands<'_>,
    superblock: usize,
    first: usize,
    out: Output,
) {
    let &TernaryOperands { n_groups, stride, .. } = operands;
    let steps_per_group = stride / 4 / n_groups;
    let (low, high) = (_mm256_set1_epi8(3), _mm256_set1_epi8(12));
    let ones = _mm256_set1_epi16(1);
    // SAFETY: the superblock and the rows exist.
    let (mut codes, mut x) = unsafe {
        (
            operands.superblocks.as_ptr().add(superblock * operands.superblock_len()),
            operands.x.as_ptr().add(first * stride),
        )
    };
    let mut total = [[[_mm256_setzero_ps(); 4]; 2]; N]; // [row][half][plane]
    for group in 0..n_groups {
        let mut sums = [[[_mm256_setzero_si256(); 4]; 2]; N];
        for row in 0..N {
            // SAFETY: `initial_sums` has an entry for this row and group.
            let initial_sums = unsafe { operands.initial_sums.get_unchecked((first + row) * n_groups + group) };
            sums[row] = [initial_sums.map(|start| _mm256_set1_epi32(start)); 2];
        }
        let mut n_left = steps_per_group;
        while n_left > 0 {
            let n_steps = n_left.min(RUN);
            for half in 0..2 {
                let mut acc = [[_mm256_setzero_si256(); 4]; N]; // [row][plane]
                for step in (0..n_steps).step_by(U) {
                    let mut pairs = [[_mm256_setzero_si256(); 4]; N]; // [row][plane]
                    for u in 0..U {
                        // SAFETY: `codes` has 64 bytes for each step of each group, each row of x 4. A prefetch never
                        // faults.
                        unsafe {
                            let codes = codes.add((step + u) * 64);
                            if N == 1 && half == 0 {
                                _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(PREFETCH).cast());
                            }
                            let w = _mm256_loadu_si256(codes.add(half * 32).cast());
                            let v = _mm256_srli_epi16::<4>(w);
                            let planes = [
                                _mm256_and_si256(w, low),
                                _mm256_and_si256(w, high),
                                _mm256_and_si256(v, low),
                                _mm256_and_si256(v, high),
                            ];
                            for row in 0..N {
                                let x4 = x.add(row * stride + (step + u) * 4).cast::<i32>().read_unaligned();
                                let x4 = _mm256_set1_epi32(x4);
                                for plane in 0..4 {
                                    let product = _mm256_maddubs_epi16(planes[plane], x4);
                                    pairs[row][plane] =
                                        if u == 0 { product } else { _mm256_add_epi16(pairs[row][plane], product) };
                                }
                            }
                        }
                    }
                    for row in 0..N {
                        for plane in 0..4 {
                            acc[row][plane] = _mm256_add_epi16(acc[row][plane], pairs[row][plane]);
                        }
                    }
                }
                for row in 0..N {
                    for plane in 0..4 {
                        let wide = _mm256_madd_epi16(acc[row][plane], ones);
                        sums[row][half][plane] = _mm256_add_epi32(sums[row][half][plane], wide);
                    }
                }
            }
            n_left -= n_steps;
            // SAFETY: both stay within, or one past, their slices.
            unsafe {
                codes = codes.add(n_steps * 64);
                x = x.add(n_steps * 4);
            }
        }
        // The scales follow the codes.
        let scales = codes.cast::<f32>();
        for row in 0..N {
            for half in 0..2 {
                for plane in 0..4 {
                    // SAFETY: the group has 64 scales.
                    let scale = unsafe { _mm256_loadu_ps(scales.add(plane * 16 + half * 8)) };
                    let part = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[row][half][plane]), scale);
                    total[row][half][plane] = _mm256_add_ps(total[row][half][plane], part);
                }
            }
        }
        // SAFETY: stays within, or one past, the slice.
        codes = unsafe { codes.add(SCALE_BYTES) };
    }
    for row in 0..N {
        // SAFETY: this row has a scale, and `out` 64 places for this row and superblock.
        unsafe {
            let row_scale = *operands.row_scales.get_unchecked(first + row);
            let y = out.start.add((first + row) * out.stride + superblock * 64);
            for half in 0..2 {
                store(&total[row][half], row_scale, y.add(half * 8), out.add);
            }
        }
    }
}

/// y ← total · row scale, or += that, for the 8 rows of each plane that one half holds.
///
/// # Safety
/// The CPU has AVX2, and y is 56 numbers long or more.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn store(total: &[__m256; 4], row_scale: f32, y: *mut f32, add: bool) {
    let row_scale = _mm256_set1_ps(row_scale);
    for plane in 0..4 {
        let mut value = _mm256_mul_ps(total[plane], row_scale);
        // SAFETY: the caller's promise.
        unsafe {
            let y = y.add(plane * 16);
            if add {
                value = _mm256_add_ps(_mm256_loadu_ps(y), value);
            }
            _mm256_storeu_ps(y, value);
        }
    }
}
