//! The reference loop, in portable Rust: every other routine must equal it bit for bit.

use super::{SCALE_BYTES, TernaryOperands};
use crate::output::Output;

/// # Safety
/// As `Routine::run`.
pub(super) unsafe fn ternary(operands: &TernaryOperands<'_>, out: Output) {
    let &TernaryOperands { n_groups, x, stride, initial_sums, row_scales, .. } = operands;
    let group_len = stride / n_groups;
    for (superblock_idx, superblock) in operands.superblocks.chunks_exact(operands.superblock_len()).enumerate() {
        let rows = x.chunks_exact(stride).zip(initial_sums.chunks_exact(n_groups)).zip(row_scales);
        for (row_idx, ((x, initial_sums), row_scale)) in rows.enumerate() {
            for lane in 0..64 {
                let mut total = 0.0f32;
                let groups = superblock.chunks_exact(group_len * 16 + SCALE_BYTES).zip(x.chunks_exact(group_len));
                for ((group, x), initial_sums) in groups.zip(initial_sums) {
                    let (codes, scales) = group.split_at(group_len * 16);
                    let mut sum = initial_sums[lane / 16];
                    for (col, x) in x.iter().enumerate() {
                        let code = codes[col / 4 * 64 + lane % 16 * 4 + col % 4] >> (lane / 16 * 2) & 3;
                        sum += i32::from(code) * i32::from(*x);
                    }
                    let scale = scales[lane * 4..].first_chunk().expect("64 scales of four bytes");
                    total += sum as f32 * f32::from_ne_bytes(*scale);
                }
                let value = total * row_scale;
                // SAFETY: the caller's promise; this superblock and row are among the operands'.
                unsafe {
                    let y = out.start.add(row_idx * out.stride + superblock_idx * 64 + lane);
                    *y = if out.add { *y + value } else { value };
                }
            }
        }
    }
}
