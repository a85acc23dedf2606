//! A ternary matrix packed for one plan, with the routine that reads that layout.
//!
//! The one layout serves single rows and many. Output rows are taken 64 at a time (a superblock); within it, input
//! columns 4 at a time (a step) make 64 bytes:
//!
//! ```text
//! superblock = [group] { codes [cols of the group / 4][64], scales [64] f32 }
//! bits 2p, 2p+1 of byte r·4 + c of a step  =  trit + 1 of row 16·p + r, column c of the step
//! ```
//!
//! A 64-byte register holds 16 rows × 4 columns for each of four planes p, and the dot-product instruction's lanes are
//! rows: no horizontal sums, no shuffles, and one broadcast of x for all 64 rows. Padding rows and columns hold trit 0;
//! columns are padded to 16. Scales follow their codes, so that a product reads one stream.
//!
//! A layout with columns in the planes (row 16·q + r of four registers q, column 4·p + c) needs one more operation per
//! 64 bytes and four broadcasts for one.

use std::ops::Range;

use super::matrix::{MAX_COLS, ScaleGroup, Shape, Ternary, usable_scale};
use super::plan::Plan;
use super::tile::{self, Routine, SCALE_BYTES, SUPERBLOCK, TernaryOperands};
use crate::output::{Output, Write};
use crate::rows::{BLOCK, Int8Rows};
use crate::runtime::memory::{DisjointMut, NodeChunks};
use crate::runtime::numa::Topology;
use crate::runtime::pool::Pool;

/// A matrix, or several stacked on top of each other, ready to multiply.
///
/// ```
/// use nanochat_kernels::{Int8Rows, Isa, Plan, Pool, Prepared, ScaleGroup, Shape, TernaryMatrix, Write};
///
/// let weights = [0.5, -0.5, 0.0, 0.5, 0.5, 0.5]; // [2, 3]
/// let matrix = TernaryMatrix::quantize(&weights, Shape { rows: 2, cols: 3 }, ScaleGroup::Row);
/// let prepared = Prepared::new(&[&matrix], Plan::default());
///
/// let pool = Pool::new(1);
/// let mut x = Int8Rows::new(3);
/// x.quantize(Isa::best(), &pool, &[1.0, 2.0, 3.0]);
/// let mut y = [0.0; 2];
/// prepared.gemm(&pool, &x, &mut y, Write::Store);
///
/// // The scale of the first row is mean|W| = 1/3, that of the second 1/2; x is off by at most 3/254 in each column.
/// assert!((y[0] - (1.0 - 2.0) / 3.0).abs() < 0.02);
/// assert!((y[1] - (1.0 + 2.0 + 3.0) / 2.0).abs() < 0.02);
/// ```
#[derive(Clone, Debug)]
pub struct Prepared {
    shape: Shape,
    plan: Plan,
    routine: Routine,
    /// A chunk for each superblock. Scales are divided by the routine's plane factors.
    superblocks: NodeChunks,
    n_groups: usize,
}

impl Prepared {
    /// Packs matrices stacked on top of each other: their outputs are concatenated in each row of the result.
    ///
    /// # Panics
    /// If there is none, they differ in columns or in the width of their scale groups, or have more than 131,072
    /// columns.
    pub fn new<M: Ternary>(matrices: &[&M], plan: Plan) -> Self {
        Self::on(matrices, plan, Topology::machine())
    }

