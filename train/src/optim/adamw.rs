//! AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), with decoupled decay:
//!
//! ```text
//! m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
//! w ← w − η (m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε) + λ w)
//! ```

use serde::{Deserialize, Serialize};

use crate::ops::simd;

/// Hyperparameters of AdamW: the `[optimizer.adamw]` section of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    /// Peak learning rate η of matrices.
    pub lr: f64,
    /// Peak learning rate η of norms and mHC-lite.
    pub lr_gains: f64,
    /// Decay β₁ of the running mean of gradients.
    pub beta1: f64,
    /// Decay β₂ of the running mean of squared gradients.
    pub beta2: f64,
    /// ε, added to the root in the denominator.
    pub eps: f32,
    /// Decoupled weight decay λ, on matrices only.
    pub weight_decay: f32,
}

/// Learning rate and decay of one step.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Learning rate η of this step.
    pub lr: f32,
    /// Weight decay λ.
    pub decay: f32,
    /// Step t, counted from 1: corrects the bias of the first steps.
    pub step: usize,
}

impl AdamW {
    /// Updates weights `w`, first moments `m` and second moments `v` by gradients `g`, all of one length.
    pub fn step(&self, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], rate: Rate) {
        let t = i32::try_from(rate.step).unwrap_or(i32::MAX);
        let (by_m, by_v) = ((1.0 / (1.0 - self.beta1.powi(t))) as f32, (1.0 / (1.0 - self.beta2.powi(t))) as f32);
        let (beta1, beta2) = (self.beta1 as f32, self.beta2 as f32);
        simd::dispatch(
            #[inline(always)]
            || {
                for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    *w -= rate.lr * (*m * by_m / ((*v * by_v).sqrt() + self.eps) + rate.decay * *w);
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_the_formula() {
        let adamw = AdamW { lr: 0.0, lr_gains: 0.0, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 };
        let (mut w, mut m, mut v) = ([1.0f32, 2.0], [0.0f32; 2], [0.0f32; 2]);
        // The first step has the length of the rate whatever the gradient: m̂ / √v̂ = sign g.
        adamw.step(&mut w, &mut m, &mut v, &[3.0, -0.01], Rate { lr: 0.1, decay: 0.0, step: 1 });
        assert!((w[0] - 0.9).abs() < 1e-5 && (w[1] - 2.1).abs() < 1e-5, "{w:?}");
        adamw.step(&mut w, &mut m, &mut v, &[0.0, 0.0], Rate { lr: 0.1, decay: 0.5, step: 2 });
        let expected = |w: f64, g: f64| {
            let (m, v) = (0.9 * 0.1 * g / (1.0 - 0.81), 0.99 * 0.01 * g * g / (1.0 - 0.9801));
            w - 0.1 * (m / (v.sqrt() + 1e-8) + 0.5 * w)
        };
        assert!((f64::from(w[0]) - expected(0.9, 3.0)).abs() < 1e-5, "{w:?}");
        assert!((f64::from(w[1]) - expected(2.1, -0.01)).abs() < 1e-5, "{w:?}");
    }
}
