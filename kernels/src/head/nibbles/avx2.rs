//! AVX2: `vpmaddubsw`, summed in 16 bits over one group.
//!
//! Numeric hazard (16 bits may overflow): a pair is at most 2 · 15 · 127 = 3,810; a group has eight of them, 30,480,
//! the last multiple but none below 2¹⁵. Groups of 64 columns would be wrong on saturated input.

use std::arch::x86_64::*;

use super::{Block, GROUP_COLS};

/// # Safety
/// The CPU has AVX2, and the lengths are as `multiply` in the module above checks them.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn multiply(weights: &Block<'_>, x: &[i8], block_sums: &[i32], out: &mut [i32; 64]) {
    let (low, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    for half in 0..2 {
        let mut total = [_mm256_setzero_si256(); 4];
        for (group, x) in x.chunks(GROUP_COLS).enumerate() {
            let mut acc = [_mm256_setzero_si256(); 4];
            for (step, x) in x.chunks_exact(8).enumerate() {
                // SAFETY: there are 256 bytes of codes for every 8 of x, 128 for each half.
                unsafe {
                    let x0 = _mm256_set1_epi32(x.as_ptr().cast::<i32>().read_unaligned());
                    let x1 = _mm256_set1_epi32(x.as_ptr().add(4).cast::<i32>().read_unaligned());
                    for octet in 0..4 {
                        let at = (group * GROUP_COLS / 8 + step) * 256 + half * 128 + octet * 32;
                        let w = _mm256_loadu_si256(weights.codes.as_ptr().add(at).cast());
                        let pairs0 = _mm256_maddubs_epi16(_mm256_and_si256(w, low), x0);
                        let w = _mm256_and_si256(_mm256_srli_epi16::<4>(w), low);
                        let pairs = _mm256_add_epi16(pairs0, _mm256_maddubs_epi16(w, x1));
                        acc[octet] = _mm256_add_epi16(acc[octet], pairs);
                    }
                }
            }
            let sums: i32 = block_sums[group * 2..].iter().take(2).sum();
            let sums = _mm256_set1_epi32(8 * sums);
            for octet in 0..4 {
                let at = group * 64 + half * 32 + octet * 8;
                // SAFETY: each group has 64 multipliers.
                let multipliers = unsafe { _mm_loadl_epi64(weights.multipliers.as_ptr().add(at).cast()) };
                let part = _mm256_sub_epi32(_mm256_madd_epi16(acc[octet], ones), sums);
                let part = _mm256_mullo_epi32(part, _mm256_cvtepu8_epi32(multipliers));
                total[octet] = _mm256_add_epi32(total[octet], part);
            }
        }
        for octet in 0..4 {
            // SAFETY: `out` holds 64 numbers.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(half * 32 + octet * 8).cast(), total[octet]) };
        }
    }
}