    /// As [`Prepared::new`], on a machine with this topology.
    fn on<M: Ternary>(matrices: &[&M], plan: Plan, topology: &Topology) -> Self {
        let cols = matrices.first().expect("at least one matrix").shape().cols;
        assert!(cols <= MAX_COLS, "{cols} columns where 32-bit sums allow {MAX_COLS}");
        let group_width = |matrix: &M| match matrix.group() {
            ScaleGroup::Matrix | ScaleGroup::Row => cols,
            ScaleGroup::Columns(width) => width,
        };
        let width = group_width(matrices[0]);
        assert!(width == cols || width.is_multiple_of(BLOCK), "groups of {width} columns cut a block of {BLOCK}");
        let n_groups = cols / width;
        let rows = matrices.iter().map(|matrix| matrix.shape().rows).sum();
        let n_superblocks = usize::div_ceil(rows, SUPERBLOCK);
        let stride = cols.next_multiple_of(BLOCK);
        let routine = tile::routine(plan.isa);
        let mut packer = Packer {
            superblocks: NodeChunks::zeroed(topology, n_superblocks, stride * 16 + n_groups * SCALE_BYTES),
            group_steps: stride / n_groups / 4,
        };
        let factors = routine.plane_factors();
        let mut first = 0;
        for matrix in matrices {
            assert_eq!(matrix.shape().cols, cols, "stacked matrices have the same columns");
            assert_eq!(group_width(matrix), width, "stacked matrices have the same scale groups");
            matrix.each_row(&mut |i, row| packer.write_row(first + i, row));
            for i in 0..matrix.shape().rows {
                let unit = factors[(first + i) % SUPERBLOCK / 16] as f32;
                for group in 0..n_groups {
                    let scale = match matrix.group() {
                        ScaleGroup::Matrix => matrix.scales()[0],
                        ScaleGroup::Row => matrix.scales()[i],
                        ScaleGroup::Columns(_) => matrix.scales()[i * n_groups + group],
                    };
                    packer.write_scale(first + i, group, usable_scale(scale) / unit);
                }
            }
            first += matrix.shape().rows;
        }
        (rows..n_superblocks * SUPERBLOCK).for_each(|row_idx| packer.write_row(row_idx, &[]));
        Self { shape: Shape { rows, cols }, plan, routine, superblocks: packer.superblocks, n_groups }
    }

    /// Rows (of all matrices together) and columns.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The plan that it was packed for.
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// Changes the size of the pieces that threads claim. The routine stays the same, since the layout depends on it.
    pub(crate) fn set_superblocks_per_piece(&mut self, n: usize) {
        self.plan.superblocks_per_piece = n;
    }

    /// Memory taken by codes and scales, in bytes.
    pub fn n_bytes(&self) -> usize {
        self.superblocks.n_bytes()
    }

    /// y `[x.n_rows(), rows]` = x · Wᵀ, or is increased by it.
    ///
    /// Each output is (0 + Σ over groups in column order, each `(sum as f32) · scale`) · row scale of x: the same bits
    /// for every routine, number of rows at once and number of threads.
    ///
    /// # Panics
    /// If x does not have `cols` columns or y is not `n_rows × rows` long.
    pub fn gemm(&self, pool: &Pool, x: &Int8Rows, y: &mut [f32], write: Write) {
        let Shape { rows, cols } = self.shape;
        let n_rows = x.n_rows();
        assert_eq!(x.cols(), cols, "{} columns for {:?}", x.cols(), self.shape);
        assert_eq!(y.len(), n_rows * rows, "{} outputs for {n_rows} rows of {:?}", y.len(), self.shape);
        // On the stack if there are few: a product of one row is too short for an allocation.
        let (mut few, mut many) = ([[0i32; 4]; 64], Vec::new());
        let n_starts = n_rows * self.n_groups;
        let initial_sums = if n_starts <= few.len() {
            &mut few[..n_starts]
        } else {
            many.resize(n_starts, [0; 4]);
            &mut many[..]
        };
        for (start, sum) in initial_sums.iter_mut().zip(x.group_sums(self.n_groups)) {
            *start = self.routine.initial_sums(sum);
        }
        let initial_sums = &*initial_sums;
        let n_superblocks = rows.div_ceil(SUPERBLOCK);
        let n_whole = rows / SUPERBLOCK;
        let per_piece = self.plan.superblocks_per_piece.max(1);
        let y = DisjointMut::new(y);
        // 200 GOPS: a slower routine is worth sharing all the more.
        let work_ns = (rows * cols * n_rows / 100) as u64;
        pool.share(n_superblocks.div_ceil(per_piece), work_ns, |piece_idx| {
            let superblocks = piece_idx * per_piece..((piece_idx + 1) * per_piece).min(n_superblocks);
            let whole = superblocks.start..superblocks.end.min(n_whole);
            for whole in self.superblocks.runs(whole) {
                let start = y.pointer().wrapping_add(whole.start * SUPERBLOCK);
                let out = Output { start, stride: rows, add: write == Write::Add };
                // SAFETY: y is `n_rows × rows` long and borrowed until `for_each` returns; these are columns of whole
                // superblocks, which one piece writes.
                unsafe { self.routine.run(&self.operands(whole, x, initial_sums), out) };
            }
            if superblocks.end > n_whole {
                self.partial_superblock(x, initial_sums, &y, write);
            }
        });
    }

