//! Products of numbers rounded to bf16, summed in f32: pairs of k side by side, as the instructions want them.
//!
//! ```text
//! left   [rows][k/32 lines]: a line is 32 k of a row       right  [panel][k/2 lines]: a line is 2 k of 16 columns
//! AMX: tiles of 32 × 32 sums        AVX512-BF16: tiles of 12 × 32        otherwise: plain sums
//! ```
//!
//! Whole numbers within ±256 are exact in bf16, and so are their sums below 2²⁴, on every unit. Of other numbers the
//! units round their sums differently: a result belongs to a kind of CPU. Denormals may count as 0.

use std::ops::Range;
use std::sync::OnceLock;

use super::{Block, Left, Panels, Product, blocks};
use crate::isa::{Isa, compiled_per_isa};
use crate::lanes::LANES;
use crate::prepared::Write;

/// Columns of the left side at a time: with 32 columns of the right one, half of a 32 KB L1.
pub(super) const K_BLOCK: usize = 256;
/// Rows of the left side that stay in L2 meanwhile; a multiple of a tile's 32.
const M_BLOCK: usize = 128;
/// Numbers in a line.
pub(super) const WIDTH: usize = 32;
/// What rows of a left side are padded to.
const TILE_ROWS: usize = 2 * LANES;

/// 32 bf16 in pairs: the low half of a place comes first.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line(pub(super) [u32; LANES]);

/// What multiplies bf16 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// f32 arithmetic, by whatever the CPU has.
    Plain,
    /// AVX512-BF16.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AMX tiles.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
}

impl Unit {
    /// All that this CPU and this system have, slowest first.
    pub(super) fn available() -> &'static [Self] {
        static AVAILABLE: OnceLock<Vec<Unit>> = OnceLock::new();
        AVAILABLE.get_or_init(|| {
            #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "other processors add nothing"))]
            let mut available = vec![Self::Plain];
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512bf16")
            {
                available.push(Self::Avx512);
                #[cfg(target_os = "linux")]
                if super::amx::is_available() {
                    available.push(Self::Amx);
                }
            }
            available
        })
    }

    fn best() -> Self {
        *Self::available().last().expect("plain is always available")
    }
}

/// `bf16`'s fastest unit here, or nothing but f32 arithmetic.
pub(super) fn unit_name() -> Option<&'static str> {
    match Unit::best() {
        Unit::Plain => None,
        #[cfg(target_arch = "x86_64")]
        Unit::Avx512 => Some("avx512bf16"),
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Unit::Amx => Some("amx"),
    }
}

/// Rounded half to even; what is not a number stays so.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    // A large payload would overflow into the sign.
    if x.is_nan() { 0x7FC0 } else { rounded }
}

/// How f32 become bf16.
trait Round {
    /// 32 numbers side by side.
    fn line(values: &[f32; WIDTH]) -> Line;

    /// Two rows of 16, in pairs.
    fn pairs(low: &[f32; LANES], high: &[f32; LANES]) -> Line;

