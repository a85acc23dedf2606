//! A ternary matrix laid out for one plan, carrying the routine that reads that layout.
//!
//! The one layout serves single rows and many. Output rows are taken 64 at a time (a superblock); within it, input
//! columns 16 at a time (a k-block); then four quads of 16 rows; then 64 bytes, byte `r·4 + c` for row r of the quad:
//!
//! ```text
//! codes [rows/64][cols/16][4][64]      bits 2p, 2p+1 of byte r·4 + c  =  trit + 1  of column 16·k + 4·p + c
//! ```
//!
//! A 64-byte register holds 16 rows × 4 columns for each of four planes p, and the dot-product instruction's lanes are
//! rows: no horizontal sums, no shuffles. Padding rows and columns hold trit 0.

use crate::isa::Isa;
use crate::matrix::{ScaleGroup, Shape, TernaryMatrix};
use crate::memory::{AlignedBytes, Parts};
use crate::pool::Pool;
use crate::routine::{self, Routine, Tile, TileInput};
use crate::rows::{BLOCK, Int8Rows};

/// Output rows of a superblock.
pub(crate) const SUPERBLOCK: usize = 64;
/// Bytes of one k-block of a superblock.
pub(crate) const K_BLOCK_BYTES: usize = SUPERBLOCK * BLOCK / 4;

/// How a matrix is to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which routine.
    pub isa: Isa,
    /// Superblocks of 64 output rows that a worker claims at once.
    pub superblocks_per_piece: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self { isa: Isa::best(), superblocks_per_piece: 2 }
    }
}

/// What happens to the output that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// It is replaced.
    Store,
    /// The product is added to it (a residual).
    Add,
}

/// A matrix, or several stacked on top of each other, ready to multiply.
#[derive(Clone, Debug)]
pub struct Prepared {
    shape: Shape,
    plan: Plan,
    routine: Routine,
    codes: AlignedBytes,
    /// `[superblocks][groups][64]`.
    scales: Vec<f32>,
    n_groups: usize,
    k_blocks: usize,
}

impl Prepared {
    /// Lays matrices out, one below the other: their outputs follow each other in a row of the result.
    ///
    /// # Panics
    /// If there is none, or they differ in columns or in the width of their scale groups.
    pub fn new(matrices: &[&TernaryMatrix], plan: Plan) -> Self {
        let cols = matrices.first().expect("at least one matrix").shape().cols;
        let group_width = |matrix: &TernaryMatrix| match matrix.group() {
            ScaleGroup::Matrix | ScaleGroup::Row => cols,
            ScaleGroup::Columns(width) => width,
        };
        let width = group_width(matrices[0]);
        assert!(width == cols || width.is_multiple_of(BLOCK), "groups of {width} columns cut a block of {BLOCK}");
        let n_groups = cols / width;
        let rows = matrices.iter().map(|matrix| matrix.shape().rows).sum();
        let n_superblocks = usize::div_ceil(rows, SUPERBLOCK);
        let k_blocks = cols.div_ceil(BLOCK);
        let mut codes = AlignedBytes::zeroed(n_superblocks * k_blocks * K_BLOCK_BYTES);
        codes.as_mut_slice().fill(0b01_01_01_01);
        let mut scales = vec![0.0; n_superblocks * n_groups * SUPERBLOCK];
        let mut row_idx = 0;
        for matrix in matrices {
            assert_eq!(matrix.shape().cols, cols, "stacked matrices have the same columns");
            assert_eq!(group_width(matrix), width, "stacked matrices have the same scale groups");
            for (i, trits) in matrix.trits().chunks_exact(cols).enumerate() {
                let (superblock, lane) = (row_idx / SUPERBLOCK, row_idx % SUPERBLOCK);
                let base = superblock * k_blocks * K_BLOCK_BYTES + lane / 16 * 64 + lane % 16 * 4;
                for (col, trit) in trits.iter().enumerate() {
                    let (k_block, plane, c) = (col / BLOCK, col % BLOCK / 4, col % 4);
                    let byte = &mut codes.as_mut_slice()[base + k_block * K_BLOCK_BYTES + c];
                    *byte = *byte & !(3 << (2 * plane)) | ((trit + 1) as u8) << (2 * plane);
                }
                for group in 0..n_groups {
                    scales[(superblock * n_groups + group) * SUPERBLOCK + lane] = match matrix.group() {
                        ScaleGroup::Matrix => matrix.scales()[0],
                        ScaleGroup::Row => matrix.scales()[i],
                        ScaleGroup::Columns(_) => matrix.scales()[i * n_groups + group],
                    };
                }
                row_idx += 1;
            }
        }
        Self {
            shape: Shape { rows, cols },
            plan,
            routine: routine::ternary(plan.isa),
            codes,
            scales,
            n_groups,
            k_blocks,
        }
    }

