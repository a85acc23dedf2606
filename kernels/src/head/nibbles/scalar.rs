//! The reference loops, in portable Rust: every other routine must equal them bit for bit.

use super::{Block, GROUP_COLS};

pub(super) fn multiply(weights: &Block<'_>, x: &[i8], block_sums: &[i32], out: &mut [i32; 64]) {
    out.fill(0);
    let groups =
        x.chunks(GROUP_COLS).zip(weights.codes.chunks(GROUP_COLS * 32)).zip(block_sums.chunks(GROUP_COLS / 16));
    for (((x, codes), sums), multipliers) in groups.zip(weights.multipliers.chunks_exact(64)) {
        let mut part = [-8 * sums.iter().sum::<i32>(); 64];
        for (x, codes) in x.chunks_exact(8).zip(codes.chunks_exact(256)) {
            for (part, codes) in part.iter_mut().zip(codes.chunks_exact(4)) {
                for c in 0..4 {
                    *part += i32::from(codes[c] & 15) * i32::from(x[c]);
                    *part += i32::from(codes[c] >> 4) * i32::from(x[c + 4]);
                }
            }
        }
        for ((out, part), multiplier) in out.iter_mut().zip(part).zip(multipliers) {
            *out += part * i32::from(*multiplier);
        }
    }
}