    /// The last superblock if it is partial: it is computed into a scratch buffer, and the columns that exist are
    /// copied to y.
    fn partial_superblock(&self, x: &Int8Rows, initial_sums: &[[i32; 4]], y: &DisjointMut<f32>, write: Write) {
        let rows = self.shape.rows;
        let first = rows / SUPERBLOCK * SUPERBLOCK;
        let operands = self.operands(rows / SUPERBLOCK..rows.div_ceil(SUPERBLOCK), x, initial_sums);
        let mut scratch = vec![0.0f32; x.n_rows() * SUPERBLOCK];
        let out = Output { start: scratch.as_mut_ptr(), stride: SUPERBLOCK, add: false };
        // SAFETY: `scratch` has 64 numbers for each row.
        unsafe { self.routine.run(&operands, out) };
        for (row_idx, scratch) in scratch.chunks_exact(SUPERBLOCK).enumerate() {
            // SAFETY: one piece writes these columns, and y is borrowed until `for_each` returns.
            let y = unsafe { y.part(row_idx * rows + first, rows - first) };
            match write {
                Write::Store => y.copy_from_slice(&scratch[..rows - first]),
                Write::Add => y.iter_mut().zip(scratch).for_each(|(y, value)| *y += value),
            }
        }
    }

    fn operands<'a>(
        &'a self,
        superblocks: Range<usize>,
        x: &'a Int8Rows,
        initial_sums: &'a [[i32; 4]],
    ) -> TernaryOperands<'a> {
        TernaryOperands {
            superblocks: self.superblocks.chunks(superblocks),
            n_groups: self.n_groups,
            x: x.padded(),
            stride: x.stride(),
            initial_sums,
            row_scales: x.scales(),
        }
    }
}

/// Superblocks that are being packed; all zero at first.
struct Packer {
    superblocks: NodeChunks,
    /// Steps of 4 columns in a group.
    group_steps: usize,
}

impl Packer {
    /// Writes the codes of one row, given a byte each. Missing codes are those of trit 0.
    fn write_row(&mut self, row_idx: usize, row: &[u8]) {
        let (superblock, lane) = (row_idx / SUPERBLOCK, row_idx % SUPERBLOCK);
        let shift = lane / 16 * 2;
        let four_of = |step: &mut [u8; SUPERBLOCK], codes: [u8; 4]| {
            let place = &mut step[lane % 16 * 4..][..4];
            let held = u32::from_le_bytes(place.try_into().expect("four bytes"));
            place.copy_from_slice(&(held | u32::from_le_bytes(codes) << shift).to_le_bytes());
        };
        let codes_len = self.group_steps * SUPERBLOCK;
        let mut row = row.chunks(self.group_steps * 4);
        for group in self.superblocks.chunk_mut(superblock).chunks_exact_mut(codes_len + SCALE_BYTES) {
            let (steps, _) = group[..codes_len].as_chunks_mut::<SUPERBLOCK>();
            let (fours, rest) = row.next().unwrap_or_default().as_chunks();
            let (whole, padded) = steps.split_at_mut(fours.len());
            whole.iter_mut().zip(fours).for_each(|(step, codes)| four_of(step, *codes));
            for (i, step) in padded.iter_mut().enumerate() {
                let code = |c: usize| if i == 0 { rest.get(c).copied().unwrap_or(1) } else { 1 };
                four_of(step, std::array::from_fn(code));
            }
        }
    }

    fn write_scale(&mut self, row_idx: usize, group: usize, scale: f32) {
        let (superblock, lane) = (row_idx / SUPERBLOCK, row_idx % SUPERBLOCK);
        let at = group * (self.group_steps * SUPERBLOCK + SCALE_BYTES) + self.group_steps * SUPERBLOCK + lane * 4;
        self.superblocks.chunk_mut(superblock)[at..at + 4].copy_from_slice(&scale.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests;
