//! AVX-512 VNNI: `vpdpbusd`, for one row or for six that share each load of the weights.

use std::arch::x86_64::*;

use super::Int8Operands;
use crate::isa::PREFETCH;
use crate::output::Output;

/// Rows of x at once: 6 × 4 accumulators leave 8 of the 32 registers for weights and x.
const MAX_ROWS: usize = 6;

/// The instruction takes one unsigned operand: x + 128 is unsigned, and 128 · Σw is subtracted at the end.
///
/// # Safety
/// The CPU has these features, and the lengths are as `multiply` in the module above checks them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn one_row(weights: &[i8], row_sums: &[i32], x: &[i8], out: &mut [i32; 64]) {
    let mut acc = [[_mm512_setzero_si512(); 2]; 4]; // [quad][even and odd steps]: eight chains hide the latency
    let mut w = weights.as_ptr();
    for (step, x4) in x.chunks_exact(4).enumerate() {
        let x4 = i32::from_le_bytes([x4[0] as u8, x4[1] as u8, x4[2] as u8, x4[3] as u8]) ^ 0x8080_8080_u32 as i32;
        let x4 = _mm512_set1_epi32(x4);
        for quad in 0..4 {
            // SAFETY: `weights` has 256 bytes for every 4 of x. A prefetch never faults.
            let w = unsafe {
                _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(PREFETCH + quad * 64).cast());
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

/// As [`one_row`], for several rows: 6 × 4 accumulators, and a load of weights for six rows. Scaled.
///
/// # Safety
/// As [`one_row`]; `out` may be written as it says for these rows and one superblock.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn several_rows(operands: &Int8Operands<'_>, out: Output) {
    let n_rows = operands.row_scales.len();
    let n_passes = n_rows.div_ceil(MAX_ROWS);
    for pass in 0..n_passes {
        let first = pass * n_rows / n_passes;
        // SAFETY: the caller's promise; these rows exist.
        unsafe {
            match (pass + 1) * n_rows / n_passes - first {
                1 => tile::<1>(operands, first, out),
                2 => tile::<2>(operands, first, out),
                3 => tile::<3>(operands, first, out),
                4 => tile::<4>(operands, first, out),
                5 => tile::<5>(operands, first, out),
                _ => tile::<6>(operands, first, out),
            }
        }
    }
}

/// # Safety
/// As [`several_rows`]; `first + N` rows exist.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn tile<const N: usize>(operands: &Int8Operands<'_>, first: usize, out: Output) {
    let stride = operands.stride;
    let bias = _mm512_set1_epi8(-128);
    // SAFETY: `weights` has 256 bytes for every 4 columns, and each row of x has `stride`; there are 64 sums and
    // scales, and for each row a scale and 64 places in `out`.
    unsafe {
        let starts: [__m512i; 4] = std::array::from_fn(|quad| {
            let sums = _mm512_loadu_si512(operands.row_sums.as_ptr().add(quad * 16).cast());
            _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32::<7>(sums))
        });
        let mut acc = [starts; N]; // [row][quad]
        let (mut w, mut x) = (operands.weights.as_ptr(), operands.x.as_ptr().add(first * stride));
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
            let row_scale = _mm512_set1_ps(*operands.row_scales.get_unchecked(first + row));
            let y = out.start.add((first + row) * out.stride);
            for quad in 0..4 {
                let scale = _mm512_loadu_ps(operands.scales.as_ptr().add(quad * 16));
                let value = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[row][quad]), scale);
                _mm512_storeu_ps(y.add(quad * 16), _mm512_mul_ps(value, row_scale));
            }
        }
    }
}
