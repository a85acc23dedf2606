//! Tiles of 6 or 12 rows of a left side, `[m / tile][k][tile]`.

use crate::isa::compiled_per_isa;

compiled_per_isa! {
    pub(in crate::gemm) fn pack_columns<V>(values: &[f32], stride: usize, m: usize, k: usize, out: &mut Vec<f32>) {
        if V::HAS_32_REGISTERS {
            pack_columns_by::<12>(values, stride, m, k, out);
        } else {
            pack_columns_by::<6>(values, stride, m, k, out);
        }
    }
}

#[inline(always)]
fn pack_columns_by<const R: usize>(values: &[f32], stride: usize, m: usize, k: usize, out: &mut Vec<f32>) {
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
    pub(in crate::gemm) fn pack_rows<V>(values: &[f32], stride: usize, m: usize, k: usize, out: &mut Vec<f32>) {
        if V::HAS_32_REGISTERS {
            pack_rows_by::<12>(values, stride, m, k, out);
        } else {
            pack_rows_by::<6>(values, stride, m, k, out);
        }
    }
}

#[inline(always)]
fn pack_rows_by<const R: usize>(values: &[f32], stride: usize, m: usize, k: usize, out: &mut Vec<f32>) {
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
