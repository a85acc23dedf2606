//! A block of a product: some rows, some k, whose operands stay in cache.

use std::ops::Range;

use super::pack::Panels;
use super::pack::bf16::{Bf16Line, WIDTH};
use crate::lanes::{F32x16, LANES};
use crate::output::Write;

/// `m` rows of the left side times rows `k` and columns `n` of the right side; rows of the output are `stride` apart.
pub(super) struct Block<'a> {
    pub(super) m: usize,
    pub(super) rhs: &'a Panels,
    pub(super) k: Range<usize>,
    pub(super) n: Range<usize>,
    pub(super) stride: usize,
    pub(super) write: Write,
}

impl<'a> Block<'a> {
    /// The first column of each run of panels that are multiplied at once.
    #[inline(always)]
    pub(super) fn panel_starts<V: F32x16>(&self) -> impl Iterator<Item = usize> {
        (self.n.start..self.n.end).step_by(if V::HAS_32_REGISTERS { 2 * LANES } else { LANES })
    }

    /// The panel that starts at column `first`.
    #[inline(always)]
    pub(super) fn panel(&self, first: usize) -> &'a [[f32; LANES]] {
        self.rhs.panel(first / LANES, self.k.clone())
    }

    /// The panel at `first` and the next one, if columns are left for it.
    #[inline(always)]
    pub(super) fn panels(&self, first: usize) -> Option<[&'a [[f32; LANES]]; 2]> {
        (first + LANES < self.n.end).then(|| [self.panel(first), self.panel(first + LANES)])
    }
}

impl Block<'_> {
    /// The number of lines of a row of the left side.
    pub(super) fn n_lines(&self) -> usize {
        self.k.len().div_ceil(WIDTH)
    }

    /// The lines of a panel of the right side from the start of the block, a whole number of tiles.
    pub(super) fn lines(&self, first: usize) -> &[Bf16Line] {
        &self.rhs.pairs(first / LANES, &self.k)[..self.n_lines() * LANES]
    }
}
