//! The MLP half of a block, from mixed-in residual to what is mixed out.

use candle_core::{Result, Tensor};

use super::Graph;
use super::params::MlpPlaces;
use crate::ops::gate::Gate;

/// F(h) `[N, d]`.
pub(super) fn forward(graph: &Graph<'_>, places: &MlpPlaces, h: &Tensor) -> Result<Tensor> {
    let gate_up = graph.norm_linear(h, places.norm, places.gate_up)?;
    let m = gate_up.apply_op1(Gate(graph.config().activation))?;
    graph.norm_linear(&m, places.norm_down, places.down)
}
