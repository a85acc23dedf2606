//! Matrix products for training, on the caller's own core: of f32, or of numbers rounded to bf16.
//!
//! ```text
//! for blocks of K columns                                    C keeps its sums in between
//!   for blocks of M rows                                     left block stays in L2
//!     for one or two panels of 16 columns of the right side  panel block stays in L1
//!       for tiles of 6 or 12 rows: sums[r][0..16] += left[r][k] · right[k][0..16]
//! ```
//!
//! A sum runs over k in ascending order within a block, and over the blocks in ascending order: the same bits on every
//! instruction set, for every number of rows at once. The right side is laid out once and used for many products, which
//! a general product cannot do; the left side is put into tiles, unless it is read too few times for that to pay.

use std::ops::Range;
use std::sync::OnceLock;
use std::time::Instant;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod bf16;

use crate::isa::{Isa, compiled_per_isa};
use crate::lanes::{LANES, Lanes};
use crate::prepared::Write;

/// Rows of the right side that one pass sums over: with 32 columns, half of a 32 KB L1.
const K_BLOCK: usize = 128;
/// Rows of the left side that stay in L2 meanwhile; a multiple of both heights of a tile.
const M_BLOCK: usize = 96;
/// Columns of the right side up to which rows of the left side are read where they lie. Measured: at 64 columns packing
/// costs a quarter, at 256 reading six rows at once a third.
const FEW: usize = 128;

/// What the numbers of both sides are rounded to before they are multiplied. Sums are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Not at all: the same bits on every CPU.
    #[default]
    F32,
    /// Eight bits of significand, as the CPU's own bf16 instructions sum them.
    Bf16,
}

impl Precision {
    /// The instructions that multiply bf16 on this CPU, if it has any: `amx` or `avx512bf16`.
    pub fn bf16_unit() -> Option<&'static str> {
        bf16::unit_name()
    }

    /// Whichever multiplies faster on this CPU, by a measurement of about a millisecond that is made once: there are CPUs
    /// whose bf16 instructions take four times as long as those of f32.
    pub fn fastest() -> Self {
        static FASTEST: OnceLock<Precision> = OnceLock::new();
        *FASTEST.get_or_init(|| {
            if Self::bf16_unit().is_none() {
                return Self::F32;
            }
            let [f32, bf16] = [Self::F32, Self::Bf16].map(Self::gflops);
            if 0.8 * bf16 > f32 { Self::Bf16 } else { Self::F32 }
        })
    }

    /// The most that a small product in cache reached in a dozen trials on this core, in GFLOP/s, its left side laid out
    /// each time.
    pub fn gflops(self) -> f64 {
        const SIDE: usize = 128;
        let left = vec![1.0; SIDE * SIDE];
        let (mut right, mut out, mut aside) = (Panels::new(self), vec![0.0; SIDE * SIDE], Aside::default());
        right.fill_rows(SIDE, SIDE, &left, SIDE);
        let product = Product::new(SIDE, Left::Rows(&left, SIDE), &right);
        let once = |_| {
            let start = Instant::now();
            product.write(Isa::best(), &mut out, SIDE, Write::Store, &mut aside);
            start.elapsed().as_secs_f64()
        };
        2e-9 * (SIDE * SIDE * SIDE) as f64 / (0..12).map(once).fold(f64::INFINITY, f64::min)
    }
}

/// A right side `[k, n]` in panels of 16 columns, `[n/16][k][16]`; columns that are missing are 0. Keeps its buffer.
#[derive(Clone, Debug, Default)]
pub struct Panels {
    precision: Precision,
    k: usize,
    n: usize,
    /// Of f32.
    values: Vec<f32>,
    /// Of bf16: `[n/16][k/2][16][2]`.
    lines: Vec<bf16::Line>,
}

/// What products lay their left sides out in, kept from one to the next.
#[derive(Clone, Debug, Default)]
pub struct Aside {
    values: Vec<f32>,
    lines: Vec<bf16::Line>,
}

impl Panels {
    /// Empty. The default is f32.
    pub fn new(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }

    /// What is laid out next is rounded to `precision`.
    pub fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// What its numbers are rounded to.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Lays out `k × n` numbers: `fill(k, column, out)` writes those of row k from `column` on, at most 16.
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

