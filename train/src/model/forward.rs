//! The forward pass of the graph, from tokens to the last residual.
//!
//! ```text
//! x ← embed[token]     per layer: x ← mix_out(x, attention(mix_in(x)))     x ← mix_out(x, mlp(mix_in(x)))
//! ```

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::Graph;
use super::mhc::{Mixing, Streams};
use super::params::{AttentionLayout, BlockLayout, MlpLayout};
use crate::data::Batch;
use crate::ops::attention::{Attention, AttentionOp};
use crate::ops::embed::Embed;
use crate::ops::glu::Glu;
use crate::ops::linear::NormLinear;

/// Embeds the tokens of a batch: `[N, d]`.
pub(super) fn lookup(graph: &Graph<'_>, batch: &Batch) -> Result<Tensor> {
    let op = Embed { rows: graph.head.rows.clone(), tokens: batch.tokens.clone() };
    graph.var(graph.layout.embed)?.apply_op1(op)
}

/// One layer: attention, then MLP, each mixed into the residual streams.
pub(super) fn block(
    graph: &Graph<'_>,
    layout: &BlockLayout,
    streams: Streams,
    batch: &Batch,
    rope: &Arc<(Vec<f32>, Vec<f32>)>,
) -> Result<Streams> {
    let mixing = Mixing::new(graph, layout.attn.mhc.as_ref(), &streams)?;
    let f = attention(graph, &layout.attn, &mixing.mix_in(&streams)?, batch, rope)?;
    let streams = mixing.mix_out(streams, &f)?;
    let mixing = Mixing::new(graph, layout.mlp.mhc.as_ref(), &streams)?;
    let f = mlp(graph, &layout.mlp, &mixing.mix_in(&streams)?)?;
    mixing.mix_out(streams, &f)
}

/// The attention sublayer F(h), `[N, d]`.
fn attention(
    graph: &Graph<'_>,
    layout: &AttentionLayout,
    h: &Tensor,
    batch: &Batch,
    rope: &Arc<(Vec<f32>, Vec<f32>)>,
) -> Result<Tensor> {
    let qkv = graph.norm_linear(h, layout.norm, layout.qkv)?;
    let o = qkv.apply_op1(AttentionOp::new(graph.attention(batch, rope)))?;
    graph.norm_linear(&o, layout.norm_out, layout.o)
}

/// The MLP sublayer F(h), `[N, d]`.
fn mlp(graph: &Graph<'_>, layout: &MlpLayout, h: &Tensor) -> Result<Tensor> {
    let gate_up = graph.norm_linear(h, layout.norm, layout.gate_up)?;
    let m = gate_up.apply_op1(Glu(graph.config().activation))?;
    graph.norm_linear(&m, layout.norm_down, layout.down)
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

    /// `x [N, k]` through the norm at `gain` and the matrices at `weights`: `[N, rows]`.
    fn norm_linear(&self, x: &Tensor, gain: usize, weights: usize) -> Result<Tensor> {
        let Some(stack) = self.stack(weights) else {
            candle_core::bail!("parameter {weights} is not a hidden matrix");
        };
        x.apply_op3(self.var(gain)?, self.var(weights)?, NormLinear::new(stack.clone(), self.config().norm_eps))
    }
}
