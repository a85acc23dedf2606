//! mHC-lite: several residual streams, mixed per token by doubly stochastic matrices (after arXiv 2512.24880).
//!
//! The formulas stand at [`crate::weights::MhcWeights`]. A convex combination of permutation matrices is exactly doubly
//! stochastic (Birkhoff–von Neumann), so no Sinkhorn iteration is needed. One stream is a plain residual.

use nanochat_kernels::{Isa, Write, vector};

use crate::Config;
use crate::weights::{MhcWeights, n_permutations};

/// Mixing of one sublayer.
#[derive(Debug)]
pub(super) struct Mhc {
    n_streams: usize,
    eps: f32,
    /// `[n + n + p, n·d]`: pre, post and res, transposed and scaled by their alphas.
    weights: Vec<f32>,
    /// `[n + n + p]`
    biases: Vec<f32>,
    permutations: Vec<Vec<usize>>,
}

/// Per-token coefficients between [`mix_in`] and [`mix_out`].
#[derive(Debug, Default)]
pub(super) struct Mix {
    /// `[n_tokens, n + n·n]`: post, then the residual matrix.
    coefficients: Vec<f32>,
    scratch: Vec<f32>,
}

impl Mhc {
    pub(super) fn new(config: &Config, weights: Option<&MhcWeights>) -> Option<Self> {
        let n = config.n_streams;
        let width = n * config.d_model;
        if n == 1 {
            return None;
        }
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
        Some(Self { n_streams: n, eps: config.norm_eps, weights: transposed, biases, permutations: permutations(n) })
    }

    /// pre `[n]`, post `[n]` and the residual matrix `[n, n]` for one token's streams.
    fn coefficients(&self, isa: Isa, streams: &[f32], out: &mut [f32], scratch: &mut Vec<f32>) {
        let n = self.n_streams;
        scratch.resize(self.biases.len(), 0.0);
        vector::matvec(isa, &self.weights, streams, scratch);
        let inverse = vector::inverse_rms(isa, streams, self.eps);
        for (x, bias) in scratch.iter_mut().zip(&self.biases) {
            *x = *x * inverse + bias;
        }
        let (gates, res) = scratch.split_at_mut(2 * n);
        vector::softmax(isa, res);
        for (i, (out, x)) in out.iter_mut().zip(gates).enumerate() {
            *out = if i < n { 1.0 } else { 2.0 } / (1.0 + vector::exp(-*x));
        }
        let matrix = &mut out[2 * n..];
        matrix.fill(0.0);
        for (weight, permutation) in res.iter().zip(&self.permutations) {
            for (to, from) in permutation.iter().enumerate() {
                matrix[to * n + from] += weight;
            }
        }
    }
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

/// The sublayer's input `[n_tokens, d]`: the streams themselves, or `hidden` = Σ pre_i X_i.
pub(super) fn mix_in<'a>(
    mhc: Option<&Mhc>,
    isa: Isa,
    streams: &'a [f32],
    hidden: &'a mut Vec<f32>,
    mix: &mut Mix,
) -> &'a [f32] {
    let Some(mhc) = mhc else { return streams };
    let n = mhc.n_streams;
    let width = mhc.weights.len() / mhc.biases.len();
    let d = width / n;
    let n_tokens = streams.len() / width;
    let mut coefficients = vec![0.0; 2 * n + n * n];
    mix.coefficients.clear();
    hidden.resize(n_tokens * d, 0.0);
    for (streams, hidden) in streams.chunks_exact(width).zip(hidden.chunks_exact_mut(d)) {
        mhc.coefficients(isa, streams, &mut coefficients, &mut mix.scratch);
        mix.coefficients.extend_from_slice(&coefficients[n..]);
        hidden.fill(0.0);
        for (stream, pre) in streams.chunks_exact(d).zip(&coefficients) {
            hidden.iter_mut().zip(stream).for_each(|(h, x)| *h += pre * x);
        }
    }
    hidden
}

/// X ← X + F, or X_i ← Σ_j res_ij X_j + post_i · F. `product` writes F into what it is given.
pub(super) fn mix_out(
    mhc: Option<&Mhc>,
    streams: &mut [f32],
    hidden: &mut [f32],
    mix: &mut Mix,
    product: impl FnOnce(&mut [f32], Write),
) {
    let Some(mhc) = mhc else { return product(streams, Write::Add) };
    product(hidden, Write::Store);
    let n = mhc.n_streams;
    let width = mhc.weights.len() / mhc.biases.len();
    let d = width / n;
    mix.scratch.resize(width, 0.0);
    let tokens = streams.chunks_exact_mut(width).zip(hidden.chunks_exact(d));
    for ((streams, f), coefficients) in tokens.zip(mix.coefficients.chunks_exact(n + n * n)) {
        let (post, matrix) = coefficients.split_at(n);
        for (to, mixed) in mix.scratch.chunks_exact_mut(d).enumerate() {
            mixed.iter_mut().zip(f).for_each(|(mixed, f)| *mixed = post[to] * f);
            for (weight, stream) in matrix[to * n..][..n].iter().zip(streams.chunks_exact(d)) {
                mixed.iter_mut().zip(stream).for_each(|(mixed, x)| *mixed += weight * x);
            }
        }
        streams.copy_from_slice(&mix.scratch[..width]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let mhc = Mhc::new(&config, Some(&weights)).expect("several streams");
            let mut seen = Vec::new();
            for token in 0..5 {
                let mut out = vec![0.0; 2 * n + n * n];
                mhc.coefficients(Isa::best(), &wave(n * 32, token as f32 * 1.3), &mut out, &mut Vec::new());
                let matrix = &out[2 * n..];
                for i in 0..n {
                    // Sums of at most 24 numbers below 1, each rounded once.
                    let row: f32 = (0..n).map(|j| matrix[i * n + j]).sum();
                    let column: f32 = (0..n).map(|j| matrix[j * n + i]).sum();
                    assert!((row - 1.0).abs() < 3e-6 && (column - 1.0).abs() < 3e-6, "{row} {column}");
                }
                seen.push(matrix.to_vec());
            }
            assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "the mixing is per token");
        }
    }
}