    /// Lays out a row-major `[k, n]` whose rows begin `stride` apart.
    pub fn fill_rows(&mut self, k: usize, n: usize, values: &[f32], stride: usize) {
        self.fill(k, n, |k, first, out| {
            let row = &values[k * stride + first..];
            match out.as_mut_array::<LANES>() {
                Some(out) => *out = *row.first_chunk().expect("the row has sixteen more"),
                None => out.copy_from_slice(&row[..out.len()]),
            }
        });
    }

    /// Lays out the transpose of a row-major `[n, k]` whose rows begin `stride` apart.
    pub fn fill_columns(&mut self, k: usize, n: usize, values: &[f32], stride: usize) {
        (self.k, self.n) = (k, n);
        if self.precision == Precision::Bf16 {
            return bf16::fill_columns(self, values, stride);
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

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.k, self.n)
    }

    /// The rows `k` of one panel.
    #[inline(always)]
    fn panel(&self, panel_idx: usize, k: Range<usize>) -> &[[f32; LANES]] {
        let (rows, _) = self.values.as_chunks();
        &rows[panel_idx * self.k..][..self.k][k]
    }
}

/// A left side `[m, k]`.
#[derive(Clone, Copy, Debug)]
pub enum Left<'a> {
    /// Row i begins at `i · stride`.
    Rows(&'a [f32], usize),
    /// Column k begins at `k · stride`.
    Columns(&'a [f32], usize),
    /// Of [`Strips`]: in bf16, and whole.
    Laid(Laid<'a>),
}

/// One of the two left sides that [`Strips`] hold.
#[derive(Clone, Copy, Debug)]
pub struct Laid<'a> {
    m: usize,
    k: usize,
    lines: &'a [bf16::Line],
}

/// A matrix that is laid out once to stand on the left of products, as it is and transposed, some columns at a time.
/// Keeps its buffers.
#[derive(Clone, Debug, Default)]
pub struct Strips {
    precision: Precision,
    rows: usize,
    cols: usize,
    /// Of f32: row-major.
    values: Vec<f32>,
    /// Of bf16: as it is, and transposed.
    lines: [Vec<bf16::Line>; 2],
}

impl Strips {
    /// Begins at a multiple of this many columns are laid out.
    pub const COLUMNS: usize = bf16::K_BLOCK;

    /// Makes room for `[rows, cols]` numbers, rounded to `precision`; all must be put before they are used.
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

    /// Rows that begin a power of two apart fall into the same few sets of a cache.
    fn stride(&self) -> usize {
        self.cols.next_multiple_of(LANES) + LANES
    }

    /// Lays out the columns `range` of all rows, which begin `stride` apart in `values`.
    ///
    /// # Panics
    /// If the range does not begin at a multiple of [`Strips::COLUMNS`] and end at another one or with the matrix, or
    /// `values` is too short.
    pub fn put(&mut self, isa: Isa, range: Range<usize>, values: &[f32], stride: usize) {
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
                let part = bf16::Part { values, stride, rows: self.rows, cols: self.cols, range };
                part.put(isa, as_is, transposed);
            }
        }
    }

    /// As it is, `[rows, cols]`.
    pub fn as_is(&self) -> Left<'_> {
        match self.precision {
            Precision::F32 => Left::Rows(&self.values, self.stride()),
            Precision::Bf16 => Left::Laid(Laid { m: self.rows, k: self.cols, lines: &self.lines[0] }),
        }
    }

    /// Transposed, `[cols, rows]`.
    pub fn transposed(&self) -> Left<'_> {
        match self.precision {
            Precision::F32 => Left::Columns(&self.values, self.stride()),
            Precision::Bf16 => Left::Laid(Laid { m: self.cols, k: self.rows, lines: &self.lines[1] }),
        }
    }
}

/// Which product: `[m, k] · [k, n]`.
#[derive(Clone, Debug)]
pub struct Product<'a> {
    /// Rows of the left side.
    pub m: usize,
    /// Its columns are those of `k`, beginning with 0.
    pub left: Left<'a>,
    /// The right side.
    pub right: &'a Panels,
    /// Rows of the right side to sum over.
    pub k: Range<usize>,
    /// Its columns; begins at a multiple of 16.
    pub n: Range<usize>,
}

