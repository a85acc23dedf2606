//! AVX-512 VNNI: `vpdpbusd` takes keys and weights as the unsigned operand.
//!
//! Numeric hazard: none. A sum is at most 255 · 127 · 64 positions, or 255 · 127 · head_dim, far below 2³¹.

use std::arch::x86_64::*;

use super::POSITIONS;

/// # Safety
/// The CPU has these features, and the lengths are as `Dots::scores` checks them for `R` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn scores<const R: usize>(keys: &[u8], queries: &[i8], out: &mut [[i32; POSITIONS]]) {
    let width = keys.len() / POSITIONS;
    let mut acc = [[_mm512_setzero_si512(); 4]; R]; // [row][sixteen positions]
    for row in 0..R {
        acc[row] = [_mm512_set1_epi32(out[row][0]); 4];
    }
    for step in 0..width / 4 {
        // SAFETY: `keys` has 256 bytes and each query 4 for every step.
        unsafe {
            let mut k = [_mm512_setzero_si512(); 4];
            for part in 0..4 {
                k[part] = _mm512_loadu_si512(keys.as_ptr().add(step * 256 + part * 64).cast());
            }
            for row in 0..R {
                let q = queries.as_ptr().add(row * width + step * 4).cast::<i32>().read_unaligned();
                let q = _mm512_set1_epi32(q);
                for part in 0..4 {
                    acc[row][part] = _mm512_dpbusd_epi32(acc[row][part], k[part], q);
                }
            }
        }
    }
    for row in 0..R {
        for part in 0..4 {
            // SAFETY: a row of `out` holds 64 numbers.
            unsafe { _mm512_storeu_si512(out[row].as_mut_ptr().add(part * 16).cast(), acc[row][part]) };
        }
    }
}

/// # Safety
/// The CPU has these features, and the lengths are as `Dots::weighted` checks them for `R` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn weighted<const R: usize>(values: &[i8], weights: &[[u8; POSITIONS]], out: &mut [i32]) {
    let width = values.len() / POSITIONS;
    let mut from = 0;
    // SAFETY: the caller's promise; `from` and what is taken from there on stay within `width`.
    unsafe {
        while from + 64 <= width {
            features::<R, 4>(values, weights, from, out);
            from += 64;
        }
        while from < width {
            features::<R, 1>(values, weights, from, out);
            from += 16;
        }
    }
}

/// `16 · N` features from `from`.
///
/// # Safety
/// As [`weighted`]; `from + 16 · N` does not exceed the width.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn features<const R: usize, const N: usize>(
    values: &[i8],
    weights: &[[u8; POSITIONS]],
    from: usize,
    out: &mut [i32],
) {
    let width = values.len() / POSITIONS;
    let mut acc = [[_mm512_setzero_si512(); N]; R];
    for step in 0..POSITIONS / 4 {
        // SAFETY: `values` has `4 · width` bytes and each row of weights 4 for every step.
        unsafe {
            let mut v = [_mm512_setzero_si512(); N];
            for part in 0..N {
                v[part] = _mm512_loadu_si512(values.as_ptr().add((step * width + from + part * 16) * 4).cast());
            }
            for row in 0..R {
                let w = weights[row].as_ptr().add(step * 4).cast::<i32>().read_unaligned();
                let w = _mm512_set1_epi32(w);
                for part in 0..N {
                    acc[row][part] = _mm512_dpbusd_epi32(acc[row][part], w, v[part]);
                }
            }
        }
    }
    for row in 0..R {
        for part in 0..N {
            // SAFETY: a row of `out` holds `width` numbers.
            unsafe {
                _mm512_storeu_si512(out.as_mut_ptr().add(row * width + from + part * 16).cast(), acc[row][part]);
            }
        }
    }
}
