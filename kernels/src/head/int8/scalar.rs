//! The reference loop, in portable Rust.

pub(super) fn one_row(weights: &[i8], x: &[i8], out: &mut [i32; 64]) {
    out.fill(0);
    for (weights, x) in weights.chunks_exact(256).zip(x.chunks_exact(4)) {
        for (row, out) in out.iter_mut().enumerate() {
            for c in 0..4 {
                *out += i32::from(weights[row * 4 + c]) * i32::from(x[c]);
            }
        }
    }
}
