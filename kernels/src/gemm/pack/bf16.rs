//! Numbers rounded to bf16, in lines of 64 bytes: pairs of k next to each other, as the instructions take them.
//!
//! ```text
//! left   [rows][k/32 lines]: a line is 32 k of a row       right  [panel][k/2 lines]: a line is 2 k of 16 columns
//! ```

#[cfg(target_arch = "x86_64")]
mod avx512;

use std::ops::Range;

use super::{Panels, blocks};
use crate::gemm::unit::Unit;
use crate::isa::{Isa, compiled_per_isa};
use crate::lanes::LANES;

/// Columns of the left side at a time: with 32 columns of the right one, half of a 32 KB L1.
pub(in crate::gemm) const K_BLOCK: usize = 256;
/// bf16 numbers in a line.
pub(in crate::gemm) const WIDTH: usize = 32;
/// Rows of a left side are padded to a multiple of this.
pub(in crate::gemm) const TILE_ROWS: usize = 2 * LANES;

/// 32 bf16 in pairs: the low half of each word comes first.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::gemm) struct Bf16Line(pub(in crate::gemm) [u32; LANES]);

/// The bits of x rounded half to even; NaN stays NaN.
#[inline(always)]
pub(in crate::gemm) fn rounded_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    // A large payload would overflow into the sign.
    if x.is_nan() { 0x7FC0 } else { rounded }
}

/// A way to convert f32 to bf16.
trait ToBf16 {
    /// 32 consecutive numbers.
    fn line(values: &[f32; WIDTH]) -> Bf16Line;

    /// Two rows of 16, in pairs.
    fn pairs(low: &[f32; LANES], high: &[f32; LANES]) -> Bf16Line;

    /// Prefetches 16 numbers of 32 rows that are read next.
    #[inline(always)]
    fn prefetch(_rows: Strided<'_>, _first_row: usize, _first: usize) {}

    /// Transposes 16 lines of 16 pairs.
    #[inline(always)]
    fn transpose(lines: &mut [Bf16Line; LANES]) {
        transpose(lines);
    }

    /// The first 32 numbers, padded with zeros if there are fewer.
    #[inline(always)]
    fn row(values: &[f32]) -> Bf16Line {
        match values.first_chunk() {
            Some(values) => Self::line(values),
            None => {
                let mut part = [0.0; WIDTH];
                part[..values.len()].copy_from_slice(values);
                Self::line(&part)
            }
        }
    }
}

/// Conversion by integer arithmetic.
struct Portable;

impl ToBf16 for Portable {
    #[inline(always)]
    fn line(values: &[f32; WIDTH]) -> Bf16Line {
        let mut halves = [0u16; WIDTH];
        for i in 0..WIDTH {
            halves[i] = rounded_bits(values[i]) as u16;
        }
        Bf16Line(std::array::from_fn(
            #[inline(always)]
            |lane| u32::from(halves[2 * lane]) | u32::from(halves[2 * lane + 1]) << 16,
        ))
    }

