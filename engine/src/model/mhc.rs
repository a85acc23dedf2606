//! mHC-lite: several residual streams, mixed per token by doubly stochastic matrices (after arXiv 2512.24880).
//!
//! The formulas are at [`crate::model::weights::MhcWeights`]. A convex combination of permutation matrices is exactly
//! doubly stochastic (Birkhoff–von Neumann), so no Sinkhorn iteration is needed. One stream is a plain residual.

use nanochat_kernels::Mixer;

use crate::Config;
use crate::model::weights::{MhcWeights, n_permutations};

/// Mixing of one sublayer; none with one stream.
///
/// # Panics
/// If the weights do not have the shape that `config` says.
pub(super) fn mixer(config: &Config, weights: Option<&MhcWeights>) -> Option<Mixer> {
    let n = config.n_streams;
    if n == 1 {
        return None;
    }
    let width = n * config.d_model;
    let weights = weights.expect("several streams have mixing weights");
    let p = n_permutations(n);
    let mut transposed = Vec::with_capacity((2 * n + p) * width);
    for (w, alpha, outputs) in [
        (&weights.w_pre, weights.alpha_pre, n),
        (&weights.w_post, weights.alpha_post, n),
        (&weights.w_res, weights.alpha_res, p),
    ] {
        assert_eq!(w.len(), width * outputs, "mixing weights of {config}");
        for output in 0..outputs {
            transposed.extend((0..width).map(|i| alpha * w[i * outputs + output]));
        }
    }
    let biases = [&weights.b_pre[..], &weights.b_post, &weights.b_res].concat();
    assert_eq!(biases.len(), 2 * n + p, "mixing biases of {config}");
    Some(Mixer::new(&transposed, &biases, permutations(n), config.norm_eps))
}

/// All permutations of `0..n` in lexicographic order; the first is the identity.
pub fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(n - 1);
    (0..n)
        .flat_map(|first| {
            shorter.iter().map(move |rest| {
                let rest = rest.iter().map(|i| if *i >= first { i + 1 } else { *i });
                std::iter::once(first).chain(rest).collect()
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nanochat_kernels::rows::Norm;
    use nanochat_kernels::{Int8Rows, Isa, Pool, Streams};

    #[test]
    fn permutations_are_all_there_in_order() {
        assert_eq!(permutations(2), [[0, 1], [1, 0]]);
        let four = permutations(4);
        assert_eq!((four.len(), &four[0][..], &four[23][..]), (24, &[0, 1, 2, 3][..], &[3, 2, 1, 0][..]));
        assert!(four.is_sorted());
    }

    #[test]
    fn the_residual_matrix_is_doubly_stochastic_and_depends_on_the_token() {
        for n in [2, 4] {
            let config = Config { d_model: 32, n_streams: n, ..Config::default() };
            let wave =
                |len: usize, seed: f32| -> Vec<f32> { (0..len).map(|i| (i as f32 * 0.7 + seed).sin()).collect() };
            let p = n_permutations(n);
            let weights = MhcWeights {
                alpha_pre: 0.5,
                alpha_post: 0.5,
                alpha_res: 2.0,
                w_pre: wave(n * 32 * n, 1.0),
                w_post: wave(n * 32 * n, 2.0),
                w_res: wave(n * 32 * p, 3.0),
                b_pre: wave(n, 4.0),
                b_post: wave(n, 5.0),
                b_res: wave(p, 6.0),
            };
            let mixer = mixer(&config, Some(&weights)).expect("several streams");
            let mut seen = Vec::new();
            for token in 0..5 {
                let mut x = wave(n * 32, token as f32 * 1.3);
                let mut coefficients = vec![0.0; mixer.n_coefficients()];
                let streams = Streams { x: &mut x, hidden: &mut [0.0; 32], coefficients: &mut coefficients };
                let norm = Norm { gain: &[1.0; 32], eps: config.norm_eps };
                Int8Rows::new(32).mixed_rms_norm(Isa::best(), &Pool::new(1), &mixer, streams, false, norm);
                let matrix = &coefficients[n..];
                for i in 0..n {
                    // Sums of at most 24 numbers below 1, each rounded once.
                    let row: f32 = (0..n).map(|j| matrix[i * n + j]).sum();
                    let column: f32 = (0..n).map(|j| matrix[j * n + i]).sum();
                    assert!((row - 1.0).abs() < 3e-6 && (column - 1.0).abs() < 3e-6, "{row} {column}");
                }
                // post of stream 0 is 2σ(α·x̂·w + b), w's columns being the outputs.
                let x = wave(n * 32, token as f32 * 1.3);
                let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / x.len() as f64;
                let dot: f64 = x.iter().zip(weights.w_post.iter().step_by(n)).map(|(x, w)| f64::from(x * w)).sum();
                let z = 0.5 * dot / (mean + f64::from(config.norm_eps)).sqrt() + f64::from(weights.b_post[0]);
                assert!((f64::from(coefficients[0]) - 2.0 / (1.0 + (-z).exp())).abs() < 1e-5);
                seen.push(matrix.to_vec());
            }
            assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "the mixing is per token");
        }
    }
}