    /// Says that 16 numbers of 32 rows will be read soon.
    #[inline(always)]
    fn prefetch(_rows: Rows<'_>, _first_row: usize, _first: usize) {}

    /// Rows become columns.
    #[inline(always)]
    fn transpose(lines: &mut [Line; LANES]) {
        transpose(lines);
    }

    /// The first 32 numbers, or those that there are and zeros.
    #[inline(always)]
    fn row(values: &[f32]) -> Line {
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

/// By integer arithmetic.
struct Plain;

impl Round for Plain {
    #[inline(always)]
    fn line(values: &[f32; WIDTH]) -> Line {
        let mut halves = [0u16; WIDTH];
        for i in 0..WIDTH {
            halves[i] = round(values[i]) as u16;
        }
        Line(std::array::from_fn(
            #[inline(always)]
            |lane| u32::from(halves[2 * lane]) | u32::from(halves[2 * lane + 1]) << 16,
        ))
    }

    #[inline(always)]
    fn pairs(low: &[f32; LANES], high: &[f32; LANES]) -> Line {
        Line(std::array::from_fn(
            #[inline(always)]
            |lane| round(low[lane]) | round(high[lane]) << 16,
        ))
    }
}

/// Pairs of rows change places in steps of 1, 2, 4 and 8.
#[inline(always)]
fn transpose(lines: &mut [Line; LANES]) {
    exchange::<1>(lines);
    exchange::<2>(lines);
    exchange::<4>(lines);
    exchange::<8>(lines);
}

#[inline(always)]
fn exchange<const STEP: usize>(lines: &mut [Line; LANES]) {
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

impl Panels {
    /// Lines of a panel: a whole number of tiles.
    pub(super) fn n_lines(&self) -> usize {
        self.k.next_multiple_of(WIDTH) / 2
    }

    /// Lays out `[k, n]` whose row k, columns from `first` on, `row(k, first, out)` writes.
    #[inline(always)]
    pub(super) fn fill_pairs(&mut self, row: impl Fn(usize, usize, &mut [f32; LANES])) {
        let n_lines = self.n_lines();
        // A tile may begin at any pair and end behind the last panel: what it meets there is multiplied by 0.
        self.lines.resize(self.n.div_ceil(LANES) * n_lines + LANES, Line::default());
        if n_lines == 0 {
            return;
        }
        for (panel_idx, panel) in self.lines.chunks_exact_mut(n_lines).enumerate() {
            let first = panel_idx * LANES;
            if first >= self.n {
                panel.fill(Line::default()); // the places behind the last panel, if they are enough for one
                continue;
            }
            for (pair, line) in panel.iter_mut().enumerate() {
                let mut rows = [[0.0; LANES]; 2];
                for (i, out) in rows.iter_mut().enumerate() {
                    if 2 * pair + i < self.k {
                        row(2 * pair + i, first, out);
                    }
                }
                *line = Plain::pairs(&rows[0], &rows[1]);
            }
        }
    }

    /// The pairs `k` of one panel and what follows them.
    fn pairs(&self, panel_idx: usize, k: &Range<usize>) -> &[Line] {
        &self.lines[panel_idx * self.n_lines() + k.start / 2..]
    }
}

/// As [`Panels::fill_columns`]: pairs lie side by side in a row of `values` already.
pub(super) fn fill_columns(panels: &mut Panels, values: &[f32], stride: usize) {
    let mut lines = std::mem::take(&mut panels.lines);
    let (k, n, n_lines) = (panels.k, panels.n, panels.n_lines());
    lines.resize(n.div_ceil(LANES) * n_lines + LANES, Line::default());
    let rows = Rows { values, stride, n_rows: n, n_cols: k };
    match Unit::best() {
        Unit::Plain => panels_plainly(Isa::best(), rows, &mut lines),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the other units exist only where AVX512-BF16 was found.
        _ => unsafe { avx512::panels(rows, &mut lines) },
    }
    panels.lines = lines;
}

/// As [`Product::write`] with a right side in bf16; what is added to takes part in the sums' order.
pub(super) fn write(
    product: &Product<'_>,
    unit: Unit,
    isa: Isa,
    out: &mut [f32],
    stride: usize,
    mut write: Write,
    aside: &mut Vec<Line>,
) {
    let Product { m, left, right, k, n } = product;
    assert!(k.start.is_multiple_of(2), "pairs from {} on", k.start);
    if let Left::Laid(laid) = left {
        assert!(laid.m == *m && *k == (0..laid.k), "{} × {} for {m} × {k:?}", laid.m, laid.k);
    }
    for k_block in blocks(k.clone(), K_BLOCK) {
        let first = k_block.start - k.start;
        for rows in blocks(0..*m, M_BLOCK) {
            let a: &[Line] = match *left {
                Left::Laid(laid) => {
                    let n_lines = k_block.len().div_ceil(WIDTH);
                    let start = strip(laid.m, first) + rows.start * n_lines;
                    &laid.lines[start..][..rows.len().next_multiple_of(TILE_ROWS) * n_lines]
                }
                Left::Rows(values, stride) => {
                    let values = &values[rows.start * stride + first..];
                    let part = Rows { values, stride, n_rows: rows.len(), n_cols: k_block.len() };
                    resize(aside, rows.len(), k_block.len());
                    lay_rows(unit, isa, part, aside);
                    &*aside
                }
                Left::Columns(values, stride) => {
                    let values = &values[first * stride + rows.start..];
                    let part = Rows { values, stride, n_rows: k_block.len(), n_cols: rows.len() };
                    resize(aside, rows.len(), k_block.len());
                    lay_columns(unit, isa, part, aside);
                    &*aside
                }
            };
            let out = &mut out[rows.start * stride..];
            let block = Block { m: rows.len(), right, k: k_block.clone(), n: n.clone(), stride, write };
            match unit {
                Unit::Plain => plain(isa, a, &block, out),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the unit exists only where AVX512-BF16 was found.
                Unit::Avx512 => unsafe { avx512::tiles(a, &block, out) },
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                // SAFETY: the unit exists only where AMX was found and allowed.
                Unit::Amx => unsafe { super::amx::tiles(a, &block, out) },
            }
        }
        write = Write::Add;
    }
}

/// Room for a left side `[m, k]`: `[k / 256][m, padded to 32][lines of 32 k]`.
pub(super) fn resize(lines: &mut Vec<Line>, m: usize, k: usize) {
    lines.resize(m.next_multiple_of(TILE_ROWS) * k.div_ceil(WIDTH), Line::default());
}

/// Where in it the block that begins with column `first` does.
fn strip(m: usize, first: usize) -> usize {
    m.next_multiple_of(TILE_ROWS) * (first / WIDTH)
}

/// Columns `range` of a matrix `[rows, cols]`, their rows `stride` apart.
pub(super) struct Part<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) range: Range<usize>,
}

impl Part<'_> {
    /// Lays them out in the left side that the matrix is, and in the one that its transpose is.
    pub(super) fn put(&self, isa: Isa, as_is: &mut [Line], transposed: &mut [Line]) {
        let Self { values, stride, rows, cols, range } = self;
        let unit = Unit::best();
        for columns in blocks(range.clone(), K_BLOCK) {
            let (start, end) = (strip(*rows, columns.start), strip(*rows, columns.end.next_multiple_of(WIDTH)));
            let values = &values[columns.start - range.start..];
            let part = Rows { values, stride: *stride, n_rows: *rows, n_cols: columns.len() };
            lay_rows(unit, isa, part, &mut as_is[start..end]);
        }
        for rows in blocks(0..*rows, K_BLOCK) {
            let n_lines = rows.len().div_ceil(WIDTH);
            let start = strip(*cols, rows.start) + range.start * n_lines;
            let values = &values[rows.start * stride..];
            let part = Rows { values, stride: *stride, n_rows: rows.len(), n_cols: range.len() };
            let n_padded = range.len().next_multiple_of(TILE_ROWS);
            lay_columns(unit, isa, part, &mut transposed[start..][..n_padded * n_lines]);
        }
    }
}

/// Lays out a left side as it lies.
fn lay_rows(unit: Unit, isa: Isa, rows: Rows<'_>, out: &mut [Line]) {
    match unit {
        Unit::Plain => lines_plainly(isa, rows, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the other units exist only where AVX512-BF16 was found.
        _ => unsafe { avx512::lines(rows, out) },
    }
}

/// Lays out a left side that is the transpose.
fn lay_columns(unit: Unit, isa: Isa, rows: Rows<'_>, out: &mut [Line]) {
    match unit {
        Unit::Plain => columns_plainly(isa, rows, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the other units exist only where AVX512-BF16 was found.
        _ => unsafe { avx512::columns(rows, out) },
    }
}

impl Product<'_> {
    /// As its right side asks.
    pub(super) fn write_bf16(&self, isa: Isa, out: &mut [f32], stride: usize, how: Write, aside: &mut Vec<Line>) {
        write(self, Unit::best(), isa, out, stride, how, aside);
    }
}

impl Block<'_> {
    /// Lines of a row of the left side.
    pub(super) fn n_lines(&self) -> usize {
        self.k.len().div_ceil(WIDTH)
    }

    /// Lines of a panel of the right side from where the block begins, a multiple of a tile's.
    pub(super) fn lines(&self, first: usize) -> &[Line] {
        &self.right.pairs(first / LANES, &self.k)[..self.n_lines() * LANES]
    }
}

/// A matrix whose rows begin `stride` apart, to be laid out in lines.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [f32],
    stride: usize,
    n_rows: usize,
    n_cols: usize,
}

