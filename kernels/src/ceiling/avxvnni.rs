//! AVX-VNNI: `vpdpbusd` on registers.

use std::arch::x86_64::*;

/// # Safety
/// The CPU has AVX2 and AVX-VNNI.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(super) unsafe fn multiply_registers(n_steps: usize) -> usize {
    let w = std::hint::black_box(_mm256_set1_epi8(3));
    let x = std::hint::black_box(_mm256_set1_epi8(5));
    let mut acc = [_mm256_setzero_si256(); 12];
    for _ in 0..n_steps {
        for acc in &mut acc {
            *acc = _mm256_dpbusd_avx_epi32(*acc, w, x);
        }
    }
    std::hint::black_box(acc);
    n_steps * 12 * 32 * 2
}
