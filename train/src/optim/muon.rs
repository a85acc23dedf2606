//! Muon (Jordan 2024), with decoupled decay:
//!
//! ```text
//! m ← β m + (1 − β) g        u = (1 − β) g + β m        X = u / ‖u‖_F
//! ns_steps × X ← a X + (b A + c A²) X,  A = X·Xᵀ
//! w ← w − η (√max(1, rows / cols) · X + λ w)
//! ```
//!
//! For hidden matrices only; not for embeddings, the head, norms or mHC-lite.

use std::cell::RefCell;

use nanochat_kernels::{Gemm, Isa, Lhs, PackBuffer, Panels, Precision, Write};
use serde::{Deserialize, Serialize};

use super::Update;
use crate::ops::{simd, sized, transpose};

/// Hyperparameters of Muon: the `[optimizer.muon]` section of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Muon {
    /// Peak learning rate η.
    pub lr: f64,
    /// Decay β of the momentum.
    pub beta: f32,
    /// Number of Newton–Schulz iterations.
    pub ns_steps: usize,
    /// Decoupled weight decay λ.
    pub weight_decay: f32,
}

/// Coefficients of the quintic (Jordan 2024: the steepest at 0 that still lands within 0.7..1.2).
const QUINTIC: (f32, f32, f32) = (3.4445, -4.7750, 2.0315);

impl Muon {
    /// Updates a `[rows, cols]` matrix `w` and its momentum `m` by the gradient `g`, at the rate `update.factor` · η.
    /// Matrix products use `update.precision`.
    pub fn step(&self, w: &mut [f32], m: &mut [f32], g: &[f32], rows: usize, update: Update) {
        thread_local! {
            // Memory that is new in each step costs as much as the products do.
            static BUFFERS: RefCell<Buffers> = RefCell::default();
        }
        BUFFERS.with_borrow_mut(|buffers| {
            let (cols, lr) = (w.len() / rows, (self.lr * update.factor) as f32);
            let u = sized(&mut buffers.u, g.len());
            simd::dispatch(
                #[inline(always)]
                || {
                    for ((u, m), g) in u.iter_mut().zip(m).zip(g) {
                        *m = self.beta * *m + (1.0 - self.beta) * g;
                        *u = (1.0 - self.beta) * g + self.beta * *m;
                    }
                },
            );
            let x = buffers.orthogonalize(rows, self.ns_steps, update.precision);
            let gain = (rows as f32 / cols as f32).max(1.0).sqrt();
            simd::dispatch(
                #[inline(always)]
                || {
                    for (w, x) in w.iter_mut().zip(x) {
                        *w -= lr * (gain * x + self.weight_decay * *w);
                    }
                },
            );
        });
    }
}

/// Buffers of one worker, kept from step to step.
#[derive(Default)]
struct Buffers {
    /// The update; then the result, for a matrix that is taller than wide.
    u: Vec<f32>,
    x: Vec<f32>,
    next: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    panels: Panels,
    pack: PackBuffer,
}

impl Buffers {
    /// A matrix with the singular vectors of `u` `[rows, cols]` and singular values near 1.
    fn orthogonalize(&mut self, rows: usize, ns_steps: usize, precision: Precision) -> &[f32] {
        let Self { u, x, next, a, b, panels, pack } = self;
        let cols = u.len() / rows;
        let norm = simd::square_sum(u).sqrt();
        let inverse = (1.0 / (norm + 1e-7)) as f32; // 1e-7: a gradient of zeros gives zeros
        u.iter_mut().for_each(|u| *u *= inverse);
        // The product X·Xᵀ is smaller on the wide side.
        let is_tall = rows > cols;
        let (m, n) = (rows.min(cols), rows.max(cols));
        let [x, next] = [x, next].map(|buffer| sized(buffer, m * n));
        if is_tall {
            transpose(u, rows, cols, x);
        } else {
            x.copy_from_slice(u);
        }
        let [a, b] = [a, b].map(|buffer| sized(buffer, m * m));
        panels.set_precision(precision);
        let (mut x, mut next) = (x, next);
        for _ in 0..ns_steps {
            panels.fill_columns(n, m, x, n);
            symmetric(x, n, panels, a, pack);
            panels.fill_rows(m, m, a, m);
            symmetric(a, m, panels, b, pack);
            simd::dispatch(
                #[inline(always)]
                || {
                    b.iter_mut().zip(&*a).for_each(|(b, a)| *b = QUINTIC.1 * a + QUINTIC.2 * *b);
                    next.iter_mut().zip(&*x).for_each(|(next, x)| *next = QUINTIC.0 * x);
                },
            );
            panels.fill_rows(m, n, x, n);
            Gemm::new(m, Lhs::Rows(b, m), panels).write(Isa::best(), next, n, Write::Add, pack);
            std::mem::swap(&mut x, &mut next);
        }
        if is_tall {
            transpose(x, cols, rows, u);
            u
        } else {
            x
        }
    }
}

/// left `[m, k]` · right `[k, m]` where that is symmetric: the part below the diagonal is copied.
fn symmetric(left: &[f32], k: usize, right: &Panels, out: &mut [f32], pack: &mut PackBuffer) {
    const ROWS: usize = 96; // whole tiles of 12 or of 32
    let m = left.len() / k;
    for first in (0..m).step_by(ROWS) {
        let rows = ROWS.min(m - first);
        let product = Gemm { m: rows, lhs: Lhs::Rows(&left[first * k..], k), rhs: right, k: 0..k, n: first..m };
        product.write(Isa::best(), &mut out[first * m + first..], m, Write::Store, pack);
    }
    for row in 1..m {
        let (above, below) = out.split_at_mut(row * m);
        for (col, value) in below[..row].iter_mut().enumerate() {
            *value = above[col * m + row];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nanochat_engine::rng::Rng;

    #[test]
    fn the_update_is_nearly_orthogonal() {
        let mut rng = Rng::new(3);
        for (rows, cols) in [(8, 24), (24, 8), (16, 16)] {
            let u: Vec<f32> = (0..rows * cols).map(|_| rng.normal()).collect();
            for precision in [Precision::F32, Precision::Bf16] {
                // What they held before must not show.
                let mut buffers = Buffers { u: u.clone(), x: vec![9.0; 300], a: vec![9.0; 9], ..Buffers::default() };
                let x = buffers.orthogonalize(rows, 5, precision);
                // Σ σ² = ‖X‖², with every σ within 0.7..1.2 except very small ones of a square matrix.
                let mean_square = x.iter().map(|x| x * x).sum::<f32>() / rows.min(cols) as f32;
                assert!((0.4..1.45).contains(&mean_square), "{rows} × {cols}, {precision:?}: {mean_square}");
            }
        }
    }

    #[test]
    fn a_gradient_of_zeros_moves_nothing() {
        let muon = Muon { lr: 0.1, beta: 0.9, ns_steps: 5, weight_decay: 0.0 };
        let (mut w, mut m) = (vec![1.0; 6], vec![0.0; 6]);
        muon.step(&mut w, &mut m, &[0.0; 6], 2, Update { factor: 1.0, precision: Precision::F32, step: 1 });
        assert_eq!(w, [1.0; 6]);
    }
}
