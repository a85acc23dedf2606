//! The tied embedding in 8 or 4 bits: token rows out, logits in one product.
//!
//! ```text
//! 8 bits: [rows/64][cols/4][64][4]     value = scale(row) · byte
//! 4 bits: [rows/64][cols/8][64][4]     value = scale(row) · multiplier(row, 32 columns) · (nibble − 8)
//!                                      low nibbles are columns 8j..8j+4, high ones the next four
//! ```
//!
//! Multipliers are whole numbers within 1..=255, so a row of 4-bit products is summed in integers too, and every
//! instruction set gives the same bits.

mod int8;
mod nibbles;

use std::ops::Range;

use crate::isa::Isa;
use crate::output::Output;
use crate::rows::Int8Rows;
use crate::runtime::memory::{AlignedBytes, DisjointMut};
use crate::runtime::pool::Pool;
use int8::Int8Operands;
use nibbles::GROUP_COLS;

/// Rows of the matrix in a block of the layout.
const PIECE: usize = 64;

/// How the embedding is stored in memory. A checkpoint always stores 8 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadBits {
    /// int8, as in the checkpoint.
    #[default]
    Eight,
    /// Rounded to 4 bits: half the memory, and half the bytes read for a token's logits. Changes the logits.
    Four,
}

/// An embedding packed so that the same bytes serve both look-up and product.
#[derive(Clone, Debug)]
pub struct PreparedHead {
    rows: usize,
    cols: usize,
    stride: usize,
    isa: Isa,
    bits: HeadBits,
    codes: AlignedBytes,
    scales: Vec<f32>,
    /// 8 bits: Σ of each row's values, to correct for the unsigned operand of VNNI.
    row_sums: Vec<i32>,
    /// 4 bits: `[rows/64][groups][64]`.
    multipliers: Vec<u8>,
}

impl PreparedHead {
    /// Packs row-major `values` `[rows, cols]`, none −128, with one scale per row.
    ///
    /// # Panics
    /// If the lengths do not fit each other.
    pub fn new(cols: usize, values: &[i8], scales: &[f32], bits: HeadBits, isa: Isa) -> Self {
        let rows = scales.len();
        assert_eq!(values.len(), rows * cols, "{} values for {rows} × {cols}", values.len());
        let stride = cols.next_multiple_of(crate::rows::BLOCK);
        let n_padded = rows.next_multiple_of(PIECE);
        let mut scales = scales.to_vec();
        scales.resize(n_padded, 0.0);
        let n_groups = stride.div_ceil(GROUP_COLS);
        let mut head = Self {
            rows,
            cols,
            stride,
            isa,
            bits,
            codes: AlignedBytes::default(),
            scales,
            row_sums: Vec::new(),
            multipliers: Vec::new(),
        };
        match bits {
            HeadBits::Eight => {
                head.codes = AlignedBytes::for_weights(n_padded * stride, 0);
                head.row_sums = vec![0; n_padded];
                let (fours, _) = head.codes.as_mut_slice().as_chunks_mut();
                for (row_idx, row) in values.chunks_exact(cols).enumerate() {
                    head.row_sums[row_idx] = row.iter().map(|value| i32::from(*value)).sum();
                    let piece = &mut fours[row_idx / PIECE * PIECE * stride / 4..][..PIECE * stride / 4];
                    for (four, values) in piece.iter_mut().skip(row_idx % PIECE).step_by(PIECE).zip(row.chunks(4)) {
                        *four = match values {
                            [a, b, c, d] => [*a, *b, *c, *d].map(i8::cast_unsigned),
                            part => std::array::from_fn(|i| part.get(i).map_or(0, |value| value.cast_unsigned())),
                        };
                    }
                }
            }
            HeadBits::Four => {
                head.codes = AlignedBytes::for_weights(n_padded * stride / 2, 0);
                head.codes.as_mut_slice().fill(0x88);
                head.multipliers = vec![1; n_padded * n_groups];
                for (row_idx, row) in values.chunks_exact(cols).enumerate() {
                    head.round_row(row_idx, row);
                }
            }
        }
        head
    }

