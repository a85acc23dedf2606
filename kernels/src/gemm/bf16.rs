//! Products of numbers rounded to bf16, summed in f32.
//!
//! ```text
//! AMX: tiles of 32 × 32 sums        AVX512-BF16: tiles of 12 × 32        otherwise: f32 arithmetic on what was rounded
//! ```
//!
//! Whole numbers within ±256 are exact in bf16, and so are their sums below 2²⁴, on every unit. Of other numbers the
//! units round their sums differently: a result belongs to a kind of CPU. Denormals may count as 0.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;

use super::Gemm;
use super::block::Block;
use super::pack::bf16::{
    Bf16Line, K_BLOCK, Strided, TILE_ROWS, WIDTH, k_block_start, pack_rows, pack_transposed, resize,
};
use super::pack::{Lhs, blocks};
use super::unit::Unit;
use crate::isa::{Isa, compiled_per_isa};
use crate::lanes::LANES;
use crate::output::Write;

/// Rows of the left side, in L2 at the same time; a multiple of a tile's 32.
const M_BLOCK: usize = 128;

/// As [`Gemm::write`] with a right side in bf16; with [`Write::Add`], each unit adds the old
/// output at its own place in the sum.
pub(super) fn write(
    product: &Gemm<'_>,
    unit: Unit,
    isa: Isa,
    out: &mut [f32],
    stride: usize,
    mut write: Write,
    buffer: &mut Vec<Bf16Line>,
) {
    let Gemm { m, lhs, rhs, k, n } = product;
    assert!(k.start.is_multiple_of(2), "pairs from {} on", k.start);
    if let Lhs::Packed(packed) = lhs {
        assert!(packed.m == *m && *k == (0..packed.k), "{} × {} for {m} × {k:?}", packed.m, packed.k);
    }
    for k_block in blocks(k.clone(), K_BLOCK) {
        let first = k_block.start - k.start;
        for rows in blocks(0..*m, M_BLOCK) {
            let a: &[Bf16Line] = match *lhs {
                Lhs::Packed(packed) => {
                    let n_lines = k_block.len().div_ceil(WIDTH);
                    let start = k_block_start(packed.m, first) + rows.start * n_lines;
                    &packed.lines[start..][..rows.len().next_multiple_of(TILE_ROWS) * n_lines]
                }
                Lhs::Rows(values, stride) => {
                    let values = &values[rows.start * stride + first..];
                    let part = Strided { values, stride, n_rows: rows.len(), n_cols: k_block.len() };
                    resize(buffer, rows.len(), k_block.len());
                    pack_rows(unit, isa, part, buffer);
                    &*buffer
                }
                Lhs::Columns(values, stride) => {
                    let values = &values[first * stride + rows.start..];
                    let part = Strided { values, stride, n_rows: k_block.len(), n_cols: rows.len() };
                    resize(buffer, rows.len(), k_block.len());
                    pack_transposed(unit, isa, part, buffer);
                    &*buffer
                }
            };
            let out = &mut out[rows.start * stride..];
            let block = Block { m: rows.len(), rhs, k: k_block.clone(), n: n.clone(), stride, write };
            match unit {
                Unit::Portable => plain(isa, a, &block, out),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the unit exists only where AVX512-BF16 was found.
                Unit::Avx512 => unsafe { avx512::tiles(a, &block, out) },
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                // SAFETY: the unit exists only where AMX was found and allowed.
                Unit::Amx => unsafe { amx::tiles(a, &block, out) },
            }
        }
        write = Write::Add;
    }
}

compiled_per_isa! {
    fn plain<V>(a: &[Bf16Line], block: &Block<'_>, out: &mut [f32]) {
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
                let lhs = row.iter().flat_map(|line| line.0);
                for (a, b) in lhs.zip(block.lines(first)) {
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

#[cfg(test)]
mod tests;
