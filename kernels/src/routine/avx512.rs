//! AVX-512 VNNI: one `vpdpbusd` multiplies 16 rows × 4 columns.
//!
//! ```text
//! T0 = −Σx, T1 = −5 Σx, T2 = −21 Σx, T3 = −85 Σx                the codes are trit + 1: Σx is taken off in advance
//! for step (4 columns):  w = 64 bytes: four planes of 16 rows each, two bits a plane
//!     T0 += dot4(w & 3, x4)   T1 += dot4(w & 15, x4)   T2 += dot4(w & 63, x4)   T3 += dot4(w, x4)
//! sums of the planes:  T0,  T1 − T0,  T2 − T1,  T3 − T2          1, 4, 16 and 64 times what they stand for,
//! y = sum · scale                                                 and the scales as much smaller
//! ```
//!
//! Nested masks need three operations for four planes, and no shift; each T is the sum of the planes up to it, weighted
//! by 4^p. One broadcast of x serves all 64 rows.
//!
//! Numeric hazard: none up to the columns that `Prepared::new` allows. The Ts wrap, but their differences do not exceed
//! 64 · 127 a column: 2^31 after 264,208 columns.

use std::arch::x86_64::*;

use super::{Dense, Output, Product, SCALE_BYTES};

/// Input rows at once: 6 × 4 accumulators leave 8 of the 32 registers for masks, codes and x.
const MAX_ROWS: usize = 6;

/// What the Ts start at for Σx = −1.
pub(super) const STARTS: [i32; 4] = [1, 5, 21, 85];
/// What the sums of the planes count by.
pub(super) const UNITS: [i32; 4] = [1, 4, 16, 64];

/// # Safety
/// The CPU has these features, and the rest is as `Routine::run` checks it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn ternary(product: &Product<'_>, out: Output) {
    let n_rows = product.n_rows();
    let n_passes = n_rows.div_ceil(MAX_ROWS);
    for superblock in 0..product.n_superblocks() {
        for pass in 0..n_passes {
            // Passes of nearly the same size: 7 rows are 4 + 3, not 6 + 1.
            let first = pass * n_rows / n_passes;
            let end = (pass + 1) * n_rows / n_passes;
            // SAFETY: the caller's promise; these rows and this superblock exist.
            unsafe {
                match end - first {
                    1 => tile::<1, 4>(product, superblock, first, out),
                    2 => tile::<2, 2>(product, superblock, first, out),
                    3 => tile::<3, 1>(product, superblock, first, out),
                    4 => tile::<4, 1>(product, superblock, first, out),
                    5 => tile::<5, 1>(product, superblock, first, out),
                    _ => tile::<6, 1>(product, superblock, first, out),
                }
            }
        }
    }
}

