//! NEON with dot product: `sdot` multiplies 4 rows × 4 columns; inline assembly, as its intrinsic is not stable. Its
//! tests have been run under an emulator only: equal to the scalar routine, speed unknown.
//!
//! ```text
//! T0 = −Σx, T1 = −5 Σx, T2 = −21 Σx, C3 = −Σx
//! for 16 columns, for step (4 of them), for quarter (16 bytes: 4 of a plane's 16 rows):
//!     T0 += dot4(w & 3, x4)   T1 += dot4(w & 15, x4)   T2 += dot4(w & 63, x4)   C3 += dot4(w >> 6, x4)
//! sums of the planes:  T0,  T1 − T0,  T2 − T1,  C3
//! ```
//!
//! Both operands of the instruction are signed: the whole byte would not fit, so the last plane is shifted down. Its
//! second operand is a lane of a register: one load of x serves four steps.
//!
//! Numeric hazard: none, as in `avx512`.

use std::arch::aarch64::*;

use super::{SCALE_BYTES, TernaryOperands};
use crate::isa::dot4;
use crate::output::Output;

/// The initial values of the accumulators for Σx = −1.
pub(super) const START_FACTORS: [i32; 4] = [1, 5, 21, 1];
/// The factor by which the sum of each plane is too large.
pub(super) const PLANE_FACTORS: [i32; 4] = [1, 4, 16, 1];

/// # Safety
/// The CPU has NEON and its dot product, and the rest is as `Routine::run` checks it.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn ternary(operands: &TernaryOperands<'_>, out: Output) {
    let n_rows = operands.n_rows();
    for superblock in 0..operands.n_superblocks() {
        let mut row = 0;
        while row < n_rows {
            // Up to 24 accumulators leave 8 of the 32 registers for masks, codes and x.
            // SAFETY: the caller's promise; these rows and this superblock exist.
            row += unsafe {
                match n_rows - row {
                    1 => tile::<1, 4>(operands, superblock, row, out),
                    2 | 4 => tile::<2, 2>(operands, superblock, row, out),
                    _ => tile::<3, 2>(operands, superblock, row, out),
                }
            };
        }
    }
}

/// `N` rows of x from `first` times one superblock, `Q` of its four quarters at once. Returns N.
///
/// # Safety
/// As [`ternary`]; `first + N` rows and the superblock exist, and Q divides 4.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile<const N: usize, const Q: usize>(
    operands: &TernaryOperands<'_>,
    superblock: usize,
    first: usize,
    out: Output,
) -> usize {
    let &TernaryOperands { n_groups, stride, .. } = operands;
    let blocks_per_group = stride / 16 / n_groups;
    let masks = [vdupq_n_u8(3), vdupq_n_u8(15), vdupq_n_u8(63)];
    for quarter in (0..4).step_by(Q) {
        // SAFETY: the superblock and the rows exist.
        let (mut codes, mut x) = unsafe {
            (
                operands.superblocks.as_ptr().add(superblock * operands.superblock_len() + quarter * 16),
                operands.x.as_ptr().add(first * stride),
            )
        };
        let mut total = [[[vdupq_n_f32(0.0); 4]; N]; Q]; // [quarter][row][plane]
        for group in 0..n_groups {
            let mut acc = [[[vdupq_n_s32(0); 4]; N]; Q];
            for row in 0..N {
                // SAFETY: `initial_sums` has an entry for this row and group.
                let initial_sums = unsafe { operands.initial_sums.get_unchecked((first + row) * n_groups + group) };
                for q in 0..Q {
                    for plane in 0..4 {
                        acc[q][row][plane] = vdupq_n_s32(initial_sums[plane]);
                    }
                }
            }
            for _ in 0..blocks_per_group {
                let mut x16 = [vdupq_n_s8(0); N];
                for row in 0..N {
                    // SAFETY: each row of x has 16 columns for each block.
                    x16[row] = unsafe { vld1q_s8(x.add(row * stride)) };
                }
                macro_rules! step {
                    ($step:literal) => {
                        for q in 0..Q {
                            // SAFETY: `codes` has 64 bytes for each step, 16 for each quarter.
                            let w = unsafe { vld1q_u8(codes.add($step * 64 + q * 16)) };
                            let planes = [
                                vandq_u8(w, masks[0]),
                                vandq_u8(w, masks[1]),
                                vandq_u8(w, masks[2]),
                                vshrq_n_u8::<6>(w),
                            ];
                            for row in 0..N {
                                for plane in 0..4 {
                                    acc[q][row][plane] = dot4!(acc[q][row][plane], planes[plane], x16[row], $step);
                                }
                            }
                        }
                    };
                }
                step!(0);
                step!(1);
                step!(2);
                step!(3);
                // Both stay within, or one past, their slices; one past the second half of a quarter is not read.
                codes = codes.wrapping_add(4 * 64);
                x = x.wrapping_add(16);
            }
            // The scales follow the codes: 16 bytes are 4 of them.
            let scales = codes.cast::<f32>();
            for q in 0..Q {
                for row in 0..N {
                    let [a, b, c, d] = acc[q][row];
                    let sums = [a, vsubq_s32(b, a), vsubq_s32(c, b), d];
                    for plane in 0..4 {
                        // SAFETY: the group has 64 scales.
                        let scale = unsafe { vld1q_f32(scales.add(plane * 16 + q * 4)) };
                        let part = vmulq_f32(vcvtq_f32_s32(sums[plane]), scale);
                        total[q][row][plane] = vaddq_f32(total[q][row][plane], part);
                    }
                }
            }
            codes = codes.wrapping_add(SCALE_BYTES);
        }
        for q in 0..Q {
            for row in 0..N {
                // SAFETY: this row has a scale, and `out` 64 places for this row and superblock.
                unsafe {
                    let row_scale = *operands.row_scales.get_unchecked(first + row);
                    let y = out.start.add((first + row) * out.stride + superblock * 64 + (quarter + q) * 4);
                    for plane in 0..4 {
                        let y = y.add(plane * 16);
                        let mut value = vmulq_n_f32(total[q][row][plane], row_scale);
                        if out.add {
                            value = vaddq_f32(vld1q_f32(y), value);
                        }
                        vst1q_f32(y, value);
                    }
                }
            }
        }
    }
    N
}
