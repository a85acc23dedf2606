//! The attention half of a block, from mixed-in residual to what is mixed out.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::params::AttentionPlaces;
use super::{Batch, Graph};
use crate::ops::attention::{Attention, AttentionOp};

/// F(h) `[N, d]`.
pub(super) fn forward(
    graph: &Graph<'_>,
    places: &AttentionPlaces,
    h: &Tensor,
    batch: &Batch,
    rope: &Arc<(Vec<f32>, Vec<f32>)>,
) -> Result<Tensor> {
    let qkv = graph.norm_linear(h, places.norm, places.qkv)?;
    let o = qkv.apply_op1(AttentionOp::new(graph.attention(batch, rope)))?;
    graph.norm_linear(&o, places.norm_out, places.o)
}

impl Graph<'_> {
    /// Attention over the rows of a batch.
    pub(crate) fn attention(&self, batch: &Batch, rope: &Arc<(Vec<f32>, Vec<f32>)>) -> Attention {
        Attention {
            n_heads: self.config().n_heads,
            n_kv_heads: self.config().n_kv_heads,
            head_dim: self.config().head_dim(),
            seq_len: batch.seq_len,
            starts: batch.starts.clone(),
            rope: rope.clone(),
            precision: self.precision(),
        }
    }
}
