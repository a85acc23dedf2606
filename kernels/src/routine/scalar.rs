//! Plain loops: what every other routine must equal bit for bit.

use super::{Tile, TileInput};

pub(super) fn ternary(tile: &Tile<'_>, input: &TileInput<'_>, out: &mut [f32]) {
    let group_len = input.stride / tile.n_groups;
    let rows = input.values.chunks_exact(input.stride).zip(input.group_sums.chunks_exact(tile.n_groups));
    for ((x, sums), out) in rows.zip(out.chunks_exact_mut(64)) {
        for (row, out) in out.iter_mut().enumerate() {
            for group in 0..tile.n_groups {
                let mut sum = 0i32;
                for col in group * group_len..(group + 1) * group_len {
                    let byte = tile.codes[col / 16 * 256 + row / 16 * 64 + row % 16 * 4 + col % 4];
                    let code = byte >> (col % 16 / 4 * 2) & 3;
                    sum += i32::from(code) * i32::from(x[col]);
                }
                let part = (sum - sums[group]) as f32 * tile.scales[group * 64 + row];
                *out = if group == 0 { part } else { *out + part };
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
