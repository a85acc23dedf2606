//! A norm and the ternary product that follows it.

use candle_core::{Result, Tensor};

use super::Graph;
use crate::ops::linear::NormLinear;

impl Graph<'_> {
    /// `x [N, k]` through the norm at `gain` and the matrices at `weights`: `[N, rows]`.
    pub(super) fn norm_linear(&self, x: &Tensor, gain: usize, weights: usize) -> Result<Tensor> {
        let Some(stack) = self.stack(weights) else {
            candle_core::bail!("parameter {weights} is not a hidden matrix");
        };
        x.apply_op3(self.var(gain)?, self.var(weights)?, NormLinear::new(stack.clone(), self.config().norm_eps))
    }
}
