//! AVX2: `vpmaddwd` on operands widened to 16 bits.

use std::arch::x86_64::*;

/// Both sides are signed here, so they are widened to 16 bits first: `vpmaddubsw` would saturate.
///
/// # Safety
/// The CPU has AVX2, and the lengths are as `multiply` in the module above checks them.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn one_row(weights: &[i8], x: &[i8], out: &mut [i32; 64]) {
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
