//! NEON: `sdot` on registers.

use std::arch::aarch64::*;

use crate::isa::dot4;

/// # Safety
/// The CPU has NEON and its dot product.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn multiply_registers(n_steps: usize) -> usize {
    let w = std::hint::black_box(vdupq_n_s8(3));
    let x = std::hint::black_box(vdupq_n_s8(5));
    let mut acc = [vdupq_n_s32(0); 16];
    for _ in 0..n_steps {
        for acc in &mut acc {
            *acc = dot4!(*acc, w, x, 0);
        }
    }
    std::hint::black_box(acc);
    n_steps * 16 * 16 * 2
}
