//! Tokens to the first residual.

use candle_core::{Result, Tensor};

use super::{Batch, Graph};
use crate::ops::embed::Embed;

/// `[N, d]`.
pub(super) fn lookup(graph: &Graph<'_>, batch: &Batch) -> Result<Tensor> {
    let op = Embed { rows: graph.head.rows.clone(), tokens: batch.tokens.clone() };
    graph.var(graph.places.embed)?.apply_op1(op)
}
