//! AVX2: `vpmaddubsw` on registers, and reading by whole registers.

use std::arch::x86_64::*;

use crate::isa::PREFETCH;

/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn multiply_registers(n_steps: usize) -> usize {
    let w = std::hint::black_box(_mm256_set1_epi8(3));
    let x = std::hint::black_box(_mm256_set1_epi8(5));
    let mut acc = [_mm256_setzero_si256(); 12];
    for _ in 0..n_steps {
        for (i, acc) in acc.iter_mut().enumerate() {
            // Another operand each time, or the compiler would multiply once.
            let pairs = _mm256_maddubs_epi16(if i % 2 == 0 { w } else { *acc }, x);
            *acc = _mm256_add_epi16(*acc, pairs);
        }
    }
    std::hint::black_box(acc);
    n_steps * 12 * 32 * 2
}

/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn read(bytes: &[u8]) -> u64 {
    let mut acc = [_mm256_setzero_si256(); 8];
    for chunk in bytes.chunks_exact(256) {
        for (acc, line) in acc.iter_mut().zip(chunk.chunks_exact(32)) {
            // SAFETY: `line` is as long as the register. A prefetch never faults.
            *acc = unsafe {
                _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(PREFETCH).cast());
                _mm256_xor_si256(*acc, _mm256_loadu_si256(line.as_ptr().cast()))
            };
        }
    }
    let mut words = [0u64; 32];
    for (words, acc) in words.chunks_exact_mut(4).zip(acc) {
        // SAFETY: `words` is as long as the register.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), acc) };
    }
    words.iter().fold(0, |sum, word| sum ^ word)
}