impl<'a> Product<'a> {
    /// Over all of the right side.
    pub fn new(m: usize, left: Left<'a>, right: &'a Panels) -> Self {
        Self { m, left, right, k: 0..right.k, n: 0..right.n }
    }

    /// Writes rows of `n.len()` numbers, `stride` apart. `aside` is scratch.
    ///
    /// # Panics
    /// If a range is not within the right side, `n` does not begin at a multiple of 16 or, in bf16, `k` at an even row,
    /// a side or `out` is too short, or a left side that was laid out is not met whole or by another precision.
    pub fn write(&self, isa: Isa, out: &mut [f32], stride: usize, write: Write, aside: &mut Aside) {
        let Self { m, left, right, k, n } = self;
        assert!(k.end <= right.k && n.end <= right.n, "{k:?} × {n:?} of {} × {}", right.k, right.n);
        assert!(n.start.is_multiple_of(LANES), "columns from {} on", n.start);
        if *m == 0 || n.is_empty() {
            return;
        }
        assert!(out.len() >= (m - 1) * stride + n.len(), "{} places for {m} rows of {}", out.len(), n.len());
        let mut write = write;
        if k.is_empty() && write == Write::Store {
            out.chunks_mut(stride).take(*m).for_each(|row| row[..n.len()].fill(0.0));
        }
        if right.precision == Precision::Bf16 {
            return self.write_bf16(isa, out, stride, write, &mut aside.lines);
        }
        let aside = &mut aside.values;
        for k_block in blocks(k.clone(), K_BLOCK) {
            for rows in blocks(0..*m, M_BLOCK) {
                let first = k_block.start - k.start;
                let part = match left {
                    // Six streams are read more slowly than one, which pays where a row meets many panels.
                    Left::Rows(values, stride) if n.len() > FEW => {
                        let values = &values[rows.start * stride + first..];
                        pack_rows(isa, values, *stride, rows.len(), k_block.len(), aside);
                        Part::Packed(aside)
                    }
                    Left::Rows(values, stride) => Part::Rows(&values[rows.start * stride + first..], *stride),
                    Left::Columns(values, stride) => {
                        let values = &values[first * stride + rows.start..];
                        pack_columns(isa, values, *stride, rows.len(), k_block.len(), aside);
                        Part::Packed(aside)
                    }
                    Left::Laid(_) => panic!("a left side in bf16 beside a right side in f32"),
                };
                let out = &mut out[rows.start * stride..];
                let block = Block { m: rows.len(), right, k: k_block.clone(), n: n.clone(), stride, write };
                match part {
                    Part::Rows(a, a_stride) => product_of_rows(isa, a, a_stride, &block, out),
                    Part::Packed(a) => product_of_tiles(isa, a, &block, out),
                }
            }
            write = Write::Add;
        }
    }
}

fn blocks(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(len).map(move |start| start..end.min(start + len))
}

/// The left side of a block: where it lies, or `[m / tile][k][tile]`, padded with anything.
#[derive(Clone, Copy)]
enum Part<'a> {
    Rows(&'a [f32], usize),
    Packed(&'a [f32]),
}

struct Block<'a> {
    m: usize,
    right: &'a Panels,
    k: Range<usize>,
    n: Range<usize>,
    stride: usize,
    write: Write,
}

compiled_per_isa! {
    fn pack_columns<V>(values: &[f32], stride: usize, m: usize, k: usize, out: &mut Vec<f32>) {
        if V::TALL { pack::<12>(values, stride, m, k, out) } else { pack::<6>(values, stride, m, k, out) }
    }
}

#[inline(always)]
fn pack<const R: usize>(values: &[f32], stride: usize, m: usize, k: usize, out: &mut Vec<f32>) {
    out.resize(m.div_ceil(R) * R * k, 0.0);
    for (tile_idx, tile) in out.chunks_exact_mut(R * k).enumerate() {
        let (columns, _) = tile.as_chunks_mut::<R>();
        let first = tile_idx * R;
        if first + R <= m {
            for (k, column) in columns.iter_mut().enumerate() {
                *column = *values[k * stride + first..].first_chunk().expect("a tile is within the rows");
            }
        } else {
            for (k, column) in columns.iter_mut().enumerate() {
                let rest = &values[k * stride + first..][..m - first];
                column[..rest.len()].copy_from_slice(rest);
                column[rest.len()..].fill(0.0);
            }
        }
    }
}

