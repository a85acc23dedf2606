//! Muon (Jordan 2024), with decoupled decay:
//!
//! ```text
//! m ← β m + (1 − β) g        u = (1 − β) g + β m        X = u / ‖u‖_F
//! ns_steps × X ← a X + (b A + c A²) X,  A = X·Xᵀ
//! w ← w − η (√max(1, rows / cols) · X + λ w)
//! ```
//!
//! For hidden matrices only; not for embeddings, the head, norms or mHC-lite.

use nanochat_kernels::{Aside, Isa, Left, Panels, Precision, Product, Write};
use serde::{Deserialize, Serialize};

use super::Update;
use crate::ops::simd;

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
const QUINTIC: (f32, f32, f32) = (3.4445, -4.7750, 2.0315);

impl Muon {
    /// One step of a `[rows, cols]` matrix at the rate `update.factor` · η. Its products are made in `update.precision`.
    pub fn step(&self, w: &mut [f32], m: &mut [f32], g: &[f32], rows: usize, update: Update) {
        let (cols, lr) = (w.len() / rows, (self.lr * update.factor) as f32);
        let mut u = vec![0.0; g.len()];
        simd::dispatch(
            #[inline(always)]
            || {
                for ((u, m), g) in u.iter_mut().zip(m).zip(g) {
                    *m = self.beta * *m + (1.0 - self.beta) * g;
                    *u = (1.0 - self.beta) * g + self.beta * *m;
                }
            },
        );
        let x = orthogonalize(u, rows, self.ns_steps, update.precision);
        let gain = (rows as f32 / cols as f32).max(1.0).sqrt();
        simd::dispatch(
            #[inline(always)]
            || {
                for (w, x) in w.iter_mut().zip(&x) {
                    *w -= lr * (gain * x + self.weight_decay * *w);
                }
            },
        );
    }
}

/// A matrix with the singular vectors of `u` and singular values near 1.
fn orthogonalize(mut u: Vec<f32>, rows: usize, ns_steps: usize, precision: Precision) -> Vec<f32> {
    let cols = u.len() / rows;
    let norm = simd::square_sum(&u).sqrt();
    let inverse = (1.0 / (norm + 1e-7)) as f32; // 1e-7: a gradient of zeros gives zeros
    u.iter_mut().for_each(|u| *u *= inverse);
    // The product X·Xᵀ is smaller on the wide side.
    let tall = rows > cols;
    let (m, n) = (rows.min(cols), rows.max(cols));
    let mut x = if tall { transposed(&u, rows, cols) } else { u };
    let (mut a, mut b, mut next) = (vec![0.0; m * m], vec![0.0; m * m], vec![0.0; m * n]);
    let (mut panels, mut aside, isa) = (Panels::new(precision), Aside::default(), Isa::best());
    for _ in 0..ns_steps {
        panels.fill_columns(n, m, &x, n);
        symmetric(&x, n, &panels, &mut a, &mut aside);
        panels.fill_rows(m, m, &a, m);
        symmetric(&a, m, &panels, &mut b, &mut aside);
        simd::dispatch(
            #[inline(always)]
            || {
                b.iter_mut().zip(&a).for_each(|(b, a)| *b = QUINTIC.1 * a + QUINTIC.2 * *b);
                next.iter_mut().zip(&x).for_each(|(next, x)| *next = QUINTIC.0 * x);
            },
        );
        panels.fill_rows(m, n, &x, n);
        Product::new(m, Left::Rows(&b, m), &panels).write(isa, &mut next, n, Write::Add, &mut aside);
        std::mem::swap(&mut x, &mut next);
    }
    if tall { transposed(&x, cols, rows) } else { x }
}

/// left `[m, k]` · right `[k, m]` where that is symmetric: the part below the diagonal is copied.
fn symmetric(left: &[f32], k: usize, right: &Panels, out: &mut [f32], aside: &mut Aside) {
    const ROWS: usize = 96; // whole tiles of 12 or of 32
    let m = left.len() / k;
    for first in (0..m).step_by(ROWS) {
        let rows = ROWS.min(m - first);
        let product = Product { m: rows, left: Left::Rows(&left[first * k..], k), right, k: 0..k, n: first..m };
        product.write(Isa::best(), &mut out[first * m + first..], m, Write::Store, aside);
    }
    for row in 1..m {
        let (above, below) = out.split_at_mut(row * m);
        for (col, value) in below[..row].iter_mut().enumerate() {
            *value = above[col * m + row];
        }
    }
}

/// `[rows, cols]` → `[cols, rows]`.
fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    // Square pieces: both sides stay in cache lines that are at hand.
    const SIDE: usize = 16;
    for first_row in (0..rows).step_by(SIDE) {
        for first_col in (0..cols).step_by(SIDE) {
            for row in first_row..rows.min(first_row + SIDE) {
                for col in first_col..cols.min(first_col + SIDE) {
                    out[col * rows + row] = x[row * cols + col];
                }
            }
        }
    }
    out
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
                let x = orthogonalize(u.clone(), rows, 5, precision);
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
