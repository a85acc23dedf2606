//! Lion (Chen et al. 2023, arXiv 2302.06675), with decoupled decay:
//!
//! ```text
//! w ← w − η (sign(β₁ m + (1 − β₁) g) + λ w)        m ← β₂ m + (1 − β₂) g
//! ```
//!
//! For embeddings, norms and mHC-lite. Every entry moves by η, so η is about a tenth of AdamW's.

use serde::{Deserialize, Serialize};

use crate::ops::simd;

/// Hyperparameters of Lion: the `[optimizer.lion]` section of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lion {
    /// Peak learning rate η of the embedding.
    pub lr: f64,
    /// Peak learning rate η of norms and mHC-lite: their entries are of order 1, the embedding's of order 0.02.
    pub lr_gains: f64,
    /// Interpolation β₁ of momentum and gradient in the update.
    pub beta1: f32,
    /// Decay β₂ of the momentum.
    pub beta2: f32,
    /// Decoupled weight decay λ, on the embedding only.
    pub weight_decay: f32,
}

impl Lion {
    /// Updates weights `w` and momentum `m` by gradients `g`, all of one length; `decay` is λ.
    pub fn step(&self, w: &mut [f32], m: &mut [f32], g: &[f32], lr: f32, decay: f32) {
        simd::dispatch(
            #[inline(always)]
            || {
                for ((w, m), g) in w.iter_mut().zip(m).zip(g) {
                    let direction = self.beta1 * *m + (1.0 - self.beta1) * g;
                    // `signum` of 0 is 1: an entry that never had a gradient must stay where it is.
                    let sign = if direction == 0.0 { 0.0 } else { 1.0f32.copysign(direction) };
                    *w -= lr * (sign + decay * *w);
                    *m = self.beta2 * *m + (1.0 - self.beta2) * g;
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_follows_the_formula() {
        let lion = Lion { lr: 0.0, lr_gains: 0.0, beta1: 0.9, beta2: 0.99, weight_decay: 0.0 };
        let (mut w, mut m) = ([1.0f32, 1.0, 1.0], [1.0f32, 0.0, 0.0]);
        lion.step(&mut w, &mut m, &[-1.0, -1.0, 0.0], 0.1, 0.5);
        // Directions: 0.9 − 0.1 > 0, −0.1 < 0, 0. Steps: −0.1·(±1 or 0 + 0.5).
        for (w, expected) in w.iter().zip([0.85, 1.05, 0.95]) {
            assert!((w - expected).abs() < 1e-6);
        }
        for (m, expected) in m.iter().zip([0.98, -0.01, 0.0]) {
            assert!((m - expected).abs() < 1e-6);
        }
    }
}
