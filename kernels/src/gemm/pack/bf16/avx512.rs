//! Conversion to bf16 by AVX512-BF16.

use std::arch::x86_64::*;

use super::*;

/// Conversion by `vcvtne2ps2bf16`.
struct Native;

/// The order that interleaves the halves of two rows.
static INTERLEAVED: [u16; WIDTH] = {
    let mut order = [0; WIDTH];
    let mut i = 0;
    while i < WIDTH {
        order[i] = (i / 2 + i % 2 * LANES) as u16;
        i += 1;
    }
    order
};

impl ToBf16 for Native {
    #[inline(always)]
    fn line(values: &[f32; WIDTH]) -> Bf16Line {
        // SAFETY: named only in functions that have AVX512-BF16; each load is of half of `values`.
        unsafe {
            let [low, high] = [0, LANES].map(|start| _mm512_loadu_ps(values.as_ptr().add(start)));
            std::mem::transmute(_mm512_cvtne2ps_pbh(high, low))
        }
    }

    #[inline(always)]
    fn pairs(low: &[f32; LANES], high: &[f32; LANES]) -> Bf16Line {
        // SAFETY: as above, and with AVX512-BW; the loads are of 64 bytes each.
        unsafe {
            let [low, high] = [low, high].map(|row| _mm512_loadu_ps(row.as_ptr()));
            let halves: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
            let order = _mm512_loadu_si512((&raw const INTERLEAVED).cast());
            std::mem::transmute(_mm512_permutexvar_epi16(order, halves))
        }
    }

    #[inline(always)]
    fn prefetch(rows: Strided<'_>, first_row: usize, first: usize) {
        for row in first_row..rows.n_rows.min(first_row + WIDTH) {
            let at = rows.values.as_ptr().wrapping_add(row * rows.stride + first);
            // SAFETY: nothing is read; any address will do.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
        }
    }

    /// Written out, since the compiler moves the numbers one by one through the stack.
    #[inline(always)]
    fn transpose(lines: &mut [Bf16Line; LANES]) {
        // SAFETY: as above; a line is 64 bytes on a boundary of 64, and so many indices are.
        unsafe {
            let at = lines.as_mut_ptr().cast::<__m512i>();
            let mut rows: [__m512i; LANES] = std::array::from_fn(
                #[inline(always)]
                |row| _mm512_load_si512(at.add(row)),
            );
            for (stage, from) in EXCHANGED.iter().enumerate() {
                let [first, second] = [0, 1].map(
                    #[inline(always)]
                    |i| _mm512_loadu_si512(from[i].as_ptr().cast()),
                );
                for row in 0..LANES {
                    if row & (1 << stage) == 0 {
                        let (a, b) = (rows[row], rows[row + (1 << stage)]);
                        rows[row] = _mm512_permutex2var_epi32(a, first, b);
                        rows[row + (1 << stage)] = _mm512_permutex2var_epi32(a, second, b);
                    }
                }
            }
            for row in 0..LANES {
                _mm512_store_si512(at.add(row), rows[row]);
            }
        }
    }
}

/// The lanes that two lines `step` apart exchange: the first line takes the first run of each pair of runs, the second
/// the last one.
const fn exchanged(step: usize) -> [[u32; LANES]; 2] {
    let mut from = [[0; LANES]; 2];
    let mut lane = 0;
    while lane < LANES {
        // Lanes of the second line count from 16 on.
        let is_first = lane & step == 0;
        from[0][lane] = if is_first { lane } else { LANES + lane - step } as u32;
        from[1][lane] = if is_first { lane + step } else { LANES + lane } as u32;
        lane += 1;
    }
    from
}

static EXCHANGED: [[[u32; LANES]; 2]; 4] = [exchanged(1), exchanged(2), exchanged(4), exchanged(8)];

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn lines(rows: Strided<'_>, out: &mut [Bf16Line]) {
    rows.lines::<Native>(out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn columns(rows: Strided<'_>, out: &mut [Bf16Line]) {
    rows.columns::<Native>(out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn panels(rows: Strided<'_>, out: &mut [Bf16Line]) {
    rows.panels::<Native>(out);
}
