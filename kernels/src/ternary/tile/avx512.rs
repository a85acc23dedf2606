//! AVX-512 VNNI: one `vpdpbusd` multiplies 16 rows × 4 columns.
//!
//! ```text
//! T0 = −Σx, T1 = −5 Σx, T2 = −21 Σx, T3 = −85 Σx                the codes are trit + 1: Σx is subtracted in advance
//! for step (4 columns):  w = 64 bytes: four planes of 16 rows each, two bits a plane
//!     T0 += dot4(w & 3, x4)   T1 += dot4(w & 15, x4)   T2 += dot4(w & 63, x4)   T3 += dot4(w, x4)
//! sums of the planes:  T0,  T1 − T0,  T2 − T1,  T3 − T2          1, 4, 16 and 64 times too large,
//! y = sum · scale                                                 and the scales smaller by the same factors
//! ```
//!
//! Nested masks need three operations for four planes, and no shift; each T is the sum of the planes up to it, weighted
//! by 4^p. One broadcast of x serves all 64 rows.
//!
//! Numeric hazard: none up to the columns that `Prepared::new` allows. The Ts wrap, but their differences do not exceed
//! 64 · 127 a column: 2^31 after 264,208 columns.

use std::arch::x86_64::*;

use super::{SCALE_BYTES, TernaryOperands};
use crate::isa::PREFETCH;
use crate::output::Output;

/// Input rows at once: 6 × 4 accumulators leave 8 of the 32 registers for masks, codes and x.
const MAX_ROWS: usize = 6;

/// The initial values of the Ts for Σx = −1.
pub(super) const START_FACTORS: [i32; 4] = [1, 5, 21, 85];
/// The factor by which the sum of each plane is too large.
pub(super) const PLANE_FACTORS: [i32; 4] = [1, 4, 16, 64];

/// # Safety
/// The CPU has these features, and the rest is as `Routine::run` checks it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn ternary(operands: &TernaryOperands<'_>, out: Output) {
    let n_rows = operands.n_rows();
    let n_passes = n_rows.div_ceil(MAX_ROWS);
    for superblock in 0..operands.n_superblocks() {
        for pass in 0..n_passes {
            // Passes of nearly the same size: 7 rows are 4 + 3, not 6 + 1.
            let first = pass * n_rows / n_passes;
            let end = (pass + 1) * n_rows / n_passes;
            // SAFETY: the caller's promise; these rows and this superblock exist.
            unsafe {
                match end - first {
                    1 => tile::<1, 4>(operands, superblock, first, out),
                    2 => tile::<2, 2>(operands, superblock, first, out),
                    3 => tile::<3, 1>(operands, superblock, first, out),
                    4 => tile::<4, 1>(operands, superblock, first, out),
                    5 => tile::<5, 1>(operands, superblock, first, out),
                    _ => tile::<6, 1>(operands, superblock, first, out),
                }
            }
        }
    }
}

/// `N` rows of x from `first` times one superblock, with `U` steps in flight.
///
/// # Safety
/// As [`ternary`]; `first + N` rows and the superblock exist, and U divides 4.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn tile<const N: usize, const U: usize>(
    operands: &TernaryOperands<'_>,
    superblock: usize,
    first: usize,
    out: Output,
) {
    let &TernaryOperands { n_groups, stride, .. } = operands;
    let steps_per_group = stride / 4 / n_groups;
    let masks = [_mm512_set1_epi8(3), _mm512_set1_epi8(15), _mm512_set1_epi8(63)];
    // SAFETY: the superblock and the rows exist.
    let (mut codes, mut x) = unsafe {
        (
            operands.superblocks.as_ptr().add(superblock * operands.superblock_len()),
            operands.x.as_ptr().add(first * stride),
        )
    };
    let mut total = [[_mm512_setzero_ps(); 4]; N]; // [row][plane]
    for group in 0..n_groups {
        let mut acc = [[[_mm512_setzero_si512(); 4]; N]; U]; // [step][row][plane]
        for row in 0..N {
            // SAFETY: `initial_sums` has an entry for this row and group.
            let initial_sums = unsafe { operands.initial_sums.get_unchecked((first + row) * n_groups + group) };
            acc[0][row] = initial_sums.map(|start| _mm512_set1_epi32(start));
        }
        for _ in 0..steps_per_group / U {
            for u in 0..U {
                // SAFETY: the superblock has 64 bytes for each step of each group, each row of x 4. A prefetch never
                // faults.
                unsafe {
                    if N == 1 {
                        _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(PREFETCH + u * 64).cast());
                    }
                    let w = _mm512_loadu_si512(codes.add(u * 64).cast());
                    let nested = [
                        _mm512_and_si512(w, masks[0]),
                        _mm512_and_si512(w, masks[1]),
                        _mm512_and_si512(w, masks[2]),
                        w,
                    ];
                    for row in 0..N {
                        let x4 = _mm512_set1_epi32(x.add(row * stride + u * 4).cast::<i32>().read_unaligned());
                        for plane in 0..4 {
                            acc[u][row][plane] = _mm512_dpbusd_epi32(acc[u][row][plane], nested[plane], x4);
                        }
                    }
                }
            }
            // SAFETY: both stay within, or one past, their slices.
            unsafe {
                codes = codes.add(U * 64);
                x = x.add(U * 4);
            }
        }
        // The scales follow the codes.
        let scales = codes.cast::<f32>();
        if N == 1 {
            for line in 0..4 {
                _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(PREFETCH + line * 64).cast());
            }
        }
        for row in 0..N {
            let mut t = acc[0][row];
            for u in 1..U {
                for plane in 0..4 {
                    t[plane] = _mm512_add_epi32(t[plane], acc[u][row][plane]);
                }
            }
            let sums = [t[0], _mm512_sub_epi32(t[1], t[0]), _mm512_sub_epi32(t[2], t[1]), _mm512_sub_epi32(t[3], t[2])];
            for plane in 0..4 {
                // SAFETY: the group has 64 scales.
                let scale = unsafe { _mm512_loadu_ps(scales.add(plane * 16)) };
                let part = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[plane]), scale);
                total[row][plane] = _mm512_add_ps(total[row][plane], part);
            }
        }
        // SAFETY: stays within, or one past, the slice.
        codes = unsafe { codes.add(SCALE_BYTES) };
    }
    for row in 0..N {
        // SAFETY: this row has a scale, and `out` 64 places for this row and superblock.
        unsafe {
            let row_scale = _mm512_set1_ps(*operands.row_scales.get_unchecked(first + row));
            let y = out.start.add((first + row) * out.stride + superblock * 64);
            for plane in 0..4 {
                let y = y.add(plane * 16);
                let mut value = _mm512_mul_ps(total[row][plane], row_scale);
                if out.add {
                    value = _mm512_add_ps(_mm512_loadu_ps(y), value);
                }
                _mm512_storeu_ps(y, value);
            }
        }
    }
}
