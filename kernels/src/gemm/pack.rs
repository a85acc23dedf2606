//! Operands of a product and the forms they are packed into.

pub(super) mod f32;
pub(super) mod bf16;

use std::ops::Range;

use super::precision::Precision;
use crate::isa::Isa;
use crate::lanes::LANES;

use bf16::Bf16Line;

/// A right side `[k, n]` in panels of 16 columns, `[n/16][k][16]`; columns that are missing are 0. Keeps its buffer.
#[derive(Clone, Debug, Default)]
pub struct Panels {
    precision: Precision,
    k: usize,
    n: usize,
    /// In f32: `[n/16][k][16]`.
    values: Vec<f32>,
    /// In bf16: `[n/16][k/2][16][2]`.
    lines: Vec<Bf16Line>,
}

/// The buffers that products pack their left sides into, reused from one to the next.
#[derive(Clone, Debug, Default)]
pub struct PackBuffer {
    pub(super) values: Vec<f32>,
    pub(super) lines: Vec<Bf16Line>,
}

impl Panels {
    /// Empty panels of a precision; the default is f32.
    pub fn new(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }

    /// Packs with `precision` from the next fill on.
    pub fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// The precision that the numbers are rounded to.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Packs `k × n` numbers: `fill(k, column, out)` writes those of row k from `column` on, at most 16.
    #[inline(always)]
    pub fn fill(&mut self, k: usize, n: usize, fill: impl Fn(usize, usize, &mut [f32])) {
        (self.k, self.n) = (k, n);
        if self.precision == Precision::Bf16 {
            return self.fill_pairs(
                #[inline(always)]
                |k, first, out| fill(k, first, &mut out[..LANES.min(n - first)]),
            );
        }
        // Not cleared: all but the padding is written.
        self.values.resize(n.div_ceil(LANES) * k * LANES, 0.0);
        for (panel_idx, panel) in self.values.chunks_exact_mut((k * LANES).max(1)).enumerate() {
            let first = panel_idx * LANES;
            let width = LANES.min(n - first);
            for (k, row) in panel.chunks_exact_mut(LANES).enumerate() {
                fill(k, first, &mut row[..width]);
                row[width..].fill(0.0);
            }
        }
    }

    /// Packs a row-major `[k, n]` whose rows start `stride` apart.
    pub fn fill_rows(&mut self, k: usize, n: usize, values: &[f32], stride: usize) {
        self.fill(k, n, |k, first, out| {
            let row = &values[k * stride + first..];
            match out.as_mut_array::<LANES>() {
                Some(out) => *out = *row.first_chunk().expect("the row has sixteen more"),
                None => out.copy_from_slice(&row[..out.len()]),
            }
        });
    }

    /// Packs the transpose of a row-major `[n, k]` whose rows start `stride` apart.
    pub fn fill_columns(&mut self, k: usize, n: usize, values: &[f32], stride: usize) {
        (self.k, self.n) = (k, n);
        if self.precision == Precision::Bf16 {
            return bf16::pack_panels(self, values, stride);
        }
        self.values.resize(n.div_ceil(LANES) * k * LANES, 0.0);
        for (panel_idx, panel) in self.values.chunks_exact_mut((k * LANES).max(1)).enumerate() {
            let (panel, _) = panel.as_chunks_mut::<LANES>();
            for lane in 0..LANES {
                let column = panel_idx * LANES + lane;
                if column < n {
                    let row = &values[column * stride..][..k];
                    panel.iter_mut().zip(row).for_each(|(panel, value)| panel[lane] = *value);
                } else {
                    panel.iter_mut().for_each(|panel| panel[lane] = 0.0);
                }
            }
        }
    }

    /// The number of rows and columns, (k, n).
    pub fn shape(&self) -> (usize, usize) {
        (self.k, self.n)
    }

    /// The rows `k` of one panel.
    #[inline(always)]
    pub(super) fn panel(&self, panel_idx: usize, k: Range<usize>) -> &[[f32; LANES]] {
        let (rows, _) = self.values.as_chunks();
        &rows[panel_idx * self.k..][..self.k][k]
    }
}

/// The left operand `[m, k]` of a product.
#[derive(Clone, Copy, Debug)]
pub enum Lhs<'a> {
    /// Row-major: row i starts at `i · stride`.
    Rows(&'a [f32], usize),
    /// Column-major: column k starts at `k · stride`.
    Columns(&'a [f32], usize),
    /// From a [`PackedMatrix`]: in bf16, and used as a whole.
    Packed(PackedLhs<'a>),
}

/// One of the two packed forms of a [`PackedMatrix`].
#[derive(Clone, Copy, Debug)]
pub struct PackedLhs<'a> {
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) lines: &'a [Bf16Line],
}