compiled_per_isa! {
    fn pack_rows<V>(values: &[f32], stride: usize, m: usize, k: usize, out: &mut Vec<f32>) {
        if V::TALL { interleave::<12>(values, stride, m, k, out) } else { interleave::<6>(values, stride, m, k, out) }
    }
}

#[inline(always)]
fn interleave<const R: usize>(values: &[f32], stride: usize, m: usize, k: usize, out: &mut Vec<f32>) {
    out.resize(m.div_ceil(R) * R * k, 0.0);
    for (tile_idx, tile) in out.chunks_exact_mut(R * k).enumerate() {
        let (columns, _) = tile.as_chunks_mut::<R>();
        let first = tile_idx * R;
        // A row that is missing is another one: its sums are not written.
        let rows: [&[f32]; R] = std::array::from_fn(|r| &values[(first + r).min(m - 1) * stride..][..k]);
        for (k, column) in columns.iter_mut().enumerate() {
            *column = std::array::from_fn(|r| rows[r][k]);
        }
    }
}

// Two functions: as branches of one, the second costs the first its registers.
compiled_per_isa! {
    fn product_of_rows<V>(a: &[f32], a_stride: usize, block: &Block<'_>, out: &mut [f32]) {
        for first in block.pairs::<V>() {
            match block.panels(first) {
                Some(panels) if V::TALL => {
                    let row = rows_tiles::<V, 12, 2>(a, a_stride, 0, panels, out, block, first);
                    let row = rows_tiles::<V, 6, 2>(a, a_stride, row, panels, out, block, first);
                    rows_tiles::<V, 1, 2>(a, a_stride, row, panels, out, block, first);
                }
                _ => {
                    let panels = [block.panel(first)];
                    let row = rows_tiles::<V, 6, 1>(a, a_stride, 0, panels, out, block, first);
                    rows_tiles::<V, 1, 1>(a, a_stride, row, panels, out, block, first);
                }
            }
        }
    }
}

compiled_per_isa! {
    fn product_of_tiles<V>(a: &[f32], block: &Block<'_>, out: &mut [f32]) {
        for first in block.pairs::<V>() {
            match block.panels(first) {
                Some(panels) if V::TALL => packed_tiles::<V, 12, 2>(a, panels, out, block, first),
                _ if V::TALL => packed_tiles::<V, 12, 1>(a, [block.panel(first)], out, block, first),
                _ => packed_tiles::<V, 6, 1>(a, [block.panel(first)], out, block, first),
            }
        }
    }
}

impl<'a> Block<'a> {
    /// Where each run of panels begins that are multiplied at once.
    #[inline(always)]
    fn pairs<V: Lanes>(&self) -> impl Iterator<Item = usize> {
        (self.n.start..self.n.end).step_by(if V::TALL { 2 * LANES } else { LANES })
    }

    /// The panel that begins with column `first`.
    #[inline(always)]
    fn panel(&self, first: usize) -> &'a [[f32; LANES]] {
        self.right.panel(first / LANES, self.k.clone())
    }

    /// The same and the next one, if columns are left for it.
    #[inline(always)]
    fn panels(&self, first: usize) -> Option<[&'a [[f32; LANES]]; 2]> {
        (first + LANES < self.n.end).then(|| [self.panel(first), self.panel(first + LANES)])
    }
}

/// As many tiles of `R` rows and `P` panels as there are from `row` on; returns the first row that is left.
#[inline(always)]
fn rows_tiles<V: Lanes, const R: usize, const P: usize>(
    a: &[f32],
    a_stride: usize,
    mut row: usize,
    panels: [&[[f32; LANES]]; P],
    out: &mut [f32],
    block: &Block<'_>,
    first: usize,
) -> usize {
    while row + R <= block.m {
        let rows: [&[f32]; R] = std::array::from_fn(
            #[inline(always)]
            |r| &a[(row + r) * a_stride..][..block.k.len()],
        );
        let mut sums = [[V::splat(0.0); P]; R];
        for k in 0..block.k.len() {
            let b = right::<V, P>(&panels, k);
            for r in 0..R {
                add::<V, P>(rows[r][k], &b, &mut sums[r]);
            }
        }
        put::<V, R, P>(sums, &mut out[row * block.stride..], block, R, first);
        row += R;
    }
    row
}