    /// Rounds one row to 4 bits: groups by their largest magnitude, in steps of a 255th of the row's largest.
    fn round_row(&mut self, row_idx: usize, row: &[i8]) {
        let absmax = |group: &[i8]| f32::from(group.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0));
        // In units of the 8-bit step: 7 nibble steps reach the group's largest.
        let unit = absmax(row) / (7.0 * 255.0);
        self.scales[row_idx] *= unit;
        for (group, values) in row.chunks(GROUP_COLS).enumerate() {
            let multiplier = if unit > 0.0 { (absmax(values) / (7.0 * unit)).round().clamp(1.0, 255.0) } else { 1.0 };
            let at = self.multiplier(row_idx, group);
            self.multipliers[at] = multiplier as u8;
            for (c, value) in values.iter().enumerate() {
                let step = multiplier * unit;
                let code = if step > 0.0 { (f32::from(*value) / step).round().clamp(-7.0, 7.0) } else { 0.0 };
                let (at, shift) = nibble(row_idx, group * GROUP_COLS + c, self.stride);
                let byte = &mut self.codes.as_mut_slice()[at];
                *byte = *byte & !(15 << shift) | ((code as i8 + 8) as u8) << shift;
            }
        }
    }

    fn multiplier(&self, row_idx: usize, group: usize) -> usize {
        (row_idx / PIECE * self.stride.div_ceil(GROUP_COLS) + group) * PIECE + row_idx % PIECE
    }

    /// The number of rows: the vocabulary size.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How values are stored.
    pub fn bits(&self) -> HeadBits {
        self.bits
    }

    /// Memory taken by values and scales, in bytes.
    pub fn n_bytes(&self) -> usize {
        self.codes.as_slice().len() + (self.scales.len() + self.row_sums.len()) * 4 + self.multipliers.len()
    }

    /// Writes one row as f32.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not `cols` long.
    pub fn row_into(&self, row_idx: usize, out: &mut [f32]) {
        assert!(row_idx < self.rows && out.len() == self.cols, "row {row_idx} of {}", self.rows);
        let scale = self.scales[row_idx];
        match self.bits {
            HeadBits::Eight => {
                let first = position(row_idx, 0, self.stride);
                for (out, from) in out.chunks_mut(4).zip((first..).step_by(PIECE * 4)) {
                    for (out, value) in out.iter_mut().zip(&self.codes.as_i8()[from..from + 4]) {
                        *out = scale * f32::from(*value);
                    }
                }
            }
            HeadBits::Four => {
                for (col, out) in out.iter_mut().enumerate() {
                    let (at, shift) = nibble(row_idx, col, self.stride);
                    let code = f32::from(self.codes.as_slice()[at] >> shift & 15) - 8.0;
                    *out = scale * f32::from(self.multipliers[self.multiplier(row_idx, col / GROUP_COLS)]) * code;
                }
            }
        }
    }

    /// Writes rows `[n, copies, cols]`, each row `copies` times.
    ///
    /// # Panics
    /// If a row does not exist or `out` has another length.
    pub fn gather(&self, pool: &Pool, rows: &[u16], copies: usize, out: &mut [f32]) {
        let width = copies * self.cols;
        assert_eq!(out.len(), rows.len() * width, "{} numbers for {} rows", out.len(), rows.len());
        const ROWS: usize = 8;
        let out = DisjointMut::new(out);
        pool.for_each(rows.len().div_ceil(ROWS), |piece_idx| {
            let first = piece_idx * ROWS;
            for (i, row) in rows[first..].iter().take(ROWS).enumerate() {
                // SAFETY: each row is handed to one piece, and `out` is borrowed until `for_each` returns.
                let out = unsafe { out.part((first + i) * width, width) };
                let (one, others) = out.split_at_mut(self.cols);
                self.row_into(usize::from(*row), one);
                others.chunks_exact_mut(self.cols).for_each(|copy| copy.copy_from_slice(one));
            }
        });
    }

    /// y `[x.n_rows(), rows]` = x · Wᵀ: (sum as f32) · weight scale · row scale. Weights are read once for all rows.
    ///
    /// # Panics
    /// If x does not have `cols` columns or y is not `n_rows × rows` long.
    pub fn gemm(&self, pool: &Pool, x: &Int8Rows, y: &mut [f32]) {
        assert_eq!(x.cols(), self.cols, "columns for {} × {}", self.rows, self.cols);
        assert_eq!(y.len(), x.n_rows() * self.rows, "{} outputs for {} rows of {}", y.len(), x.n_rows(), self.rows);
        let y = DisjointMut::new(y);
        // Eight blocks of 64 rows are 256 KiB at 512 columns: large against a claim, small against the whole.
        const BLOCKS: usize = 8;
        let n_blocks = self.rows.div_ceil(PIECE);
        pool.for_each(n_blocks.div_ceil(BLOCKS), |piece_idx| {
            let blocks = piece_idx * BLOCKS..((piece_idx + 1) * BLOCKS).min(n_blocks);
            let start = y.pointer().wrapping_add(blocks.start * PIECE);
            // SAFETY: each block's columns are written by one piece, and y is borrowed until `for_each` returns.
            unsafe { self.blocks(blocks, x, start, self.rows) };
        });
    }

    /// As [`PreparedHead::gemm`], of the matrix's rows `n` only, on the caller's own core: writes rows of y that start
    /// `stride` apart.
    ///
    /// # Panics
    /// If x does not have `cols` columns, `n` does not start and end at a multiple of 64 or at the last row, or y is
    /// too short.
    pub fn gemm_part(&self, x: &Int8Rows, n: Range<usize>, y: &mut [f32], stride: usize) {
        assert_eq!(x.cols(), self.cols, "columns for {} × {}", self.rows, self.cols);
        assert!(n.start.is_multiple_of(PIECE) && (n.end.is_multiple_of(PIECE) || n.end == self.rows), "{n:?}");
        assert!(n.start <= n.end && n.end <= self.rows && n.len() <= stride, "{n:?} of {}", self.rows);
        let Some(before_last) = x.n_rows().checked_sub(1) else { return };
        assert!(y.len() >= before_last * stride + n.len(), "{} outputs for {} rows", y.len(), x.n_rows());
        // SAFETY: y holds these columns of each row, and is borrowed.
        unsafe { self.blocks(n.start / PIECE..n.end.div_ceil(PIECE), x, y.as_mut_ptr(), stride) };
    }

    /// Whether several rows at once take less time than one after the other: whether [`PreparedHead::gemm_part`]
    /// reaches the full speed of 8-bit multiplications.
    pub fn shares_weights(isa: Isa) -> bool {
        int8::shares_weights(isa)
    }

    /// Writes the columns of some blocks, `stride` apart for each row of x.
    ///
    /// # Safety
    /// They are valid for writes, as far as the matrix has rows.
    unsafe fn blocks(&self, blocks: Range<usize>, x: &Int8Rows, y: *mut f32, stride: usize) {
        let first_block = blocks.start;
        let mut scratch = Vec::new();
        for block in blocks {
            let width = PIECE.min(self.rows - block * PIECE);
            let y = y.wrapping_add((block - first_block) * PIECE);
            if width == PIECE {
                // SAFETY: the caller's promise.
                unsafe { self.block(block, x, Output { start: y, stride, add: false }) };
                continue;
            }
            scratch.resize(x.n_rows() * PIECE, 0.0f32);
            // SAFETY: `scratch` has 64 numbers for each row.
            unsafe { self.block(block, x, Output { start: scratch.as_mut_ptr(), stride: PIECE, add: false }) };
            for (row_idx, scratch) in scratch.chunks_exact(PIECE).enumerate() {
                // SAFETY: the caller's promise.
                let y = unsafe { std::slice::from_raw_parts_mut(y.add(row_idx * stride), width) };
                y.copy_from_slice(&scratch[..width]);
            }
        }
    }

    /// 64 rows with all rows of x.
    ///
    /// # Safety
    /// `out` is valid for writes of one superblock.
    unsafe fn block(&self, block: usize, x: &Int8Rows, out: Output) {
        let scales = &self.scales[block * PIECE..][..PIECE];
        if self.bits == HeadBits::Eight {
            let operands = Int8Operands {
                weights: &self.codes.as_i8()[block * PIECE * self.stride..][..PIECE * self.stride],
                row_sums: &self.row_sums[block * PIECE..][..PIECE],
                scales,
                x: x.padded(),
                stride: self.stride,
                row_scales: x.scales(),
            };
            // SAFETY: the caller's promise.
            return unsafe { int8::multiply(self.isa, &operands, out) };
        }
        let (n_codes, n_groups) = (PIECE * self.stride / 2, self.stride.div_ceil(GROUP_COLS));
        let weights = nibbles::Block {
            codes: &self.codes.as_slice()[block * n_codes..][..n_codes],
            multipliers: &self.multipliers[block * n_groups * PIECE..][..n_groups * PIECE],
        };
        let mut sums = [0i32; PIECE];
        for (row_idx, row_scale) in x.scales().iter().enumerate() {
            let (values, block_sums) = x.padded_row(row_idx);
            nibbles::multiply(self.isa, &weights, values, block_sums, &mut sums);
            // SAFETY: the caller's promise.
            let y = unsafe { std::slice::from_raw_parts_mut(out.start.add(row_idx * out.stride), PIECE) };
            for ((y, sum), scale) in y.iter_mut().zip(&sums).zip(scales) {
                *y = *sum as f32 * scale * row_scale;
            }
        }
    }
}

