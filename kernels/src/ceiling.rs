//! The peak rates of this machine, measured: the figures that products are compared with.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::time::Instant;

use crate::isa::{Isa, Level};
use crate::runtime::memory::AlignedBytes;
use crate::runtime::pool::Pool;

/// Multiplications and additions of the 8-bit multiply instruction of `isa` on registers only, in 10⁹ per second on
/// this thread. The best of several short runs, so that a burst of other load does not lower the ceiling.
pub fn int8_gops(isa: Isa) -> f64 {
    const N_STEPS: usize = 1 << 16;
    (0..24)
        .map(|_| {
            let start = Instant::now();
            let n_ops = multiply_registers(isa, N_STEPS);
            n_ops as f64 / start.elapsed().as_secs_f64() / 1e9
        })
        .fold(0.0, f64::max)
}

/// 10⁹ bytes per second that the threads of `pool` read together from memory that no cache holds, in large pages and
/// with software prefetch as the products read their weights. The best of windows of 16 MiB, several times over 256
/// MiB, which it allocates: a window is shorter than the time that a busy system takes a processor away for.
pub fn read_gb_per_s(pool: &Pool) -> f64 {
    const N_BYTES: usize = 256 << 20;
    const WINDOW: usize = 16 << 20;
    const PIECE: usize = 1 << 18;
    let mut bytes = AlignedBytes::for_weights(N_BYTES, 0);
    bytes.as_mut_slice().fill(1);
    let windows = || bytes.as_slice().chunks_exact(WINDOW);
    (0..6)
        .flat_map(|_| windows())
        .map(|window| {
            let start = Instant::now();
            pool.for_each(WINDOW / PIECE, |i| {
                std::hint::black_box(read(Isa::best(), &window[i * PIECE..][..PIECE]));
            });
            WINDOW as f64 / start.elapsed().as_secs_f64() / 1e9
        })
        .fold(0.0, f64::max)
}

/// Runs `n_steps` of the 8-bit multiply instruction on registers; returns its multiplications and additions.
fn multiply_registers(isa: Isa, n_steps: usize) -> usize {
    match isa.level() {
        Level::Scalar => scalar::multiply_registers(n_steps),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX2.
        Level::Avx2 => unsafe { avx2::multiply_registers(n_steps) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX2 and AVX-VNNI.
        Level::AvxVnni => unsafe { avxvnni::multiply_registers(n_steps) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX-512 with VNNI.
        Level::Avx512 => unsafe { avx512::multiply_registers(n_steps) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the level proves NEON and its dot product.
        Level::NeonDotprod => unsafe { neon::multiply_registers(n_steps) },
    }
}

/// Reads all bytes, a multiple of 256, and returns something that depends on each.
fn read(isa: Isa, bytes: &[u8]) -> u64 {
    assert!(bytes.len().is_multiple_of(256));
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX2; the length was checked above.
        Level::Avx2 | Level::AvxVnni => unsafe { avx2::read(bytes) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX-512; the length was checked above.
        Level::Avx512 => unsafe { avx512::read(bytes) },
        _ => scalar::read(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_positive_for_every_instruction_set() {
        for isa in Isa::available() {
            assert!(int8_gops(isa) > 0.0, "{}", isa.name());
        }
    }
}