impl Rows<'_> {
    /// `[n_rows, padded to 32][n_cols / 32]`: a left side as it lies.
    #[inline(always)]
    fn lines<R: Round>(self, out: &mut [Line]) {
        let n_lines = self.n_cols.div_ceil(WIDTH);
        for (row_idx, lines) in out.chunks_exact_mut(n_lines).enumerate() {
            if row_idx >= self.n_rows {
                lines.fill(Line::default());
                continue;
            }
            let row = &self.values[row_idx * self.stride..][..self.n_cols];
            for (line_idx, line) in lines.iter_mut().enumerate() {
                *line = R::row(&row[line_idx * WIDTH..]);
            }
        }
    }

    /// `[n_cols, padded to 32][n_rows / 32]`: a left side that is the transpose.
    #[inline(always)]
    fn columns<R: Round>(self, out: &mut [Line]) {
        let n_lines = self.n_rows.div_ceil(WIDTH);
        // 32 rows at a time, from left to right: rows lie far apart, in pages of their own.
        for line_idx in 0..n_lines {
            for (tile_idx, rows) in out.chunks_exact_mut(LANES * n_lines).enumerate() {
                let first = tile_idx * LANES;
                let mut columns = [Line::default(); LANES];
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
            return *crate::lanes::head(&self.values[row_idx * self.stride + first..]);
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
    fn panels<R: Round>(self, out: &mut [Line]) {
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
                        false => Line::default(),
                    };
                }
                R::transpose(tile);
            }
        }
    }
}