/// The index of an 8-bit value.
fn position(row_idx: usize, col: usize, stride: usize) -> usize {
    row_idx / PIECE * PIECE * stride + col / 4 * PIECE * 4 + row_idx % PIECE * 4 + col % 4
}

/// The byte that holds a 4-bit value, and the bits below it there.
fn nibble(row_idx: usize, col: usize, stride: usize) -> (usize, usize) {
    let at = row_idx / PIECE * PIECE * stride / 2 + col / 8 * PIECE * 4 + row_idx % PIECE * 4 + col % 4;
    (at, col % 8 / 4 * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [(usize, usize); 7] = [(1, 1), (3, 5), (64, 16), (65, 17), (200, 512), (130, 1030), (66, 40)];

    fn matrix(rows: usize, cols: usize, saturated: bool) -> (Vec<i8>, Vec<f32>) {
        let pick = |i: usize| {
            if saturated { if i.is_multiple_of(3) { -127 } else { 127 } } else { (i * 37 % 255) as i16 as i8 }
        };
        let values = (0..rows * cols).map(|i| pick(i).max(-127)).collect();
        (values, (0..rows).map(|row| 0.01 + row as f32 * 1e-3).collect())
    }

    fn input(cols: usize, n_rows: usize, saturated: bool) -> Int8Rows {
        let floats: Vec<f32> =
            (0..cols * n_rows).map(|i| if saturated { 1.0 } else { (i as f32 * 1.3).sin() }).collect();
        let mut x = Int8Rows::new(cols);
        x.quantize(Isa::SCALAR, &Pool::new(1), &floats);
        x
    }

    #[test]
    fn every_routine_equals_the_reference_sum_on_awkward_and_saturated_input() {
        let pool = Pool::new(2);
        for (rows, cols) in SHAPES {
            for saturated in [false, true] {
                let (values, scales) = matrix(rows, cols, saturated);
                // One row; more than are multiplied at once, in passes of nearly the same size.
                for n_rows in [1, 2, 3, 6, 13] {
                    let x = input(cols, n_rows, saturated);
                    let expected: Vec<f32> = (0..n_rows * rows)
                        .map(|i| (i / rows, i % rows))
                        .map(|(i, row)| {
                            let weights = &values[row * cols..][..cols];
                            let sum: i32 =
                                weights.iter().zip(x.row(i)).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum();
                            sum as f32 * scales[row] * x.scales()[i]
                        })
                        .collect();
                    for isa in Isa::available() {
                        let head = PreparedHead::new(cols, &values, &scales, HeadBits::Eight, isa);
                        let mut y = vec![f32::NAN; n_rows * rows];
                        head.gemm(&pool, &x, &mut y);
                        assert_eq!(y, expected, "{} {rows} × {cols}", isa.name());
                        for n in [0..rows.min(64), rows / 64 * 64..rows] {
                            let mut part = vec![f32::NAN; n_rows * 70];
                            head.gemm_part(&x, n.clone(), &mut part, 70);
                            for (part, y) in part.chunks_exact(70).zip(y.chunks_exact(rows)) {
                                assert_eq!(part[..n.len()], y[n.clone()]);
                                assert!(part[n.len()..].iter().all(|x| x.is_nan()), "outside {n:?}");
                            }
                        }
                        let mut row = vec![0.0; cols];
                        head.row_into(rows - 1, &mut row);
                        for (col, x) in row.iter().enumerate() {
                            assert_eq!(*x, f32::from(values[(rows - 1) * cols + col]) * scales[rows - 1]);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn four_bits_are_within_half_a_step_and_their_product_is_that_of_the_rows_that_are_looked_up() {
        let pool = Pool::new(2);
        for (rows, cols) in SHAPES {
            for saturated in [false, true] {
                let (values, scales) = matrix(rows, cols, saturated);
                let x = input(cols, 2, saturated);
                let mut seen = Vec::new();
                for isa in Isa::available() {
                    let head = PreparedHead::new(cols, &values, &scales, HeadBits::Four, isa);
                    let mut y = vec![f32::NAN; 2 * rows];
                    head.gemm(&pool, &x, &mut y);
                    let mut looked_up = vec![0.0; rows * cols];
                    let ids: Vec<u16> = (0..rows as u16).collect();
                    head.gather(&pool, &ids, 1, &mut looked_up);
                    for row in 0..rows {
                        let (row4, row8) = (&looked_up[row * cols..][..cols], &values[row * cols..][..cols]);
                        let row_max = row8.iter().map(|v| v.unsigned_abs()).max().map_or(0.0, f32::from);
                        for (row4, row8) in row4.chunks(GROUP_COLS).zip(row8.chunks(GROUP_COLS)) {
                            let max = row8.iter().map(|v| v.unsigned_abs()).max().map_or(0.0, f32::from);
                            // Half a step of a 7th, and the multiplier rounded to a 255th of the row's largest.
                            let allowed = scales[row] * (max / 14.0 + row_max / 255.0 / 2.0 * 1.5) * 1.001;
                            for (x4, x8) in row4.iter().zip(row8) {
                                let exact = scales[row] * f32::from(*x8);
                                assert!((x4 - exact).abs() <= allowed, "{x4} for {exact} ± {allowed}");
                            }
                        }
                        for i in 0..2 {
                            let products = row4.iter().zip(x.row(i)).map(|(w, x)| f64::from(*w) * f64::from(*x));
                            let exact = products.clone().sum::<f64>() * f64::from(x.scales()[i]);
                            let size = products.map(f64::abs).sum::<f64>() * f64::from(x.scales()[i]);
                            // Each looked-up number was rounded twice to f32, the product three times.
                            let allowed = size * 6.0 * f64::from(f32::EPSILON);
                            let got = f64::from(y[i * rows + row]);
                            assert!((got - exact).abs() <= allowed, "{} {rows} × {cols}: {got}, {exact}", isa.name());
                        }
                    }
                    seen.push(y);
                }
                assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{rows} × {cols}");
            }
        }
    }

    #[test]
    fn four_bits_are_half_the_bytes() {
        let (values, scales) = matrix(1280, 512, false);
        let n_bytes = |bits| PreparedHead::new(512, &values, &scales, bits, Isa::best()).n_bytes();
        assert!(n_bytes(HeadBits::Four) * 100 < n_bytes(HeadBits::Eight) * 54);
    }
}