/// `N` rows of x from `first` times one superblock, with `U` steps in flight.
///
/// # Safety
/// As [`ternary`]; `first + N` rows and the superblock exist, and U divides 4.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn tile<const N: usize, const U: usize>(product: &Product<'_>, superblock: usize, first: usize, out: Output) {
    let &Product { n_groups, stride, .. } = product;
    let steps_per_group = stride / 4 / n_groups;
    let masks = [_mm512_set1_epi8(3), _mm512_set1_epi8(15), _mm512_set1_epi8(63)];
    // SAFETY: the superblock and the rows exist.
    let (mut codes, mut x) = unsafe {
        (
            product.superblocks.as_ptr().add(superblock * product.superblock_len()),
            product.x.as_ptr().add(first * stride),
        )
    };
    let mut total = [[_mm512_setzero_ps(); 4]; N]; // [row][plane]
    for group in 0..n_groups {
        let mut acc = [[[_mm512_setzero_si512(); 4]; N]; U]; // [step][row][plane]
        for row in 0..N {
            // SAFETY: this row has starts for this group.
            let starts = unsafe { product.starts.get_unchecked((first + row) * n_groups + group) };
            acc[0][row] = starts.map(|start| _mm512_set1_epi32(start));
        }
        for _ in 0..steps_per_group / U {
            for u in 0..U {
                // SAFETY: the superblock has 64 bytes for each step of each group, each row of x 4. A prefetch never
                // faults.
                unsafe {
                    if N == 1 {
                        _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(PREFETCH + u * 64).cast());
                    }
                    let w = _mm512_loadu_si512(codes.add(u * 64).cast());
                    let nested = [
                        _mm512_and_si512(w, masks[0]),
                        _mm512_and_si512(w, masks[1]),
                        _mm512_and_si512(w, masks[2]),
                        w,
                    ];
                    for row in 0..N {
                        let x4 = _mm512_set1_epi32(x.add(row * stride + u * 4).cast::<i32>().read_unaligned());
                        for plane in 0..4 {
                            acc[u][row][plane] = _mm512_dpbusd_epi32(acc[u][row][plane], nested[plane], x4);
                        }
                    }
                }
            }
            // SAFETY: both stay within, or one past, their slices.
            unsafe {
                codes = codes.add(U * 64);
                x = x.add(U * 4);
            }
        }
        // The scales stand behind the codes.
        let scales = codes.cast::<f32>();
        if N == 1 {
            for line in 0..4 {
                _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(PREFETCH + line * 64).cast());
            }
        }
        for row in 0..N {
            let mut t = acc[0][row];
            for u in 1..U {
                for plane in 0..4 {
                    t[plane] = _mm512_add_epi32(t[plane], acc[u][row][plane]);
                }
            }
            let sums = [t[0], _mm512_sub_epi32(t[1], t[0]), _mm512_sub_epi32(t[2], t[1]), _mm512_sub_epi32(t[3], t[2])];
            for plane in 0..4 {
                // SAFETY: the group has 64 scales.
                let scale = unsafe { _mm512_loadu_ps(scales.add(plane * 16)) };
                let part = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[plane]), scale);
                total[row][plane] = _mm512_add_ps(total[row][plane], part);
            }
        }
        // SAFETY: stays within, or one past, the slice.
        codes = unsafe { codes.add(SCALE_BYTES) };
    }
    for row in 0..N {
        // SAFETY: this row has a scale, and `out` 64 places for this row and superblock.
        unsafe {
            let row_scale = _mm512_set1_ps(*product.row_scales.get_unchecked(first + row));
            let y = out.start.add((first + row) * out.stride + superblock * 64);
            for plane in 0..4 {
                let y = y.add(plane * 16);
                let mut value = _mm512_mul_ps(total[row][plane], row_scale);
                if out.add {
                    value = _mm512_add_ps(_mm512_loadu_ps(y), value);
                }
                _mm512_storeu_ps(y, value);
            }
        }
    }
}

/// # Safety
/// The CPU has these features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn multiply_registers(n_steps: usize) -> usize {
    let w = std::hint::black_box(_mm512_set1_epi8(3));
    let x = std::hint::black_box(_mm512_set1_epi8(5));
    let mut acc = [_mm512_setzero_si512(); 16];
    for _ in 0..n_steps {
        for acc in &mut acc {
            *acc = _mm512_dpbusd_epi32(*acc, w, x);
        }
    }
    std::hint::black_box(acc);
    n_steps * 16 * 64 * 2
}

/// # Safety
/// The CPU has these features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn read(bytes: &[u8]) -> u64 {
    let mut acc = [_mm512_setzero_si512(); 4];
    for chunk in bytes.chunks_exact(256) {
        for (acc, line) in acc.iter_mut().zip(chunk.chunks_exact(64)) {
            // SAFETY: `line` is as long as the register. A prefetch never faults.
            *acc = unsafe {
                _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(PREFETCH).cast());
                _mm512_xor_si512(*acc, _mm512_loadu_si512(line.as_ptr().cast()))
            };
        }
    }
    let mut words = [0u64; 32];
    for (words, acc) in words.chunks_exact_mut(8).zip(acc) {
        // SAFETY: `words` is as long as the register.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), acc) };
    }
    words.iter().fold(0, |sum, word| sum ^ word)
}

/// Bytes ahead of the codes in use.
const PREFETCH: usize = 8192;