compiled_per_isa! {
    fn lines_plainly<V>(rows: Rows<'_>, out: &mut [Line]) {
        rows.lines::<Plain>(out);
    }
}

compiled_per_isa! {
    fn columns_plainly<V>(rows: Rows<'_>, out: &mut [Line]) {
        rows.columns::<Plain>(out);
    }
}

compiled_per_isa! {
    fn panels_plainly<V>(rows: Rows<'_>, out: &mut [Line]) {
        rows.panels::<Plain>(out);
    }
}

compiled_per_isa! {
    fn plain<V>(a: &[Line], block: &Block<'_>, out: &mut [f32]) {
        let n_lines = block.n_lines();
        for first in block.n.clone().step_by(LANES) {
            let width = LANES.min(block.n.end - first);
            for (row, out) in a.chunks_exact(n_lines).take(block.m).zip(out.chunks_mut(block.stride)) {
                let out = &mut out[first - block.n.start..][..width];
                let mut sums = [0.0; LANES];
                if block.write == Write::Add {
                    sums[..width].copy_from_slice(out);
                }
                let mut sums = V::load(&sums);
                let left = row.iter().flat_map(|line| line.0);
                for (a, b) in left.zip(block.lines(first)) {
                    let low = b.0.map(|pair| f32::from_bits(pair << 16));
                    let high = b.0.map(|pair| f32::from_bits(pair & 0xFFFF_0000));
                    sums = V::splat(f32::from_bits(a << 16)).mul_add(V::load(&low), sums);
                    sums = V::splat(f32::from_bits(a & 0xFFFF_0000)).mul_add(V::load(&high), sums);
                }
                let mut stored = [0.0; LANES];
                sums.store(&mut stored);
                out.copy_from_slice(&stored[..width]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::*;

    /// Rows of a tile: with two panels, 24 of the 32 registers.
    const ROWS: usize = 12;

    /// By the CPU's own conversion.
    struct Native;

    /// Takes the halves of two rows in turn.
    static IN_TURN: [u16; WIDTH] = {
        let mut order = [0; WIDTH];
        let mut i = 0;
        while i < WIDTH {
            order[i] = (i / 2 + i % 2 * LANES) as u16;
            i += 1;
        }
        order
    };

    impl Round for Native {
        #[inline(always)]
        fn line(values: &[f32; WIDTH]) -> Line {
            // SAFETY: named only in functions that have AVX512-BF16; each load is of half of `values`.
            unsafe {
                let [low, high] = [0, LANES].map(|start| _mm512_loadu_ps(values.as_ptr().add(start)));
                std::mem::transmute(_mm512_cvtne2ps_pbh(high, low))
            }
        }

        #[inline(always)]
        fn pairs(low: &[f32; LANES], high: &[f32; LANES]) -> Line {
            // SAFETY: as above, and with AVX512-BW; the loads are of 64 bytes each.
            unsafe {
                let [low, high] = [low, high].map(|row| _mm512_loadu_ps(row.as_ptr()));
                let halves: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                let order = _mm512_loadu_si512((&raw const IN_TURN).cast());
                std::mem::transmute(_mm512_permutexvar_epi16(order, halves))
            }
        }

        #[inline(always)]
        fn prefetch(rows: Rows<'_>, first_row: usize, first: usize) {
            for row in first_row..rows.n_rows.min(first_row + WIDTH) {
                let at = rows.values.as_ptr().wrapping_add(row * rows.stride + first);
                // SAFETY: nothing is read; any address will do.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
            }
        }

        /// Left to the compiler, numbers go one by one through the stack.
        #[inline(always)]
        fn transpose(lines: &mut [Line; LANES]) {
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

    /// What two lines a step apart take from each other's lanes: the first from the begin of each pair of runs, the second
    /// from the end.
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
    pub(super) fn lines(rows: Rows<'_>, out: &mut [Line]) {
        rows.lines::<Native>(out);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn columns(rows: Rows<'_>, out: &mut [Line]) {
        rows.columns::<Native>(out);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn panels(rows: Rows<'_>, out: &mut [Line]) {
        rows.panels::<Native>(out);
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn tiles(a: &[Line], block: &Block<'_>, out: &mut [f32]) {
        for first in block.n.clone().step_by(2 * LANES) {
            let low = block.lines(first);
            // A panel that is missing is the one beside it: its sums are not written.
            let high = if first + LANES < block.n.end { block.lines(first + LANES) } else { low };
            for row in (0..block.m).step_by(ROWS) {
                tile(a, row, [low, high], block, first, out);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn tile(a: &[Line], first_row: usize, panels: [&[Line]; 2], block: &Block<'_>, first: usize, out: &mut [f32]) {
        let n_lines = block.n_lines();
        // The left side is padded to tiles of another height: the last one begins earlier and writes its last rows only.
        let start = first_row.min(a.len() / n_lines - ROWS);
        if matches!(block.write, Write::Add) {
            // What is added to comes from far away, and is wanted at once when the sums are made.
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

    /// Of rows that lie one after the other, each with as many pairs as a panel has lines.
    ///
    /// By pointers that count up: with a check or an address of its own for each row, the sums are moved about and saved,
    /// and a Zen 4 makes half as much.
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn sums(rows: &[Line], panels: [&[Line]; 2]) -> [[__m512; 2]; ROWS] {
        let n_pairs = panels[0].len();
        assert_eq!((panels[1].len(), rows.len() * LANES), (n_pairs, ROWS * n_pairs));
        let row_bytes = 4 * n_pairs;
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        // SAFETY: `at` stays within the pairs of a panel, and with it within those of a row, 4 bytes each; all lines lie
        // on boundaries of 64 bytes.
        unsafe {
            let fours: [*const u8; ROWS / 4] =
                std::array::from_fn(|i| rows.as_ptr().cast::<u8>().add(4 * i * row_bytes));
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
}

#[cfg(test)]
mod tests {
    use super::super::Precision;
    use super::*;

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| (((i + seed) * 7919) % 1013) as f32 / 506.5 - 1.0).collect()
    }

    fn rounded(x: f32) -> f64 {
        f64::from(f32::from_bits(round(x) << 16))
    }

    #[test]
    fn rounding_is_to_nearest_even_and_keeps_what_is_no_number() {
        for (x, expected) in
            [(0x3F80_8000, 0x3F80), (0x3F81_8000, 0x3F82), (0x3F80_8001, 0x3F81), (0xFF80_0000, 0xFF80)]
        {
            assert_eq!(round(f32::from_bits(x)), expected, "{x:x}");
        }
        for bits in [0x7FFF_FFFF, 0x7F80_0001, 0xFFFF_FFFF] {
            assert!(rounded(f32::from_bits(bits)).is_nan());
        }
    }

    /// A sum in f32 of k products is off by at most k roundings of the sum of the absolute products.
    #[test]
    fn every_unit_sums_within_the_rounding_of_f32_at_awkward_shapes() {
        for (m, k, n) in
            [(1, 1, 1), (5, 3, 17), (32, 32, 32), (13, 300, 40), (129, 40, 33), (150, 257, 16), (7, 30, 150)]
        {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let transposed: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
            let [mut by_rows, mut by_columns] = [(); 2].map(|()| Panels::new(Precision::Bf16));
            by_columns.fill_rows(300, 50, &numbers(15_000, 3), 50); // what it held before must not show
            by_rows.fill_rows(k, n, &b, n);
            by_columns.fill_columns(k, n, &transposed, k);
            for (unit, isa) in
                Unit::available().iter().flat_map(|unit| Isa::available().into_iter().map(|isa| (*unit, isa)))
            {
                for right in [&by_rows, &by_columns] {
                    for (columns, left) in [(false, Left::Rows(&a, k)), (true, Left::Columns(&a, m))] {
                        let mut out = vec![0.5; m * n];
                        write(&Product::new(m, left, right), unit, isa, &mut out, n, Write::Add, &mut Vec::new());
                        for (i, out) in out.iter().enumerate() {
                            let a = |k_idx: usize| {
                                rounded(if columns { a[k_idx * m + i / n] } else { a[i / n * k + k_idx] })
                            };
                            let terms: Vec<f64> =
                                (0..k).map(|k_idx| a(k_idx) * rounded(b[k_idx * n + i % n])).collect();
                            let sum = 0.5 + terms.iter().sum::<f64>();
                            let bound = (k + 2) as f64
                                * f64::from(f32::EPSILON)
                                * (0.5 + terms.iter().map(|t| t.abs()).sum::<f64>());
                            let off = (f64::from(*out) - sum).abs();
                            assert!(off <= bound, "{unit:?} {} {m} × {k} × {n} at {i}: {out} for {sum}", isa.name());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn whole_numbers_are_exact_in_a_part_and_their_surroundings_stay() {
        let (m, k, n) = (37, 290, 70);
        let whole = |n: usize, seed: usize| -> Vec<f32> {
            (0..n).map(|i| ((i * 31 + seed * 7) % 255) as f32 - 127.0).collect()
        };
        let (a, b) = (whole(m * k, 1), whole(k * n, 2));
        let mut right = Panels::new(Precision::Bf16);
        right.fill_rows(k, n, &b, n);
        let part = Product { m, left: Left::Rows(&a, k), right: &right, k: 6..281, n: 16..59 };
        for unit in Unit::available() {
            let mut out = vec![7.0; m * 50];
            write(&part, *unit, Isa::best(), &mut out, 50, Write::Store, &mut Vec::new());
            for (row, out) in out.chunks_exact(50).enumerate() {
                for (column, out) in out.iter().enumerate() {
                    let sum: f32 = (0..275).map(|i| a[row * k + i] * b[(i + 6) * n + column + 16]).sum();
                    assert_eq!(*out, if column < 43 { sum } else { 7.0 }, "{unit:?} row {row} column {column}");
                }
            }
        }
    }
}
