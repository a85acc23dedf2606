//! AVX2: `vpmaddubsw` multiplies 8 rows × 4 columns into 16-bit pairs.
//!
//! ```text
//! for k-block, for octet (32 bytes), for plane p:  acc16 += pairs((w >> 2p & 3) · broadcast x[4p..4p+4])
//! every 16 k-blocks:  acc32 += acc16, pairwise;  acc16 = 0
//! out = (acc32 − Σx) · scale
//! ```
//!
//! Numeric hazard (`acc16` may overflow): a pair is at most 2 · 2 · 127 = 508, as rows hold no −128; 16 k-blocks of four
//! planes make 64 · 508 = 32,512, the last multiple below 2^15. Flushing later would be wrong on saturated input.

use std::arch::x86_64::*;

use super::{Tile, TileInput};

const FLUSH: usize = 16;

/// # Safety
/// The CPU has AVX2, and the lengths are as `Routine::run` checks them.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn ternary(tile: &Tile<'_>, input: &TileInput<'_>, out: &mut [f32]) {
    // SAFETY: the caller's promise is theirs. Two rows × 4 octets of accumulators are what 16 registers hold.
    unsafe {
        let n = out.len() / 64;
        let mut row = 0;
        while row + 2 <= n {
            for half in 0..2 {
                rows::<2>(tile, input, row, half, out);
            }
            row += 2;
        }
        if row < n {
            for half in 0..2 {
                rows::<1>(tile, input, row, half, out);
            }
        }
    }
}

/// `N` input rows from `first`, and the 32 output rows of one half of the superblock.
///
/// # Safety
/// As [`ternary`]; `first + N` rows exist.
#[target_feature(enable = "avx2,fma")]
unsafe fn rows<const N: usize>(tile: &Tile<'_>, input: &TileInput<'_>, first: usize, half: usize, out: &mut [f32]) {
    let blocks_per_group = input.stride / 16 / tile.n_groups;
    let mask = _mm256_set1_epi8(3);
    let ones = _mm256_set1_epi16(1);
    for group in 0..tile.n_groups {
        let mut acc32 = [[_mm256_setzero_si256(); 4]; N]; // [row][octet]
        let blocks = group * blocks_per_group..(group + 1) * blocks_per_group;
        for start in blocks.clone().step_by(FLUSH) {
            let mut acc16 = [[_mm256_setzero_si256(); 4]; N];
            for block in start..(start + FLUSH).min(blocks.end) {
                macro_rules! plane {
                    ($plane:literal) => {
                        // SAFETY: `codes` has 256 bytes for each k-block, 128 for each half; each row has 16.
                        unsafe {
                            let mut x4 = [_mm256_setzero_si256(); N];
                            for row in 0..N {
                                let x =
                                    input.values.as_ptr().add((first + row) * input.stride + block * 16 + 4 * $plane);
                                x4[row] = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
                            }
                            for octet in 0..4 {
                                let w = tile.codes.as_ptr().add(block * 256 + half * 128 + octet * 32);
                                let w = _mm256_srli_epi16::<{ 2 * $plane }>(_mm256_loadu_si256(w.cast()));
                                let w = _mm256_and_si256(w, mask);
                                for row in 0..N {
                                    let pairs = _mm256_maddubs_epi16(w, x4[row]);
                                    acc16[row][octet] = _mm256_add_epi16(acc16[row][octet], pairs);
                                }
                            }
                        }
                    };
                }
                plane!(0);
                plane!(1);
                plane!(2);
                plane!(3);
            }
            for row in 0..N {
                for octet in 0..4 {
                    let wide = _mm256_madd_epi16(acc16[row][octet], ones);
                    acc32[row][octet] = _mm256_add_epi32(acc32[row][octet], wide);
                }
            }
        }
        for row in 0..N {
            let sum = _mm256_set1_epi32(input.group_sums[(first + row) * tile.n_groups + group]);
            for octet in 0..4 {
                let at = half * 32 + octet * 8;
                let total = _mm256_sub_epi32(acc32[row][octet], sum);
                // SAFETY: `scales` holds 64 numbers for this group, `out` 64 for this row.
                unsafe {
                    let scales = _mm256_loadu_ps(tile.scales.as_ptr().add(group * 64 + at));
                    let out = out.as_mut_ptr().add((first + row) * 64 + at);
                    let part = _mm256_mul_ps(_mm256_cvtepi32_ps(total), scales);
                    let value = if group == 0 { part } else { _mm256_add_ps(_mm256_loadu_ps(out), part) };
                    _mm256_storeu_ps(out, value);
                }
            }
        }
    }
}

/// Both sides are signed here, so they are widened to 16 bits first: `vpmaddubsw` would saturate.
///
/// # Safety
/// The CPU has AVX2, and the lengths are as `dense` in the module above checks them.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn dense(weights: &[i8], x: &[i8], out: &mut [i32; 64]) {
    for part in 0..4 {
        let mut acc = [_mm256_setzero_si256(); 4]; // four rows each: sums of columns 0, 1 and of columns 2, 3
        for (step, x4) in x.chunks_exact(4).enumerate() {
            let x4 = x4.iter().rev().fold(0i64, |wide, x| wide << 16 | i64::from(i16::from(*x) as u16));
            let x4 = _mm256_set1_epi64x(x4);
            for quad in 0..4 {
                // SAFETY: `weights` has 256 bytes for every 4 of x.
                let w = unsafe { weights.as_ptr().add(step * 256 + part * 64 + quad * 16) };
                // SAFETY: as above.
                let w = _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(w.cast()) });
                acc[quad] = _mm256_add_epi32(acc[quad], _mm256_madd_epi16(w, x4));
            }
        }
        for quad in 0..4 {
            let mut pairs = [0i32; 8];
            // SAFETY: `pairs` has the register's size.
            unsafe { _mm256_storeu_si256(pairs.as_mut_ptr().cast(), acc[quad]) };
            for row in 0..4 {
                out[part * 16 + quad * 4 + row] = pairs[2 * row] + pairs[2 * row + 1];
            }
        }
    }
}