/// The instruction wants one unsigned side: x + 128 is, and 128 · Σw is taken off at the end.
///
/// # Safety
/// The CPU has these features, and the lengths are as `dense` in the module above checks them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn dense(weights: &[i8], row_sums: &[i32], x: &[i8], out: &mut [i32; 64]) {
    let mut acc = [[_mm512_setzero_si512(); 2]; 4]; // [quad][even and odd steps]: eight chains hide the latency
    let mut w = weights.as_ptr();
    for (step, x4) in x.chunks_exact(4).enumerate() {
        let x4 = i32::from_le_bytes([x4[0] as u8, x4[1] as u8, x4[2] as u8, x4[3] as u8]) ^ 0x8080_8080_u32 as i32;
        let x4 = _mm512_set1_epi32(x4);
        for quad in 0..4 {
            // SAFETY: `weights` has 256 bytes for every 4 of x. A prefetch never faults.
            let w = unsafe {
                _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(8192 + quad * 64).cast());
                _mm512_loadu_si512(w.add(quad * 64).cast())
            };
            acc[quad][step % 2] = _mm512_dpbusd_epi32(acc[quad][step % 2], x4, w);
        }
        // SAFETY: stays within, or one past, the slice.
        w = unsafe { w.add(256) };
    }
    for quad in 0..4 {
        let [even, odd] = acc[quad];
        // SAFETY: both arrays hold 64 numbers.
        unsafe {
            let sums = _mm512_loadu_si512(row_sums.as_ptr().add(quad * 16).cast());
            let total = _mm512_sub_epi32(_mm512_add_epi32(even, odd), _mm512_slli_epi32::<7>(sums));
            _mm512_storeu_si512(out.as_mut_ptr().add(quad * 16).cast(), total);
        }
    }
}

/// As [`dense`], for several rows: 6 × 4 accumulators, and a load of weights for six rows. Scaled.
///
/// # Safety
/// As [`dense`]; `out` may be written as it says for these rows and one superblock.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn dense_rows(product: &Dense<'_>, out: Output) {
    let n_rows = product.row_scales.len();
    let n_passes = n_rows.div_ceil(MAX_ROWS);
    for pass in 0..n_passes {
        let first = pass * n_rows / n_passes;
        // SAFETY: the caller's promise; these rows exist.
        unsafe {
            match (pass + 1) * n_rows / n_passes - first {
                1 => dense_tile::<1>(product, first, out),
                2 => dense_tile::<2>(product, first, out),
                3 => dense_tile::<3>(product, first, out),
                4 => dense_tile::<4>(product, first, out),
                5 => dense_tile::<5>(product, first, out),
                _ => dense_tile::<6>(product, first, out),
            }
        }
    }
}

/// # Safety
/// As [`dense_rows`]; `first + N` rows exist.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn dense_tile<const N: usize>(product: &Dense<'_>, first: usize, out: Output) {
    let stride = product.stride;
    let bias = _mm512_set1_epi8(-128);
    // SAFETY: `weights` has 256 bytes for every 4 columns, and each row of x has `stride`; there are 64 sums and scales,
    // and for each row a scale and 64 places in `out`.
    unsafe {
        let starts: [__m512i; 4] = std::array::from_fn(|quad| {
            let sums = _mm512_loadu_si512(product.row_sums.as_ptr().add(quad * 16).cast());
            _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32::<7>(sums))
        });
        let mut acc = [starts; N]; // [row][quad]
        let (mut w, mut x) = (product.weights.as_ptr(), product.x.as_ptr().add(first * stride));
        for _ in 0..stride / 4 {
            let quads: [__m512i; 4] = std::array::from_fn(|quad| _mm512_loadu_si512(w.add(quad * 64).cast()));
            for row in 0..N {
                let x4 = _mm512_set1_epi32(x.add(row * stride).cast::<i32>().read_unaligned());
                let x4 = _mm512_xor_si512(x4, bias);
                for quad in 0..4 {
                    acc[row][quad] = _mm512_dpbusd_epi32(acc[row][quad], x4, quads[quad]);
                }
            }
            (w, x) = (w.add(256), x.add(4));
        }
        for row in 0..N {
            let row_scale = _mm512_set1_ps(*product.row_scales.get_unchecked(first + row));
            let y = out.start.add((first + row) * out.stride);
            for quad in 0..4 {
                let scale = _mm512_loadu_ps(product.scales.as_ptr().add(quad * 16));
                let value = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[row][quad]), scale);
                _mm512_storeu_ps(y.add(quad * 16), _mm512_mul_ps(value, row_scale));
            }
        }
    }
}
