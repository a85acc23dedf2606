//! AVX512-BF16: tiles of 12 rows and two panels.

use std::arch::x86_64::*;

use crate::gemm::block::Block;
use crate::gemm::pack::bf16::Bf16Line;
use crate::lanes::LANES;
use crate::output::Write;

/// Rows of a tile: with two panels, 24 of the 32 registers.
const ROWS: usize = 12;

#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn tiles(a: &[Bf16Line], block: &Block<'_>, out: &mut [f32]) {
    for first in block.n.clone().step_by(2 * LANES) {
        let low = block.lines(first);
        // A missing panel is replaced by its neighbour: those sums are not written.
        let high = if first + LANES < block.n.end { block.lines(first + LANES) } else { low };
        for row in (0..block.m).step_by(ROWS) {
            tile(a, row, [low, high], block, first, out);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn tile(a: &[Bf16Line], first_row: usize, panels: [&[Bf16Line]; 2], block: &Block<'_>, first: usize, out: &mut [f32]) {
    let n_lines = block.n_lines();
    // The left side is padded to tiles of another height: the last one starts earlier and writes its last rows only.
    let start = first_row.min(a.len() / n_lines - ROWS);
    if matches!(block.write, Write::Add) {
        // The output to add to is far away in memory, and needed at once when the sums are ready.
        for r in 0..ROWS.min(block.m - first_row) {
            let at = out.as_ptr().wrapping_add((first_row + r) * block.stride + first - block.n.start);
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(LANES).cast());
        }
    }
    let sums = &sums(&a[start * n_lines..][..ROWS * n_lines], panels.map(|panel| &panel[..n_lines * LANES]))
        [first_row - start..];
    for r in 0..sums.len().min(block.m - first_row) {
        let out = &mut out[(first_row + r) * block.stride + first - block.n.start..];
        for p in 0..2 {
            let start = p * LANES;
            let width = LANES.min((block.n.end - first).saturating_sub(start));
            if width == 0 {
                break;
            }
            let mask = ((1u32 << width) - 1) as __mmask16;
            let out = &mut out[start..][..width];
            // SAFETY: the mask lets through what `out` holds.
            unsafe {
                let sum = match block.write {
                    Write::Store => sums[r][p],
                    Write::Add => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out.as_ptr()), sums[r][p]),
                };
                _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, sum);
            }
        }
    }
}

/// The sums of consecutive rows, each with as many pairs as a panel has lines.
///
/// By incremented pointers: with a check or an address of its own for each row, the compiler spills the sums, and a
/// Zen 4 reaches half the speed.
#[target_feature(enable = "avx512f,avx512bf16")]
fn sums(rows: &[Bf16Line], panels: [&[Bf16Line]; 2]) -> [[__m512; 2]; ROWS] {
    let n_pairs = panels[0].len();
    assert_eq!((panels[1].len(), rows.len() * LANES), (n_pairs, ROWS * n_pairs));
    let row_bytes = 4 * n_pairs;
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    // SAFETY: `at` stays within the pairs of a panel, and with it within those of a row, 4 bytes each; all lines are
    // on boundaries of 64 bytes.
    unsafe {
        let fours: [*const u8; ROWS / 4] = std::array::from_fn(|i| rows.as_ptr().cast::<u8>().add(4 * i * row_bytes));
        for at in 0..n_pairs {
            let b = panels.map(|panel| half(_mm512_load_si512(panel.as_ptr().add(at).cast())));
            for r in 0..ROWS {
                let pair = fours[r / 4].add(r % 4 * row_bytes + 4 * at).cast::<i32>();
                let a = half(_mm512_set1_epi32(pair.read()));
                for p in 0..2 {
                    sums[r][p] = _mm512_dpbf16_ps(sums[r][p], a, b[p]);
                }
            }
        }
    }
    sums
}

/// # Safety
/// None: both are 64 bytes without a meaning of their own.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn half(bits: __m512i) -> __m512bh {
    // SAFETY: see above.
    unsafe { std::mem::transmute(bits) }
}
