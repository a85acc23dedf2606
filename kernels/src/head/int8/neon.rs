//! NEON with dot product: `sdot`.

use std::arch::aarch64::*;

use crate::isa::dot4;

/// `sdot` takes both operands signed, as they are.
///
/// # Safety
/// The CPU has NEON and its dot product, and the lengths are as `multiply` in the module above checks them.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn one_row(weights: &[i8], x: &[i8], out: &mut [i32; 64]) {
    let mut acc = [vdupq_n_s32(0); 16]; // four rows each
    for (weights, x4) in weights.chunks_exact(256).zip(x.chunks_exact(4)) {
        let x4 = i32::from_le_bytes([x4[0] as u8, x4[1] as u8, x4[2] as u8, x4[3] as u8]);
        let x4 = vreinterpretq_s8_s32(vdupq_n_s32(x4));
        for (acc, weights) in acc.iter_mut().zip(weights.chunks_exact(16)) {
            // SAFETY: `weights` is 16 bytes long.
            let w = unsafe { vld1q_s8(weights.as_ptr()) };
            *acc = dot4!(*acc, w, x4, 0);
        }
    }
    for (acc, out) in acc.into_iter().zip(out.chunks_exact_mut(4)) {
        // SAFETY: `out` is four numbers long.
        unsafe { vst1q_s32(out.as_mut_ptr(), acc) };
    }
}
