//! Matrix products for training, on the caller's own core: of f32, or of numbers rounded to bf16.
//!
//! ```text
//! for blocks of K columns                                    C keeps its sums in between
//!   for blocks of M rows                                     the block of the left side stays in L2
//!     for one or two panels of 16 columns of the right side  its panels stay in L1
//!       for tiles of 6 or 12 rows: sums[r][0..16] += left[r][k] · right[k][0..16]
//! ```
//!
//! A sum runs over k in ascending order within a block, and over the blocks in ascending order: the same bits on every
//! instruction set, for every number of rows at once. The right side is packed once and used for many products, which
//! a general gemm cannot do; the left side is packed into tiles, unless it is read too few times for that to pay off.

mod precision;
mod unit;
mod pack;
mod block;
mod f32;
mod bf16;
mod measure;

use std::ops::Range;

use crate::isa::Isa;
use crate::lanes::LANES;
use crate::output::Write;
use unit::Unit;

pub use pack::{Lhs, PackBuffer, PackedLhs, PackedMatrix, Panels};
pub use precision::Precision;

/// A product `[m, k] · [k, n]`.
#[derive(Clone, Debug)]
pub struct Gemm<'a> {
    /// Rows of the left side.
    pub m: usize,
    /// The left side. Its column 0 meets row `k.start` of the right side.
    pub lhs: Lhs<'a>,
    /// The right side, packed.
    pub rhs: &'a Panels,
    /// Rows of the right side to sum over.
    pub k: Range<usize>,
    /// Columns of the right side to compute; starts at a multiple of 16.
    pub n: Range<usize>,
}

impl<'a> Gemm<'a> {
    /// A product with the whole right side.
    pub fn new(m: usize, lhs: Lhs<'a>, rhs: &'a Panels) -> Self {
        let (k, n) = rhs.shape();
        Self { m, lhs, rhs, k: 0..k, n: 0..n }
    }

    /// Writes rows of `n.len()` numbers, `stride` apart. `buffer` is scratch.
    ///
    /// # Panics
    /// If a range is not within the right side, `n` does not start at a multiple of 16 or, in bf16, `k` at an even row,
    /// an operand or `out` is too short, or a packed left side is used in part or with another precision.
    pub fn write(&self, isa: Isa, out: &mut [f32], stride: usize, write: Write, buffer: &mut PackBuffer) {
        let Self { m, rhs, k, n, .. } = self;
        let (all_k, all_n) = rhs.shape();
        assert!(k.end <= all_k && n.end <= all_n, "{k:?} × {n:?} of {all_k} × {all_n}");
        assert!(n.start.is_multiple_of(LANES), "columns from {} on", n.start);
        if *m == 0 || n.is_empty() {
            return;
        }
        assert!(out.len() >= (m - 1) * stride + n.len(), "{} outputs for {m} rows of {}", out.len(), n.len());
        if k.is_empty() && write == Write::Store {
            out.chunks_mut(stride).take(*m).for_each(|row| row[..n.len()].fill(0.0));
        }
        if rhs.precision() == Precision::Bf16 {
            return bf16::write(self, Unit::best(), isa, out, stride, write, &mut buffer.lines);
        }
        f32::write(self, isa, out, stride, write, &mut buffer.values);
    }
}

#[cfg(test)]
mod tests;
