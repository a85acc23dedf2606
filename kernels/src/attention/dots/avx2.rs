//! AVX2: `vpmaddubsw` and `vpmaddwd`.
//!
//! Numeric hazard (`vpmaddubsw` saturates at 2¹⁵): queries are made unsigned by moving their sign to the
//! keys, |q| · (±k): both are within 127 and a pair within 32,258, and no correction is needed for the 128 in the keys.
//! Weights reach 255, and their pairs would not fit: there both operands are widened to 16 bits first.

use std::arch::x86_64::*;

use super::POSITIONS;

/// # Safety
/// The CPU has AVX2, and the lengths are as `Dots::scores` checks them for `R` rows.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn scores<const R: usize>(keys: &[u8], queries: &[i8], out: &mut [[i32; POSITIONS]]) {
    let width = keys.len() / POSITIONS;
    let (ones, high) = (_mm256_set1_epi16(1), _mm256_set1_epi8(-128));
    for pair in 0..4 {
        let mut acc = [[_mm256_setzero_si256(); 2]; R]; // [row][eight positions]
        for step in 0..width / 4 {
            // SAFETY: `keys` has 256 bytes and each query 4 for every step.
            unsafe {
                let mut k = [_mm256_setzero_si256(); 2];
                for part in 0..2 {
                    let keys = keys.as_ptr().add(step * 256 + pair * 64 + part * 32);
                    k[part] = _mm256_xor_si256(_mm256_loadu_si256(keys.cast()), high);
                }
                for row in 0..R {
                    let q = queries.as_ptr().add(row * width + step * 4).cast::<i32>().read_unaligned();
                    let q = _mm256_set1_epi32(q);
                    for part in 0..2 {
                        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(k[part], q));
                        acc[row][part] = _mm256_add_epi32(acc[row][part], _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
        }
        for row in 0..R {
            for part in 0..2 {
                // SAFETY: a row of `out` holds 64 numbers.
                unsafe {
                    _mm256_storeu_si256(out[row].as_mut_ptr().add(pair * 16 + part * 8).cast(), acc[row][part]);
                }
            }
        }
    }
}

/// # Safety
/// The CPU has AVX2, and the lengths are as `Dots::weighted` checks them for `R` rows.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn weighted<const R: usize>(values: &[i8], weights: &[[u8; POSITIONS]], out: &mut [i32]) {
    let width = values.len() / POSITIONS;
    for from in (0..width).step_by(8) {
        let mut acc = [[_mm256_setzero_si256(); 2]; R]; // [row][four features]: sums of positions 0, 1 and of 2, 3
        for step in 0..POSITIONS / 4 {
            // SAFETY: `values` has `4 · width` bytes, width a multiple of 16, and each row of weights 4 for every step.
            unsafe {
                let mut v = [_mm256_setzero_si256(); 2];
                for part in 0..2 {
                    let values = values.as_ptr().add((step * width + from + part * 4) * 4);
                    v[part] = _mm256_cvtepi8_epi16(_mm_loadu_si128(values.cast()));
                }
                for row in 0..R {
                    let w = weights[row].as_ptr().add(step * 4).cast::<i32>().read_unaligned();
                    let w = _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(w)));
                    for part in 0..2 {
                        acc[row][part] = _mm256_add_epi32(acc[row][part], _mm256_madd_epi16(v[part], w));
                    }
                }
            }
        }
        for row in 0..R {
            let sums = _mm256_hadd_epi32(acc[row][0], acc[row][1]);
            // Adding neighbours works within 128 bits: features 0 1 4 5 | 2 3 6 7.
            let sums = _mm256_permute4x64_epi64::<0b11_01_10_00>(sums);
            // SAFETY: a row of `out` holds `width` numbers.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(row * width + from).cast(), sums) };
        }
    }
}
