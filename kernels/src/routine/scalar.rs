//! Plain loops: what every other routine must equal bit for bit.

use super::{Output, Product, SCALE_BYTES};

/// # Safety
/// As `Routine::run`.
pub(super) unsafe fn ternary(product: &Product<'_>, out: Output) {
    let &Product { n_groups, x, stride, starts, row_scales, .. } = product;
    let group_len = stride / n_groups;
    for (superblock_idx, superblock) in product.superblocks.chunks_exact(product.superblock_len()).enumerate() {
        let rows = x.chunks_exact(stride).zip(starts.chunks_exact(n_groups)).zip(row_scales);
        for (row_idx, ((x, starts), row_scale)) in rows.enumerate() {
            for lane in 0..64 {
                let mut total = 0.0f32;
                let groups = superblock.chunks_exact(group_len * 16 + SCALE_BYTES).zip(x.chunks_exact(group_len));
                for ((group, x), starts) in groups.zip(starts) {
                    let (codes, scales) = group.split_at(group_len * 16);
                    let mut sum = starts[lane / 16];
                    for (col, x) in x.iter().enumerate() {
                        let code = codes[col / 4 * 64 + lane % 16 * 4 + col % 4] >> (lane / 16 * 2) & 3;
                        sum += i32::from(code) * i32::from(*x);
                    }
                    let scale = scales[lane * 4..].first_chunk().expect("64 scales of four bytes");
                    total += sum as f32 * f32::from_ne_bytes(*scale);
                }
                let value = total * row_scale;
                // SAFETY: the caller's promise; this superblock and row are among the product's.
                unsafe {
                    let y = out.start.add(row_idx * out.stride + superblock_idx * 64 + lane);
                    *y = if out.add { *y + value } else { value };
                }
            }
        }
    }
}

pub(super) fn dense(weights: &[i8], x: &[i8], out: &mut [i32; 64]) {
    out.fill(0);
    for (weights, x) in weights.chunks_exact(256).zip(x.chunks_exact(4)) {
        for (row, out) in out.iter_mut().enumerate() {
            for c in 0..4 {
                *out += i32::from(weights[row * 4 + c]) * i32::from(x[c]);
            }
        }
    }
}

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