#[inline(always)]
fn packed_tiles<V: Lanes, const R: usize, const P: usize>(
    a: &[f32],
    panels: [&[[f32; LANES]]; P],
    out: &mut [f32],
    block: &Block<'_>,
    first: usize,
) {
    for (tile_idx, tile) in a.chunks_exact(R * block.k.len()).enumerate() {
        let (columns, _) = tile.as_chunks::<R>();
        let mut sums = [[V::splat(0.0); P]; R];
        for (k, a) in columns.iter().enumerate() {
            let b = right::<V, P>(&panels, k);
            for r in 0..R {
                add::<V, P>(a[r], &b, &mut sums[r]);
            }
        }
        let row = tile_idx * R;
        put::<V, R, P>(sums, &mut out[row * block.stride..], block, R.min(block.m - row), first);
    }
}

#[inline(always)]
fn right<V: Lanes, const P: usize>(panels: &[&[[f32; LANES]]; P], k: usize) -> [V; P] {
    std::array::from_fn(
        #[inline(always)]
        |p| V::load(&panels[p][k]),
    )
}

#[inline(always)]
fn add<V: Lanes, const P: usize>(a: f32, b: &[V; P], sums: &mut [V; P]) {
    let a = V::splat(a);
    for p in 0..P {
        sums[p] = a.mul_add(b[p], sums[p]);
    }
}

