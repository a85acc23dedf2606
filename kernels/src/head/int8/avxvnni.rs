//! AVX-VNNI: `vpdpbusd` on 32-byte registers.

use std::arch::x86_64::*;

use crate::isa::PREFETCH;

/// As [`super::avx512::one_row`], with half the lanes.
///
/// # Safety
/// The CPU has AVX2 and AVX-VNNI, and the lengths are as `multiply` in the module above checks them.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(super) unsafe fn one_row(weights: &[i8], row_sums: &[i32], x: &[i8], out: &mut [i32; 64]) {
    let mut acc = [_mm256_setzero_si256(); 8]; // eight rows each
    for (step, x4) in x.chunks_exact(4).enumerate() {
        let x4 = i32::from_le_bytes([x4[0] as u8, x4[1] as u8, x4[2] as u8, x4[3] as u8]) ^ 0x8080_8080_u32 as i32;
        let x4 = _mm256_set1_epi32(x4);
        for octet in 0..8 {
            // SAFETY: `weights` has 256 bytes for every 4 of x. A prefetch never faults.
            let w = unsafe {
                let w = weights.as_ptr().add(step * 256 + octet * 32);
                if octet % 2 == 0 {
                    _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(PREFETCH).cast());
                }
                _mm256_loadu_si256(w.cast())
            };
            acc[octet] = _mm256_dpbusd_avx_epi32(acc[octet], x4, w);
        }
    }
    for octet in 0..8 {
        // SAFETY: both arrays hold 64 numbers.
        unsafe {
            let sums = _mm256_loadu_si256(row_sums.as_ptr().add(octet * 8).cast());
            let total = _mm256_sub_epi32(acc[octet], _mm256_slli_epi32::<7>(sums));
            _mm256_storeu_si256(out.as_mut_ptr().add(octet * 8).cast(), total);
        }
    }
}