/// A matrix packed once, some columns at a time, as the left operand of several products: as it is and transposed.
/// Keeps its buffers.
#[derive(Clone, Debug, Default)]
pub struct PackedMatrix {
    precision: Precision,
    rows: usize,
    cols: usize,
    /// In f32: row-major.
    values: Vec<f32>,
    /// In bf16: the matrix and its transpose.
    lines: [Vec<Bf16Line>; 2],
}

impl PackedMatrix {
    /// Columns are packed in ranges that start at a multiple of this.
    pub const COLUMNS: usize = bf16::K_BLOCK;

    /// Makes room for `[rows, cols]` numbers, rounded to `precision`; all must be packed before they are used.
    pub fn resize(&mut self, precision: Precision, rows: usize, cols: usize) {
        (self.precision, self.rows, self.cols) = (precision, rows, cols);
        match precision {
            Precision::F32 => self.values.resize(rows * self.stride(), 0.0),
            Precision::Bf16 => {
                let [as_is, transposed] = &mut self.lines;
                bf16::resize(as_is, rows, cols);
                bf16::resize(transposed, cols, rows);
            }
        }
    }

    /// Not a power of two: rows that far apart would fall into the same few sets of a cache.
    fn stride(&self) -> usize {
        self.cols.next_multiple_of(LANES) + LANES
    }

    /// Packs the columns `range` of all rows, which start `stride` apart in `values`.
    ///
    /// # Panics
    /// If the range does not start at a multiple of [`PackedMatrix::COLUMNS`] and end at another one or with the
    /// matrix, or `values` is too short.
    pub fn pack(&mut self, isa: Isa, range: Range<usize>, values: &[f32], stride: usize) {
        assert!(range.end <= self.cols && range.start.is_multiple_of(Self::COLUMNS), "{range:?} of {}", self.cols);
        assert!(range.end == self.cols || range.end.is_multiple_of(Self::COLUMNS), "{range:?} of {}", self.cols);
        match self.precision {
            Precision::F32 => {
                let whole = self.stride();
                for (row, values) in self.values.chunks_exact_mut(whole).zip(values.chunks(stride)) {
                    row[range.clone()].copy_from_slice(&values[..range.len()]);
                }
            }
            Precision::Bf16 => {
                let [as_is, transposed] = &mut self.lines;
                let columns = bf16::ColumnRange { values, stride, rows: self.rows, cols: self.cols, range };
                columns.pack(isa, as_is, transposed);
            }
        }
    }

    /// The matrix as a left operand `[rows, cols]`.
    pub fn as_is(&self) -> Lhs<'_> {
        match self.precision {
            Precision::F32 => Lhs::Rows(&self.values, self.stride()),
            Precision::Bf16 => Lhs::Packed(PackedLhs { m: self.rows, k: self.cols, lines: &self.lines[0] }),
        }
    }

    /// The transpose as a left operand `[cols, rows]`.
    pub fn transposed(&self) -> Lhs<'_> {
        match self.precision {
            Precision::F32 => Lhs::Columns(&self.values, self.stride()),
            Precision::Bf16 => Lhs::Packed(PackedLhs { m: self.cols, k: self.rows, lines: &self.lines[1] }),
        }
    }
}

impl Panels {
    /// Lines of a panel: a whole number of tiles.
    fn n_lines(&self) -> usize {
        self.k.next_multiple_of(bf16::WIDTH) / 2
    }

    /// Packs `[k, n]`; `row(k, first, out)` writes the columns of row k from `first` on.
    #[inline(always)]
    fn fill_pairs(&mut self, row: impl Fn(usize, usize, &mut [f32; LANES])) {
        let n_lines = self.n_lines();
        // A tile may start at any pair and end after the last panel: what it reads there is multiplied by 0.
        self.lines.resize(self.n.div_ceil(LANES) * n_lines + LANES, Bf16Line::default());
        if n_lines == 0 {
            return;
        }
        for (panel_idx, panel) in self.lines.chunks_exact_mut(n_lines).enumerate() {
            let first = panel_idx * LANES;
            if first >= self.n {
                panel.fill(Bf16Line::default()); // the padding after the last panel, if it is as long as one
                continue;
            }
            for (pair, line) in panel.iter_mut().enumerate() {
                let mut rows = [[0.0; LANES]; 2];
                for (i, out) in rows.iter_mut().enumerate() {
                    if 2 * pair + i < self.k {
                        row(2 * pair + i, first, out);
                    }
                }
                *line = bf16::pairs(&rows[0], &rows[1]);
            }
        }
    }

    /// The pairs `k` of one panel and what follows them.
    pub(super) fn pairs(&self, panel_idx: usize, k: &Range<usize>) -> &[Bf16Line] {
        &self.lines[panel_idx * self.n_lines() + k.start / 2..]
    }
}

/// Cuts a range into runs of `len`, the last one shorter.
pub(super) fn blocks(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(len).map(move |start| start..end.min(start + len))
}