/// Writes the sums of a tile whose first column is `first`, the rows that there are.
#[inline(always)]
fn put<V: Lanes, const R: usize, const P: usize>(
    sums: [[V; P]; R],
    out: &mut [f32],
    block: &Block<'_>,
    n_rows: usize,
    first: usize,
) {
    let out = &mut out[first - block.n.start..];
    // Of a whole tile, no sum leaves its register before it is written.
    if n_rows == R && first + P * LANES <= block.n.end {
        for r in 0..R {
            for p in 0..P {
                let out = crate::lanes::head_mut(&mut out[r * block.stride + p * LANES..]);
                let sum = if block.write == Write::Add { V::load(out).add(sums[r][p]) } else { sums[r][p] };
                sum.store(out);
            }
        }
        return;
    }
    for p in 0..P {
        let width = LANES.min(block.n.end - first - p * LANES);
        for r in 0..n_rows {
            let mut aside = [0.0; LANES];
            sums[r][p].store(&mut aside);
            for (out, sum) in out[r * block.stride + p * LANES..][..width].iter_mut().zip(aside) {
                *out = if block.write == Write::Add { *out + sum } else { sum };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| (((i + seed) * 7919) % 1013) as f32 / 506.5 - 1.0).collect()
    }

    /// Σ over k in order, rounded as the routines do: blocks of k are summed by themselves.
    fn expected(
        m: usize,
        k: Range<usize>,
        n: Range<usize>,
        left: impl Fn(usize, usize) -> f32,
        right: &[f32],
    ) -> Vec<f32> {
        let n_all = right.len() / k.end;
        let one = |row: usize, col: usize| {
            blocks(k.clone(), K_BLOCK).fold(0.0f32, |sum, block| {
                sum + block.fold(0.0f32, |sum, i| left(row, i - k.start).mul_add(right[i * n_all + col], sum))
            })
        };
        (0..m).flat_map(|row| n.clone().map(move |col| (row, col))).map(|(row, col)| one(row, col)).collect()
    }

    #[test]
    fn every_instruction_set_sums_in_the_stated_order_at_awkward_shapes() {
        for (m, k, n) in [(1, 1, 1), (5, 3, 17), (6, 16, 16), (13, 300, 40), (97, 40, 33), (110, 257, 16), (7, 30, 150)]
        {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let transposed: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
            let (mut by_rows, mut by_columns) = (Panels::default(), Panels::default());
            by_columns.fill_rows(300, 50, &numbers(15_000, 3), 50); // what it held before must not show
            by_rows.fill_rows(k, n, &b, n);
            by_columns.fill_columns(k, n, &transposed, k);
            let sums = expected(m, 0..k, 0..n, |row, i| a[row * k + i], &b);
            let sums_of_columns = expected(m, 0..k, 0..n, |row, i| a[i * m + row], &b);
            for isa in Isa::available() {
                for right in [&by_rows, &by_columns] {
                    let mut out = vec![f32::NAN; m * n];
                    Product::new(m, Left::Rows(&a, k), right).write(
                        isa,
                        &mut out,
                        n,
                        Write::Store,
                        &mut Aside::default(),
                    );
                    assert_eq!(out, sums, "{} {m} × {k} × {n}", isa.name());
                    Product::new(m, Left::Columns(&a, m), right).write(
                        isa,
                        &mut out,
                        n,
                        Write::Store,
                        &mut Aside::default(),
                    );
                    assert_eq!(out, sums_of_columns, "{} {m} × {k} × {n}, columns", isa.name());
                }
            }
        }
    }

    #[test]
    fn a_part_of_the_right_side_is_added_and_its_surroundings_stay() {
        let (m, k, n) = (7, 40, 50);
        let (a, b) = (numbers(m * k, 4), numbers(k * n, 5));
        let mut right = Panels::default();
        right.fill_rows(k, n, &b, n);
        let part = Product { m, left: Left::Rows(&a, k), right: &right, k: 8..31, n: 16..39 };
        let sums = expected(m, 8..31, 16..39, |row, i| a[row * k + i], &b[..31 * n]);
        for isa in Isa::available() {
            let mut out = vec![1.0; m * 30];
            part.write(isa, &mut out, 30, Write::Add, &mut Aside::default());
            for (row, sums) in out.chunks_exact(30).zip(sums.chunks_exact(23)) {
                let added: Vec<f32> = sums.iter().map(|sum| 1.0 + sum).collect();
                assert_eq!(row[..23], added);
                assert_eq!(row[23..], [1.0; 7]);
            }
        }
    }

    #[test]
    fn a_side_that_was_laid_out_once_gives_the_same_products() {
        let mut strips = Strips::default();
        for precision in [Precision::F32, Precision::Bf16] {
            strips.resize(precision, 70, 300);
            strips.put(Isa::best(), 0..300, &[f32::NAN; 70 * 300], 300); // what it held before must not show
            for (rows, cols) in [(1, 1), (37, 600), (290, 512), (300, 270)] {
                let a = numbers(rows * cols, 1);
                for isa in Isa::available() {
                    strips.resize(precision, rows, cols);
                    for columns in blocks(0..cols, Strips::COLUMNS) {
                        strips.put(isa, columns.clone(), &a[columns.start..], cols);
                    }
                    let sides = [
                        (rows, cols, strips.as_is(), Left::Rows(&a, cols)),
                        (cols, rows, strips.transposed(), Left::Columns(&a, cols)),
                    ];
                    for (m, k, laid, left) in sides {
                        let mut right = Panels::new(precision);
                        right.fill_rows(k, 20, &numbers(k * 20, 2), 20);
                        let [mut found, mut expected] = [(); 2].map(|()| vec![0.5; m * 20]);
                        for (out, left) in [(&mut found, laid), (&mut expected, left)] {
                            Product::new(m, left, &right).write(isa, out, 20, Write::Add, &mut Aside::default());
                        }
                        assert_eq!(found, expected, "{precision:?} {} {m} × {k}", isa.name());
                    }
                }
            }
        }
    }

    #[test]
    fn a_sum_over_nothing_is_nothing() {
        let mut right = Panels::default();
        right.fill_rows(4, 16, &numbers(64, 1), 16);
        let product = Product { m: 2, left: Left::Rows(&[], 0), right: &right, k: 2..2, n: 0..16 };
        let mut out = [1.0; 32];
        product.write(Isa::best(), &mut out, 16, Write::Add, &mut Aside::default());
        assert_eq!(out, [1.0; 32]);
        product.write(Isa::best(), &mut out, 16, Write::Store, &mut Aside::default());
        assert_eq!(out, [0.0; 32]);
    }
}