    #[inline(always)]
    fn pairs(low: &[f32; LANES], high: &[f32; LANES]) -> Bf16Line {
        Bf16Line(std::array::from_fn(
            #[inline(always)]
            |lane| rounded_bits(low[lane]) | rounded_bits(high[lane]) << 16,
        ))
    }
}

/// Two rows of 16, in pairs.
#[inline(always)]
pub(in crate::gemm) fn pairs(low: &[f32; LANES], high: &[f32; LANES]) -> Bf16Line {
    Portable::pairs(low, high)
}

/// Transposes by exchanging between pairs of rows at distances 1, 2, 4 and 8.
#[inline(always)]
fn transpose(lines: &mut [Bf16Line; LANES]) {
    exchange::<1>(lines);
    exchange::<2>(lines);
    exchange::<4>(lines);
    exchange::<8>(lines);
}

#[inline(always)]
fn exchange<const STEP: usize>(lines: &mut [Bf16Line; LANES]) {
    for row in (0..LANES).filter(|row| row & STEP == 0) {
        let (a, b) = (lines[row].0, lines[row + STEP].0);
        lines[row].0 = std::array::from_fn(
            #[inline(always)]
            |lane| if lane & STEP == 0 { a[lane] } else { b[lane - STEP] },
        );
        lines[row + STEP].0 = std::array::from_fn(
            #[inline(always)]
            |lane| if lane & STEP == 0 { a[lane + STEP] } else { b[lane] },
        );
    }
}

/// As [`Panels::fill_columns`]: pairs are already adjacent in a row of `values`.
pub(in crate::gemm) fn pack_panels(panels: &mut Panels, values: &[f32], stride: usize) {
    let mut lines = std::mem::take(&mut panels.lines);
    let (k, n, n_lines) = (panels.k, panels.n, panels.n_lines());
    lines.resize(n.div_ceil(LANES) * n_lines + LANES, Bf16Line::default());
    let rows = Strided { values, stride, n_rows: n, n_cols: k };
    match Unit::best() {
        Unit::Portable => pack_panels_portable(Isa::best(), rows, &mut lines),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the other units exist only where AVX512-BF16 was found.
        _ => unsafe { avx512::panels(rows, &mut lines) },
    }
    panels.lines = lines;
}

/// Room for a left side `[m, k]`: `[k / 256][m, padded to 32][lines of 32 k]`.
pub(in crate::gemm) fn resize(lines: &mut Vec<Bf16Line>, m: usize, k: usize) {
    lines.resize(m.next_multiple_of(TILE_ROWS) * k.div_ceil(WIDTH), Bf16Line::default());
}

/// The line at which the block of columns from `first` on starts in such a left side.
pub(in crate::gemm) fn k_block_start(m: usize, first: usize) -> usize {
    m.next_multiple_of(TILE_ROWS) * (first / WIDTH)
}

/// Columns `range` of a matrix `[rows, cols]`, their rows `stride` apart.
pub(in crate::gemm) struct ColumnRange<'a> {
    pub(in crate::gemm) values: &'a [f32],
    pub(in crate::gemm) stride: usize,
    pub(in crate::gemm) rows: usize,
    pub(in crate::gemm) cols: usize,
    pub(in crate::gemm) range: Range<usize>,
}

impl ColumnRange<'_> {
    /// Packs them into the matrix as a left side and into its transpose as a left side.
    pub(in crate::gemm) fn pack(&self, isa: Isa, as_is: &mut [Bf16Line], transposed: &mut [Bf16Line]) {
        let Self { values, stride, rows, cols, range } = self;
        let unit = Unit::best();
        for columns in blocks(range.clone(), K_BLOCK) {
            let (start, end) =
                (k_block_start(*rows, columns.start), k_block_start(*rows, columns.end.next_multiple_of(WIDTH)));
            let values = &values[columns.start - range.start..];
            let part = Strided { values, stride: *stride, n_rows: *rows, n_cols: columns.len() };
            pack_rows(unit, isa, part, &mut as_is[start..end]);
        }
        for rows in blocks(0..*rows, K_BLOCK) {
            let n_lines = rows.len().div_ceil(WIDTH);
            let start = k_block_start(*cols, rows.start) + range.start * n_lines;
            let values = &values[rows.start * stride..];
            let part = Strided { values, stride: *stride, n_rows: rows.len(), n_cols: range.len() };
            let n_padded = range.len().next_multiple_of(TILE_ROWS);
            pack_transposed(unit, isa, part, &mut transposed[start..][..n_padded * n_lines]);
        }
    }
}

