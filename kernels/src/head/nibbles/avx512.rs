//! AVX-512 VNNI. High nibbles are masked but not shifted: their sums come out 16 times too large and are shifted once a
//! group.

use std::arch::x86_64::*;

use super::{Block, GROUP_COLS};

/// # Safety
/// The CPU has these features, and the lengths are as `multiply` in the module above checks them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn multiply(weights: &Block<'_>, x: &[i8], block_sums: &[i32], out: &mut [i32; 64]) {
    let (low, high) = (_mm512_set1_epi8(15), _mm512_set1_epi8(-16));
    let mut codes = weights.codes.as_ptr();
    let mut total = [_mm512_setzero_si512(); 4];
    for (group, x) in x.chunks(GROUP_COLS).enumerate() {
        let mut acc = [[_mm512_setzero_si512(); 2]; 4]; // [quad][low, high]
        for x in x.chunks_exact(8) {
            // SAFETY: `codes` has 256 bytes for every 8 of x. A prefetch never faults.
            unsafe {
                let x0 = _mm512_set1_epi32(x.as_ptr().cast::<i32>().read_unaligned());
                let x1 = _mm512_set1_epi32(x.as_ptr().add(4).cast::<i32>().read_unaligned());
                for quad in 0..4 {
                    _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(8192 + quad * 64).cast());
                    let w = _mm512_loadu_si512(codes.add(quad * 64).cast());
                    acc[quad][0] = _mm512_dpbusd_epi32(acc[quad][0], _mm512_and_si512(w, low), x0);
                    acc[quad][1] = _mm512_dpbusd_epi32(acc[quad][1], _mm512_and_si512(w, high), x1);
                }
                codes = codes.add(256);
            }
        }
        let sums: i32 = block_sums[group * 2..].iter().take(2).sum();
        let sums = _mm512_set1_epi32(8 * sums);
        for quad in 0..4 {
            let part = _mm512_add_epi32(acc[quad][0], _mm512_srai_epi32::<4>(acc[quad][1]));
            // SAFETY: each group has 64 multipliers.
            let multipliers =
                unsafe { _mm_loadu_si128(weights.multipliers.as_ptr().add(group * 64 + quad * 16).cast()) };
            let part = _mm512_mullo_epi32(_mm512_sub_epi32(part, sums), _mm512_cvtepu8_epi32(multipliers));
            total[quad] = _mm512_add_epi32(total[quad], part);
        }
    }
    for quad in 0..4 {
        // SAFETY: `out` holds 64 numbers.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(quad * 16).cast(), total[quad]) };
    }
}
