//! Muon (Jordan 2024), with decoupled decay:
//!
//! ```text
//! m ← β m + (1 − β) g        u = (1 − β) g + β m        X = u / ‖u‖_F
//! ns_steps × X ← a X + (b A + c A²) X,  A = X·Xᵀ
//! w ← w − η (√max(1, rows / cols) · X + λ w)
//! ```
//!
//! For hidden matrices only; not for embeddings, the head, norms or mHC-lite.

use candle_core::Result;
use serde::{Deserialize, Serialize};

use crate::ops::matrix;

/// Muon's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Muon {
    /// η at the top of the schedule.
    pub lr: f64,
    /// Weight of the past.
    pub beta: f32,
    /// Newton–Schulz iterations.
    pub ns_steps: usize,
    /// λ.
    pub weight_decay: f32,
}

/// Coefficients of the quintic (Jordan 2024: the steepest at 0 that still lands within 0.7..1.2).
const QUINTIC: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);

impl Muon {
    /// One step of a `[rows, cols]` matrix.
    pub fn step(&self, w: &mut [f32], m: &mut [f32], g: &[f32], rows: usize, lr: f32) -> Result<()> {
        let cols = w.len() / rows;
        let mut u = vec![0.0; g.len()];
        for ((u, m), g) in u.iter_mut().zip(m).zip(g) {
            *m = self.beta * *m + (1.0 - self.beta) * g;
            *u = (1.0 - self.beta) * g + self.beta * *m;
        }
        let x = orthogonalize(u, rows, cols, self.ns_steps)?;
        let gain = (rows as f32 / cols as f32).max(1.0).sqrt();
        for (w, x) in w.iter_mut().zip(x) {
            *w -= lr * (gain * x + self.weight_decay * *w);
        }
        Ok(())
    }
}

/// A matrix with the singular vectors of `u` and singular values near 1.
fn orthogonalize(mut u: Vec<f32>, rows: usize, cols: usize, ns_steps: usize) -> Result<Vec<f32>> {
    let norm = u.iter().map(|u| f64::from(*u) * f64::from(*u)).sum::<f64>().sqrt();
    let inverse = (1.0 / (norm + 1e-7)) as f32; // 1e-7: a gradient of zeros gives zeros
    u.iter_mut().for_each(|u| *u *= inverse);
    let x = matrix(u, rows, cols)?;
    let tall = rows > cols;
    // The product X·Xᵀ is smaller on the wide side.
    let mut x = if tall { x.t()?.contiguous()? } else { x };
    for _ in 0..ns_steps {
        let a = x.matmul(&x.t()?)?;
        let b = ((&a * QUINTIC.1)? + (a.matmul(&a)? * QUINTIC.2)?)?;
        x = ((&x * QUINTIC.0)? + b.matmul(&x)?)?;
    }
    let x = if tall { x.t()?.contiguous()? } else { x };
    x.flatten_all()?.to_vec1()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nanochat_engine::rng::Rng;

    #[test]
    fn the_update_is_nearly_orthogonal() {
        let mut rng = Rng::new(3);
        for (rows, cols) in [(8, 24), (24, 8), (16, 16)] {
            let u = (0..rows * cols).map(|_| rng.normal()).collect();
            let x = orthogonalize(u, rows, cols, 5).expect("shapes agree");
            // Σ σ² = ‖X‖², with every σ within 0.7..1.2 except very small ones of a square matrix.
            let mean_square = x.iter().map(|x| x * x).sum::<f32>() / rows.min(cols) as f32;
            assert!((0.4..1.45).contains(&mean_square), "{rows} × {cols}: {mean_square}");
        }
    }

    #[test]
    fn a_gradient_of_zeros_moves_nothing() {
        let muon = Muon { lr: 0.1, beta: 0.9, ns_steps: 5, weight_decay: 0.0 };
        let (mut w, mut m) = (vec![1.0; 6], vec![0.0; 6]);
        muon.step(&mut w, &mut m, &[0.0; 6], 2, 0.1).expect("shapes agree");
        assert_eq!(w, [1.0; 6]);
    }
}