/// Packs a row-major left side.
pub(in crate::gemm) fn pack_rows(unit: Unit, isa: Isa, rows: Strided<'_>, out: &mut [Bf16Line]) {
    match unit {
        Unit::Portable => pack_rows_portable(isa, rows, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the other units exist only where AVX512-BF16 was found.
        _ => unsafe { avx512::lines(rows, out) },
    }
}

/// Packs the transpose of a row-major matrix as a left side.
pub(in crate::gemm) fn pack_transposed(unit: Unit, isa: Isa, rows: Strided<'_>, out: &mut [Bf16Line]) {
    match unit {
        Unit::Portable => pack_transposed_portable(isa, rows, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the other units exist only where AVX512-BF16 was found.
        _ => unsafe { avx512::columns(rows, out) },
    }
}

/// A matrix whose rows start `stride` apart, to be packed into lines.
#[derive(Clone, Copy)]
pub(in crate::gemm) struct Strided<'a> {
    pub(in crate::gemm) values: &'a [f32],
    pub(in crate::gemm) stride: usize,
    pub(in crate::gemm) n_rows: usize,
    pub(in crate::gemm) n_cols: usize,
}

impl Strided<'_> {
    /// `[n_rows, padded to 32][n_cols / 32]`: a row-major left side.
    #[inline(always)]
    fn lines<R: ToBf16>(self, out: &mut [Bf16Line]) {
        let n_lines = self.n_cols.div_ceil(WIDTH);
        for (row_idx, lines) in out.chunks_exact_mut(n_lines).enumerate() {
            if row_idx >= self.n_rows {
                lines.fill(Bf16Line::default());
                continue;
            }
            let row = &self.values[row_idx * self.stride..][..self.n_cols];
            for (line_idx, line) in lines.iter_mut().enumerate() {
                *line = R::row(&row[line_idx * WIDTH..]);
            }
        }
    }

    /// `[n_cols, padded to 32][n_rows / 32]`: the transpose as a left side.
    #[inline(always)]
    fn columns<R: ToBf16>(self, out: &mut [Bf16Line]) {
        let n_lines = self.n_rows.div_ceil(WIDTH);
        // 32 rows at a time, from left to right: rows are far apart, in pages of their own.
        for line_idx in 0..n_lines {
            for (tile_idx, rows) in out.chunks_exact_mut(LANES * n_lines).enumerate() {
                let first = tile_idx * LANES;
                let mut columns = [Bf16Line::default(); LANES];
                R::prefetch(self, (line_idx + 1) * WIDTH, first);
                for (pair, line) in columns.iter_mut().enumerate() {
                    let [low, high] = [0, 1].map(
                        #[inline(always)]
                        |i| self.sixteen(line_idx * WIDTH + 2 * pair + i, first),
                    );
                    *line = R::pairs(&low, &high);
                }
                R::transpose(&mut columns);
                for (row, line) in columns.iter().enumerate() {
                    rows[row * n_lines + line_idx] = *line;
                }
            }
        }
    }

    /// Numbers of a row from a column on; 0 where there are none.
    #[inline(always)]
    fn sixteen(self, row_idx: usize, first: usize) -> [f32; LANES] {
        if row_idx < self.n_rows && first + LANES <= self.n_cols {
            return *crate::lanes::first_lanes(&self.values[row_idx * self.stride + first..]);
        }
        let mut out = [0.0; LANES];
        if row_idx < self.n_rows && first < self.n_cols {
            let row = &self.values[row_idx * self.stride + first..][..self.n_cols - first];
            out[..row.len()].copy_from_slice(row);
        }
        out
    }

    /// `[n_rows / 16][n_cols / 2, padded to 16]`: panels whose columns are the rows.
    #[inline(always)]
    fn panels<R: ToBf16>(self, out: &mut [Bf16Line]) {
        let n_lines = self.n_cols.next_multiple_of(WIDTH) / 2;
        if n_lines == 0 {
            return;
        }
        for (panel_idx, panel) in out.chunks_exact_mut(n_lines).enumerate() {
            let first = panel_idx * LANES;
            for (tile_idx, tile) in panel.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let k = tile_idx * WIDTH;
                for (row, line) in tile.iter_mut().enumerate() {
                    let row_idx = first + row;
                    *line = match row_idx < self.n_rows && k < self.n_cols {
                        true => R::row(&self.values[row_idx * self.stride..][..self.n_cols][k..]),
                        false => Bf16Line::default(),
                    };
                }
                R::transpose(tile);
            }
        }
    }
}

compiled_per_isa! {
    fn pack_rows_portable<V>(rows: Strided<'_>, out: &mut [Bf16Line]) {
        rows.lines::<Portable>(out);
    }
}

compiled_per_isa! {
    fn pack_transposed_portable<V>(rows: Strided<'_>, out: &mut [Bf16Line]) {
        rows.columns::<Portable>(out);
    }
}

compiled_per_isa! {
    fn pack_panels_portable<V>(rows: Strided<'_>, out: &mut [Bf16Line]) {
        rows.panels::<Portable>(out);
    }
}
