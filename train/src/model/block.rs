//! One layer: attention, then MLP, each mixed into the streams.

use std::sync::Arc;

use candle_core::Result;

use super::mhc::{Mixing, Streams};
use super::params::BlockPlaces;
use super::{Batch, Graph, attention, mlp};

pub(super) fn forward(
    graph: &Graph<'_>,
    places: &BlockPlaces,
    streams: Streams,
    batch: &Batch,
    rope: &Arc<(Vec<f32>, Vec<f32>)>,
) -> Result<Streams> {
    let mixing = Mixing::new(graph, places.attn.mhc.as_ref(), &streams)?;
    let f = attention::forward(graph, &places.attn, &mixing.mix_in(&streams)?, batch, rope)?;
    let streams = mixing.mix_out(streams, &f)?;
    let mixing = Mixing::new(graph, places.mlp.mhc.as_ref(), &streams)?;
    let f = mlp::forward(graph, &places.mlp, &mixing.mix_in(&streams)?)?;
    mixing.mix_out(streams, &f)
}
