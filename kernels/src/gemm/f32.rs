//! Products of f32: tiles of 6 or 12 rows and one or two panels.

use super::Gemm;
use super::block::Block;
use super::pack::f32::{pack_columns, pack_rows};
use super::pack::{Lhs, blocks};
use crate::isa::{Isa, compiled_per_isa};
use crate::lanes::{F32x16, LANES, first_lanes_mut};
use crate::output::Write;

/// Rows of the right side that one pass sums over: with 32 columns, half of a 32 KB L1.
pub(super) const K_BLOCK: usize = 128;
/// Rows of the left side, in L2 at the same time; a multiple of both heights of a tile.
const M_BLOCK: usize = 96;
/// Columns of the right side up to which rows of the left side are read in place, unpacked. Measured: at 64 columns
/// packing costs a quarter, at 256 reading six rows at once a third.
const UNPACKED_MAX_COLS: usize = 128;

/// The left side of a block: in place, or packed as `[m / tile][k][tile]` with arbitrary padding.
#[derive(Clone, Copy)]
enum LhsBlock<'a> {
    Rows(&'a [f32], usize),
    Packed(&'a [f32]),
}

/// As [`Gemm::write`], of a right side in f32.
pub(super) fn write(
    product: &Gemm<'_>,
    isa: Isa,
    out: &mut [f32],
    stride: usize,
    mut write: Write,
    buffer: &mut Vec<f32>,
) {
    let Gemm { m, lhs, rhs, k, n } = product;
    for k_block in blocks(k.clone(), K_BLOCK) {
        for rows in blocks(0..*m, M_BLOCK) {
            let first = k_block.start - k.start;
            let part = match lhs {
                // Six streams are read more slowly than one, so packing pays off where a row meets many panels.
                Lhs::Rows(values, stride) if n.len() > UNPACKED_MAX_COLS => {
                    let values = &values[rows.start * stride + first..];
                    pack_rows(isa, values, *stride, rows.len(), k_block.len(), buffer);
                    LhsBlock::Packed(buffer)
                }
                Lhs::Rows(values, stride) => LhsBlock::Rows(&values[rows.start * stride + first..], *stride),
                Lhs::Columns(values, stride) => {
                    let values = &values[first * stride + rows.start..];
                    pack_columns(isa, values, *stride, rows.len(), k_block.len(), buffer);
                    LhsBlock::Packed(buffer)
                }
                Lhs::Packed(_) => panic!("a left side packed in bf16 for a right side in f32"),
            };
            let out = &mut out[rows.start * stride..];
            let block = Block { m: rows.len(), rhs, k: k_block.clone(), n: n.clone(), stride, write };
            match part {
                LhsBlock::Rows(a, a_stride) => multiply_rows(isa, a, a_stride, &block, out),
                LhsBlock::Packed(a) => multiply_packed(isa, a, &block, out),
            }
        }
        write = Write::Add;
    }
}

// Two functions: as branches of one, the second costs the first its registers.
compiled_per_isa! {
    fn multiply_rows<V>(a: &[f32], a_stride: usize, block: &Block<'_>, out: &mut [f32]) {
        for first in block.panel_starts::<V>() {
            match block.panels(first) {
                Some(panels) if V::HAS_32_REGISTERS => {
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
    fn multiply_packed<V>(a: &[f32], block: &Block<'_>, out: &mut [f32]) {
        for first in block.panel_starts::<V>() {
            match block.panels(first) {
                Some(panels) if V::HAS_32_REGISTERS => packed_tiles::<V, 12, 2>(a, panels, out, block, first),
                _ if V::HAS_32_REGISTERS => packed_tiles::<V, 12, 1>(a, [block.panel(first)], out, block, first),
                _ => packed_tiles::<V, 6, 1>(a, [block.panel(first)], out, block, first),
            }
        }
    }
}

/// Multiplies as many tiles of `R` rows and `P` panels as fit from `row` on; returns the first row that is left.
#[inline(always)]
fn rows_tiles<V: F32x16, const R: usize, const P: usize>(
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
            let b = load_rhs::<V, P>(&panels, k);
            for r in 0..R {
                accumulate::<V, P>(rows[r][k], &b, &mut sums[r]);
            }
        }
        store_tile::<V, R, P>(sums, &mut out[row * block.stride..], block, R, first);
        row += R;
    }
    row
}

#[inline(always)]
fn packed_tiles<V: F32x16, const R: usize, const P: usize>(
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
            let b = load_rhs::<V, P>(&panels, k);
            for r in 0..R {
                accumulate::<V, P>(a[r], &b, &mut sums[r]);
            }
        }
        let row = tile_idx * R;
        store_tile::<V, R, P>(sums, &mut out[row * block.stride..], block, R.min(block.m - row), first);
    }
}

#[inline(always)]
fn load_rhs<V: F32x16, const P: usize>(panels: &[&[[f32; LANES]]; P], k: usize) -> [V; P] {
    std::array::from_fn(
        #[inline(always)]
        |p| V::load(&panels[p][k]),
    )
}

#[inline(always)]
fn accumulate<V: F32x16, const P: usize>(a: f32, b: &[V; P], sums: &mut [V; P]) {
    let a = V::splat(a);
    for p in 0..P {
        sums[p] = a.mul_add(b[p], sums[p]);
    }
}

/// Writes the sums of a tile whose first column is `first`, the first `n_rows` of them.
#[inline(always)]
fn store_tile<V: F32x16, const R: usize, const P: usize>(
    sums: [[V; P]; R],
    out: &mut [f32],
    block: &Block<'_>,
    n_rows: usize,
    first: usize,
) {
    let out = &mut out[first - block.n.start..];
    // For a whole tile, each sum stays in its register until it is written.
    if n_rows == R && first + P * LANES <= block.n.end {
        for r in 0..R {
            for p in 0..P {
                let out = first_lanes_mut(&mut out[r * block.stride + p * LANES..]);
                let sum = if block.write == Write::Add { V::load(out).add(sums[r][p]) } else { sums[r][p] };
                sum.store(out);
            }
        }
        return;
    }
    for p in 0..P {
        let width = LANES.min(block.n.end - first - p * LANES);
        for r in 0..n_rows {
            let mut scratch = [0.0; LANES];
            sums[r][p].store(&mut scratch);
            for (out, sum) in out[r * block.stride + p * LANES..][..width].iter_mut().zip(scratch) {
                *out = if block.write == Write::Add { *out + sum } else { sum };
            }
        }
    }
}
