//! The reference loops, in portable Rust: every other routine must equal them bit for bit.

use super::POSITIONS;

pub(super) fn scores(keys: &[u8], queries: &[i8], out: &mut [[i32; POSITIONS]]) {
    let width = keys.len() / POSITIONS;
    for (out, query) in out.iter_mut().zip(queries.chunks_exact(width)) {
        *out = [out[0]; POSITIONS];
        for (keys, query) in keys.chunks_exact(POSITIONS * 4).zip(query.as_chunks::<4>().0) {
            for (out, key) in out.iter_mut().zip(keys.as_chunks::<4>().0) {
                for (key, query) in key.iter().zip(query) {
                    *out += i32::from(*key) * i32::from(*query);
                }
            }
        }
    }
}

pub(super) fn weighted(values: &[i8], weights: &[[u8; POSITIONS]], out: &mut [i32]) {
    let width = values.len() / POSITIONS;
    out.fill(0);
    for (out, weights) in out.chunks_exact_mut(width).zip(weights) {
        for (values, weights) in values.chunks_exact(width * 4).zip(weights.as_chunks::<4>().0) {
            for (out, value) in out.iter_mut().zip(values.as_chunks::<4>().0) {
                for (value, weight) in value.iter().zip(weights) {
                    *out += i32::from(*value) * i32::from(*weight);
                }
            }
        }
    }
}
