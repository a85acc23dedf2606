//! Looks rows of the int8 embedding up; the gradient goes straight through the rounding.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use nanochat_engine::model::weights::Int8Matrix;

use super::{matrix, with_slice};

/// Looks `tokens` up, `[N, d]`.
pub(crate) fn forward(rows: &Int8Matrix, tokens: &[u32], x: &mut [f32]) {
    for (x, token) in x.chunks_exact_mut(rows.cols).zip(tokens) {
        rows.row_into(*token as usize, x);
    }
}

/// Adds the gradient of the looked up rows to that of the embedding.
pub(crate) fn backward(tokens: &[u32], dx: &[f32], d: usize, d_embed: &mut [f32]) {
    for (dx, token) in dx.chunks_exact(d).zip(tokens) {
        for (sum, dx) in d_embed[*token as usize * d..][..d].iter_mut().zip(dx) {
            *sum += dx;
        }
    }
}

/// The operation: master embedding `[V, d]` → `[N, d]`. The values come from `rows`.
pub struct Embed {
    /// The master embedding, rounded.
    pub rows: Arc<Int8Matrix>,
    /// What to look up, `[N]`.
    pub tokens: Arc<Vec<u32>>,
}

impl CustomOp1 for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn cpu_fwd(&self, _embed: &CpuStorage, _layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let d = self.rows.cols;
        let mut x = vec![0.0; self.tokens.len() * d];
        forward(&self.rows, &self.tokens, &mut x);
        Ok((CpuStorage::F32(x), Shape::from((self.tokens.len(), d))))
    }

    fn bwd(&self, _embed: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let d = self.rows.cols;
        let mut d_embed = vec![0.0; self.rows.rows * d];
        with_slice(grad, |grad| backward(&self.tokens, grad, d, &mut d_embed))?;
        Ok(Some(matrix(d_embed, self.rows.rows, d)?))
    }
}
