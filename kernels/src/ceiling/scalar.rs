//! Portable Rust, for CPUs without routines of their own.

pub(super) fn multiply_registers(n_steps: usize) -> usize {
    let mut acc = std::hint::black_box([1i32; 8]);
    let w = std::hint::black_box([3i32; 8]);
    for step in 0..n_steps as i32 {
        for lane in 0..8 {
            acc[lane] = acc[lane].wrapping_add(w[lane].wrapping_mul(step ^ lane as i32));
        }
    }
    std::hint::black_box(acc);
    n_steps * 8 * 2
}

pub(super) fn read(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks();
    words.iter().fold(0, |sum, word| sum ^ u64::from_ne_bytes(*word))
}
