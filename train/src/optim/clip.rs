//! Clipping by the global norm.

use crate::ops::simd;

/// Scales all gradients down so that their joint Euclidean norm is at most `max_norm`. Returns the norm before.
pub fn clip(gradients: &mut [Vec<f32>], max_norm: f64) -> f64 {
    let square: f64 = gradients.iter().map(|gradient| simd::square_sum(gradient)).sum();
    let norm = square.sqrt();
    if norm > max_norm {
        let factor = (max_norm / norm) as f32;
        gradients.iter_mut().flatten().for_each(|g| *g *= factor);
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gradients_that_are_too_long_are_scaled() {
        let mut gradients = vec![vec![3.0], vec![4.0]];
        assert_eq!(clip(&mut gradients, 10.0), 5.0);
        assert_eq!(gradients, [[3.0], [4.0]]);
        assert_eq!(clip(&mut gradients, 1.0), 5.0);
        assert!((gradients[0][0] - 0.6).abs() < 1e-6 && (gradients[1][0] - 0.8).abs() < 1e-6);
    }
}