    /// Rows (of all matrices together) and columns.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Bytes of codes and scales.
    pub fn n_bytes(&self) -> usize {
        self.codes.as_slice().len() + self.scales.len() * 4
    }

    /// y `[x.n_rows(), rows]` = x · Wᵀ, or is increased by it.
    ///
    /// Each output is (Σ over groups in column order, each `(sum as f32) · scale`) · row scale of x: the same bits for
    /// every routine, number of rows at once and number of threads.
    ///
    /// # Panics
    /// If x does not have `cols` columns or y is not `n_rows × rows` long.
    pub fn gemm(&self, pool: &Pool, x: &Int8Rows, y: &mut [f32], write: Write) {
        let Shape { rows, cols } = self.shape;
        assert_eq!(x.cols(), cols, "{} columns for {:?}", x.cols(), self.shape);
        assert_eq!(y.len(), x.n_rows() * rows, "{} outputs for {} rows of {:?}", y.len(), x.n_rows(), self.shape);
        let n_rows = x.n_rows();
        let group_width = if self.n_groups == 1 { x.stride() } else { cols / self.n_groups };
        let group_sums = x.group_sums(group_width);
        let n_superblocks = rows.div_ceil(SUPERBLOCK);
        let per_piece = self.plan.superblocks_per_piece.max(1);
        let y = Parts::new(y);
        pool.for_each(n_superblocks.div_ceil(per_piece), |piece_idx| {
            let mut out = [0.0f32; routine::MAX_ROWS * SUPERBLOCK];
            for superblock in piece_idx * per_piece..((piece_idx + 1) * per_piece).min(n_superblocks) {
                let n_codes = self.k_blocks * K_BLOCK_BYTES;
                let n_scales = self.n_groups * SUPERBLOCK;
                let tile = Tile {
                    codes: &self.codes.as_slice()[superblock * n_codes..][..n_codes],
                    scales: &self.scales[superblock * n_scales..][..n_scales],
                    n_groups: self.n_groups,
                };
                let width = SUPERBLOCK.min(rows - superblock * SUPERBLOCK);
                for first in (0..n_rows).step_by(routine::MAX_ROWS) {
                    let n = routine::MAX_ROWS.min(n_rows - first);
                    let input = TileInput {
                        values: &x.padded()[first * x.stride()..][..n * x.stride()],
                        stride: x.stride(),
                        group_sums: &group_sums[first * self.n_groups..][..n * self.n_groups],
                    };
                    let out = &mut out[..n * SUPERBLOCK];
                    self.routine.run(&tile, &input, out);
                    for (i, out) in out.chunks_exact(SUPERBLOCK).enumerate() {
                        let scale = x.scales()[first + i];
                        // SAFETY: each superblock's columns are written by one piece, and y is borrowed until
                        // `for_each` returns.
                        let y = unsafe { y.part((first + i) * rows + superblock * SUPERBLOCK, width) };
                        match write {
                            Write::Store => y.iter_mut().zip(out).for_each(|(y, out)| *y = out * scale),
                            Write::Add => y.iter_mut().zip(out).for_each(|(y, out)| *y += out * scale),
                        }
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests;
