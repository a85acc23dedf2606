//! int8 × int8 for the tied embedding: token rows out, logits in one product.

use crate::isa::Isa;
use crate::memory::{AlignedBytes, Parts};
use crate::pool::Pool;
use crate::routine;
use crate::rows::Int8Rows;

/// Rows that one piece covers.
const PIECE: usize = 64;

/// An int8 matrix with one scale per row, `[rows/64][cols/4][64][4]`: the same bytes serve look-up and product.
#[derive(Clone, Debug)]
pub struct PreparedInt8 {
    rows: usize,
    cols: usize,
    stride: usize,
    isa: Isa,
    values: AlignedBytes,
    scales: Vec<f32>,
    /// Σ of each row's values, for the unsigned trick of VNNI.
    row_sums: Vec<i32>,
}

impl PreparedInt8 {
    /// Lays out row-major `values` `[rows, cols]` with one scale per row.
    ///
    /// # Panics
    /// If the lengths do not fit each other.
    pub fn new(cols: usize, values: &[i8], scales: &[f32], isa: Isa) -> Self {
        let rows = scales.len();
        assert_eq!(values.len(), rows * cols, "{} values for {rows} × {cols}", values.len());
        let stride = cols.next_multiple_of(crate::rows::BLOCK);
        let n_padded = rows.next_multiple_of(PIECE);
        let mut laid_out = AlignedBytes::zeroed(n_padded * stride);
        let mut row_sums = vec![0; n_padded];
        for (row_idx, row) in values.chunks_exact(cols).enumerate() {
            row_sums[row_idx] = row.iter().map(|value| i32::from(*value)).sum();
            for (col, value) in row.iter().enumerate() {
                laid_out.as_mut_slice()[position(row_idx, col, stride)] = *value as u8;
            }
        }
        let mut scales = scales.to_vec();
        scales.resize(n_padded, 0.0);
        Self { rows, cols, stride, isa, values: laid_out, scales, row_sums }
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of values and scales.
    pub fn n_bytes(&self) -> usize {
        self.values.as_slice().len() + self.scales.len() * 8
    }

    /// Writes one row as f32.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not `cols` long.
    pub fn row_into(&self, row_idx: usize, out: &mut [f32]) {
        assert!(row_idx < self.rows && out.len() == self.cols, "row {row_idx} of {}", self.rows);
        let scale = self.scales[row_idx];
        for (col, out) in out.iter_mut().enumerate() {
            *out = scale * f32::from(self.values.as_i8()[position(row_idx, col, self.stride)]);
        }
    }

    /// y `[rows]` = W · (row `row_idx` of x): (sum as f32) · weight scale · row scale.
    ///
    /// # Panics
    /// If x does not have `cols` columns or y is not `rows` long.
    pub fn gemv(&self, pool: &Pool, x: &Int8Rows, row_idx: usize, y: &mut [f32]) {
        assert_eq!((x.cols(), y.len()), (self.cols, self.rows), "x and y for {} × {}", self.rows, self.cols);
        let scale = x.scales()[row_idx];
        let x = &x.padded()[row_idx * self.stride..][..self.stride];
        let y = Parts::new(y);
        // Eight blocks of 64 rows are 256 KiB at 512 columns: large against a claim, small against the whole.
        const BLOCKS: usize = 8;
        let n_blocks = self.rows.div_ceil(PIECE);
        pool.for_each(n_blocks.div_ceil(BLOCKS), |piece_idx| {
            let mut sums = [0i32; PIECE];
            for block in piece_idx * BLOCKS..((piece_idx + 1) * BLOCKS).min(n_blocks) {
                let first = block * PIECE;
                let weights = &self.values.as_i8()[first * self.stride..][..PIECE * self.stride];
                routine::dense(self.isa, weights, &self.row_sums[first..][..PIECE], x, &mut sums);
                // SAFETY: each block's rows are written by one piece, and y is borrowed until `for_each` returns.
                let y = unsafe { y.part(first, PIECE.min(self.rows - first)) };
                for ((y, sum), weight_scale) in y.iter_mut().zip(&sums).zip(&self.scales[first..]) {
                    *y = *sum as f32 * weight_scale * scale;
                }
            }
        });
    }
}

/// Where a value lies.
fn position(row_idx: usize, col: usize, stride: usize) -> usize {
    row_idx / PIECE * PIECE * stride + col / 4 * PIECE * 4 + row_idx % PIECE * 4 + col % 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_routine_equals_a_plain_sum_on_awkward_and_saturated_input() {
        let pool = Pool::new(2);
        for (rows, cols) in [(1, 1), (3, 5), (64, 16), (65, 17), (200, 512), (130, 1030)] {
            for saturated in [false, true] {
                let pick = |i: usize| {
                    if saturated { if i.is_multiple_of(3) { -127 } else { 127 } } else { (i * 37 % 255) as i16 as i8 }
                };
                let values: Vec<i8> = (0..rows * cols).map(|i| pick(i).max(-127)).collect();
                let scales: Vec<f32> = (0..rows).map(|row| 0.01 + row as f32 * 1e-3).collect();
                let floats: Vec<f32> = (0..cols).map(|i| if saturated { 1.0 } else { (i as f32).sin() }).collect();
                let mut x = Int8Rows::new(cols);
                x.quantize(Isa::SCALAR, &pool, &floats);
                let expected: Vec<f32> = (0..rows)
                    .map(|row| {
                        let weights = &values[row * cols..][..cols];
                        let sum: i32 = weights.iter().zip(x.row(0)).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum();
                        sum as f32 * scales[row] * x.scales()[0]
                    })
                    .collect();
                for isa in Isa::available() {
                    let matrix = PreparedInt8::new(cols, &values, &scales, isa);
                    let mut y = vec![f32::NAN; rows];
                    matrix.gemv(&pool, &x, 0, &mut y);
                    assert_eq!(y, expected, "{} {rows} × {cols}", isa.name());
                    let mut row = vec![0.0; cols];
                    matrix.row_into(rows - 1, &mut row);
                    assert_eq!(row[cols - 1], f32::from(values[rows * cols - 1]) * scales[rows - 1]);
                }
            }
        }
    }
}
