//! AVX-VNNI: `vpdpbusd` on 32-byte registers, 8 rows × 4 columns; the sums are those of `avx512`.

use std::arch::x86_64::*;

use super::avx2::store;
use super::{SCALE_BYTES, TernaryOperands};
use crate::isa::PREFETCH;
use crate::output::Output;

/// # Safety
/// The CPU has AVX2 and AVX-VNNI, and the rest is as `Routine::run` checks it.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(super) unsafe fn ternary(operands: &TernaryOperands<'_>, out: Output) {
    let n_rows = operands.n_rows();
    for superblock in 0..operands.n_superblocks() {
        let mut row = 0;
        while row < n_rows {
            // Eight chains or more hide the latency. Twelve and the operands are what 16 registers hold; the halves of
            // one row make eight. SAFETY: the caller's promise; these rows and this superblock exist.
            row += unsafe {
                match n_rows - row {
                    1 => rows::<1, 2>(operands, superblock, row, out),
                    2 | 4 => rows::<2, 1>(operands, superblock, row, out),
                    _ => rows::<3, 1>(operands, superblock, row, out),
                }
            };
        }
    }
}

/// `N` rows of x from `first` times one superblock, `H` of its two halves at once. Returns N.
///
/// # Safety
/// As [`ternary`]; `first + N` rows and the superblock exist.
#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn rows<const N: usize, const H: usize>(
    operands: &TernaryOperands<'_>,
    superblock: usize,
    first: usize,
    out: Output,
) -> usize {
    let &TernaryOperands { n_groups, stride, .. } = operands;
    let steps_per_group = stride / 4 / n_groups;
    let masks = [_mm256_set1_epi8(63), _mm256_set1_epi8(15), _mm256_set1_epi8(3)];
    for half in (0..2).step_by(H) {
        // SAFETY: the superblock and the rows exist.
        let (mut codes, mut x) = unsafe {
            (
                operands.superblocks.as_ptr().add(superblock * operands.superblock_len() + half * 32),
                operands.x.as_ptr().add(first * stride),
            )
        };
        let mut total = [[[_mm256_setzero_ps(); 4]; N]; H]; // [half][row][plane]
        for group in 0..n_groups {
            let mut acc = [[[_mm256_setzero_si256(); 4]; N]; H];
            for row in 0..N {
                // SAFETY: `initial_sums` has an entry for this row and group.
                let initial_sums = unsafe { operands.initial_sums.get_unchecked((first + row) * n_groups + group) };
                for h in 0..H {
                    acc[h][row] = initial_sums.map(|start| _mm256_set1_epi32(start));
                }
            }
            for _ in 0..steps_per_group {
                // SAFETY: `codes` has 64 bytes for each step of each group, each row of x 4. A prefetch never faults.
                // Both stay within, or one past, their slices.
                unsafe {
                    if N == 1 {
                        _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(PREFETCH).cast());
                    }
                    let mut x4 = [_mm256_setzero_si256(); N];
                    for row in 0..N {
                        x4[row] = _mm256_set1_epi32(x.add(row * stride).cast::<i32>().read_unaligned());
                    }
                    for h in 0..H {
                        // Masked in place, the widest first: one register.
                        let mut w = _mm256_loadu_si256(codes.add(h * 32).cast());
                        for plane in (0..4).rev() {
                            for row in 0..N {
                                acc[h][row][plane] = _mm256_dpbusd_avx_epi32(acc[h][row][plane], w, x4[row]);
                            }
                            if plane > 0 && N < 3 {
                                w = _mm256_and_si256(w, masks[3 - plane]);
                            } else if plane > 0 {
                                // The compiler would mask out of order and spill an accumulator: half the speed.
                                std::arch::asm!(
                                    "vpand {w}, {w}, [{mask}]",
                                    w = inout(ymm_reg) w,
                                    mask = in(reg) &masks[3 - plane],
                                    options(pure, readonly, nostack, preserves_flags)
                                );
                            }
                        }
                    }
                    codes = codes.add(64);
                    x = x.add(4);
                }
            }
            // The scales follow the codes: 32 bytes are 8 of them.
            let scales = codes.cast::<f32>();
            for h in 0..H {
                for row in 0..N {
                    let t = acc[h][row];
                    let sums = [
                        t[0],
                        _mm256_sub_epi32(t[1], t[0]),
                        _mm256_sub_epi32(t[2], t[1]),
                        _mm256_sub_epi32(t[3], t[2]),
                    ];
                    for plane in 0..4 {
                        // SAFETY: the group has 64 scales, 56 from here on for the second half.
                        let scale = unsafe { _mm256_loadu_ps(scales.add(plane * 16 + h * 8)) };
                        let part = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[plane]), scale);
                        total[h][row][plane] = _mm256_add_ps(total[h][row][plane], part);
                    }
                }
            }
            // Past the end after the last group of the second half, where it is not read: hence `wrapping`.
            codes = codes.wrapping_add(SCALE_BYTES);
        }
        for h in 0..H {
            for row in 0..N {
                // SAFETY: this row has a scale, and `out` 64 places for this row and superblock.
                unsafe {
                    let row_scale = *operands.row_scales.get_unchecked(first + row);
                    let y = out.start.add((first + row) * out.stride + superblock * 64 + (half + h) * 8);
                    store(&total[h][row], row_scale, y, out.add);
                }
            }
        }
    }
    N
}
