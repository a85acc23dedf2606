//! Rounds hidden matrices to the format that a step computes with.
//!
//! The engine runs ternary weights only. The other formats show what ternary costs (`--example ablate`).

use nanochat_kernels::{ScaleGroup, Shape};
use serde::{Deserialize, Serialize};

use crate::ops::MatmulPrecision;
use crate::ops::linear::TernaryStack;

/// Number format that hidden matrices are rounded to, symmetric about zero, with straight-through gradients.
/// Activations are always int8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightFormat {
    /// −1, 0 or 1 times the mean magnitude: 1.58 bits.
    #[default]
    Ternary,
    /// −7 to 7 times a seventh of the largest magnitude.
    Int4,
    /// −127 to 127 times a 127th of the largest magnitude.
    Int8,
    /// Not rounded, but for the precision of matrix products.
    Full,
}

impl WeightFormat {
    /// Rounds `weights` `[Σ part_rows, cols]`, each run of rows by itself, with a scale per `group`.
    pub fn round(
        self,
        weights: &[f32],
        part_rows: &[usize],
        cols: usize,
        group: ScaleGroup,
        matmul: impl Into<MatmulPrecision>,
    ) -> TernaryStack {
        let matmul = matmul.into();
        let levels = match self {
            Self::Ternary => return TernaryStack::quantize(weights, part_rows, cols, group, matmul),
            Self::Int4 => 7.0,
            Self::Int8 => 127.0,
            Self::Full => return TernaryStack::from_values(weights, cols, matmul.precision),
        };
        let mut rounded = Vec::with_capacity(weights.len());
        let mut rest = weights;
        for rows in part_rows {
            let (part, after) = rest.split_at(rows * cols);
            for run in part.chunks(group.len(Shape { rows: *rows, cols })) {
                let scale = run.iter().fold(0.0f32, |max, w| w.abs().max(max)) / levels;
                let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                rounded.extend(run.iter().map(|w| (w * inverse).round() * scale));
            }
            rest = after;
        }
        TernaryStack::from_values(&rounded, cols, matmul.precision)
    }
}

#[cfg(test)]
mod tests {
    use nanochat_engine::rng::Rng;
    use nanochat_kernels::{Int8Rows, Precision, Write};

    use super::*;
    use crate::ops::Scratch;

    #[test]
    fn finer_weights_are_nearer_to_the_product_of_the_masters() {
        let (n, rows, cols) = (5, 24, 48);
        let mut rng = Rng::new(2);
        let mut normals = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal()).collect() };
        let (x, weights) = (normals(n * cols), normals(rows * cols));
        let scratch = &mut Scratch::default();
        let mut q = Int8Rows::new(cols);
        q.quantize(scratch.isa, &scratch.pool, &x);
        let mut product = |format: WeightFormat, group| {
            let mut y = vec![0.0; n * rows];
            let stack = format.round(&weights, &[16, 8], cols, group, Precision::F32);
            stack.forward(&q, &mut y, Write::Store, scratch);
            y
        };
        let exact = product(WeightFormat::Full, ScaleGroup::Matrix);
        for group in [ScaleGroup::Matrix, ScaleGroup::Row, ScaleGroup::Columns(16)] {
            let mut error = |format| -> f32 {
                let squares = product(format, group).iter().zip(&exact).map(|(y, e)| (y - e).powi(2)).sum::<f32>();
                (squares / exact.iter().map(|e| e * e).sum::<f32>()).sqrt()
            };
            let errors = [WeightFormat::Int8, WeightFormat::Int4, WeightFormat::Ternary].map(&mut error);
            // Of a normal distribution: steps of 3.5 / 127 and 3.5 / 7 by their √12, and what three levels leave.
            assert!(
                errors[0] < 0.01 && (0.02..0.2).contains(&errors[1]) && (0.3..0.7).contains(&errors[2]),
                "{errors:?}"
            );
        }
    }
}
