//! AVX-512 VNNI: one `vpdpbusd` multiplies 16 rows × 4 columns.
//!
//! ```text
//! for k-block, for quad:  w = 64 bytes
//!     for plane p:  acc += dot4(w >> 2p & 3, broadcast x[4p..4p+4])
//! out = (acc − Σx) · scale                                the codes are trit + 1, so Σx is taken off once
//! ```
//!
//! Deviations: for a single row the planes are masked but not shifted (`w & 3 << 2p`), each into an accumulator of its
//! own that comes out 4^p too large and is shifted once at the end: one operation instead of two per 64 bytes and plane.
//! For several rows the shift is shared by all of them, and the accumulators are needed for rows.
//!
//! Numeric hazard: none. A plane's accumulator is at most 128 · 127 · 4 per k-block, 2^31 after 33,000 of them; a
//! row has at most 2,048.

use std::arch::x86_64::*;

use super::{Tile, TileInput};

/// # Safety
/// The CPU has these features, and the lengths are as `Routine::run` checks them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn ternary(tile: &Tile<'_>, input: &TileInput<'_>, out: &mut [f32]) {
    // SAFETY: the caller's promise is theirs.
    unsafe {
        match out.len() / 64 {
            1 => one(tile, input, out),
            2 => several::<2>(tile, input, out),
            3 => several::<3>(tile, input, out),
            4 => several::<4>(tile, input, out),
            5 => several::<5>(tile, input, out),
            _ => several::<6>(tile, input, out),
        }
    }
}

/// # Safety
/// As [`ternary`], for one row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn one(tile: &Tile<'_>, input: &TileInput<'_>, out: &mut [f32]) {
    let blocks_per_group = input.stride / 16 / tile.n_groups;
    let masks = [_mm512_set1_epi8(3), _mm512_set1_epi8(12), _mm512_set1_epi8(48), _mm512_set1_epi8(-64)];
    let mut codes = tile.codes.as_ptr();
    let mut x = input.values.as_ptr();
    for group in 0..tile.n_groups {
        let mut acc = [[_mm512_setzero_si512(); 4]; 4]; // [quad][plane]
        for _ in 0..blocks_per_group {
            // SAFETY: `codes` has 256 bytes and `x` 16 for each of `n_groups · blocks_per_group` k-blocks. A prefetch
            // never faults.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(8192).cast());
                let mut x4 = [_mm512_setzero_si512(); 4];
                for plane in 0..4 {
                    x4[plane] = _mm512_set1_epi32(x.add(4 * plane).cast::<i32>().read_unaligned());
                }
                for quad in 0..4 {
                    let w = _mm512_loadu_si512(codes.add(quad * 64).cast());
                    for plane in 0..4 {
                        acc[quad][plane] =
                            _mm512_dpbusd_epi32(acc[quad][plane], _mm512_and_si512(w, masks[plane]), x4[plane]);
                    }
                }
                codes = codes.add(256);
                x = x.add(16);
            }
        }
        let sum = _mm512_set1_epi32(input.group_sums[group]);
        for quad in 0..4 {
            let [a, b, c, d] = acc[quad];
            let low = _mm512_add_epi32(a, _mm512_srai_epi32::<2>(b));
            let high = _mm512_add_epi32(_mm512_srai_epi32::<4>(c), _mm512_srai_epi32::<6>(d));
            let total = _mm512_sub_epi32(_mm512_add_epi32(low, high), sum);
            // SAFETY: `scales` and `out` hold 64 numbers for this group and row.
            unsafe {
                apply(total, tile.scales.as_ptr().add(group * 64 + quad * 16), out.as_mut_ptr().add(quad * 16), group)
            };
        }
    }
}

/// # Safety
/// As [`ternary`], for `N` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn several<const N: usize>(tile: &Tile<'_>, input: &TileInput<'_>, out: &mut [f32]) {
    let blocks_per_group = input.stride / 16 / tile.n_groups;
    let mask = _mm512_set1_epi8(3);
    let mut codes = tile.codes.as_ptr();
    let mut x = input.values.as_ptr();
    for group in 0..tile.n_groups {
        let mut acc = [[_mm512_setzero_si512(); 4]; N]; // [row][quad]
        for _ in 0..blocks_per_group {
            macro_rules! plane {
                ($plane:literal) => {
                    // SAFETY: `codes` has 256 bytes for each k-block, and each of the N rows, `stride` apart, 16.
                    unsafe {
                        let mut x4 = [_mm512_setzero_si512(); N];
                        for row in 0..N {
                            let x = x.add(row * input.stride + 4 * $plane);
                            x4[row] = _mm512_set1_epi32(x.cast::<i32>().read_unaligned());
                        }
                        for quad in 0..4 {
                            let w = _mm512_loadu_si512(codes.add(quad * 64).cast());
                            let w = _mm512_and_si512(_mm512_srli_epi16::<{ 2 * $plane }>(w), mask);
                            for row in 0..N {
                                acc[row][quad] = _mm512_dpbusd_epi32(acc[row][quad], w, x4[row]);
                            }
                        }
                    }
                };
            }
            plane!(0);
            plane!(1);
            plane!(2);
            plane!(3);
            // SAFETY: both stay within, or one past, their slices.
            unsafe {
                codes = codes.add(256);
                x = x.add(16);
            }
        }
        for row in 0..N {
            let sum = _mm512_set1_epi32(input.group_sums[row * tile.n_groups + group]);
            for quad in 0..4 {
                let total = _mm512_sub_epi32(acc[row][quad], sum);
                // SAFETY: `scales` holds 64 numbers for this group, `out` 64 for this row.
                unsafe {
                    let scales = tile.scales.as_ptr().add(group * 64 + quad * 16);
                    apply(total, scales, out.as_mut_ptr().add(row * 64 + quad * 16), group);
                }
            }
        }
    }
}

/// out = sum · scale for the first group; later groups are added. Multiply, then add, as the scalar routine does.
///
/// # Safety
/// `scales` and `out` point to 16 numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn apply(sum: __m512i, scales: *const f32, out: *mut f32, group: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let part = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(scales));
        let value = if group == 0 { part } else { _mm512_add_ps(_mm512_loadu_ps(out), part) };
        _mm512_storeu_ps(out, value);
    }
}

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
