//! AVX-512 VNNI: `vpdpbusd` on registers, and reading by whole registers.

use std::arch::x86_64::*;

use crate::isa::PREFETCH;

/// # Safety
/// The CPU has these features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn multiply_registers(n_steps: usize) -> usize {
    let w = std::hint::black_box(_mm512_set1_epi8(3));
    let x = std::hint::black_box(_mm512_set1_epi8(5));
    let mut acc = [_mm512_setzero_si512(); 16];
    for _ in 0..n_steps {
        for acc in &mut acc {
            *acc = _mm512_dpbusd_epi32(*acc, w, x);
        }
    }
    std::hint::black_box(acc);
    n_steps * 16 * 64 * 2
}

/// # Safety
/// The CPU has these features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn read(bytes: &[u8]) -> u64 {
    let mut acc = [_mm512_setzero_si512(); 4];
    for chunk in bytes.chunks_exact(256) {
        for (acc, line) in acc.iter_mut().zip(chunk.chunks_exact(64)) {
            // SAFETY: `line` is as long as the register. A prefetch never faults.
            *acc = unsafe {
                _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(PREFETCH).cast());
                _mm512_xor_si512(*acc, _mm512_loadu_si512(line.as_ptr().cast()))
            };
        }
    }
    let mut words = [0u64; 32];
    for (words, acc) in words.chunks_exact_mut(8).zip(acc) {
        // SAFETY: `words` is as long as the register.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), acc) };
    }
    words.iter().fold(0, |sum, word| sum ^ word)
}
