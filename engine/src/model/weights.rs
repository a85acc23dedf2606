//! A model's numbers: what training exports, a checkpoint packs and the engine lays out.

use nanochat_kernels::{Shape, TernaryMatrix};

use crate::Config;
use crate::rng::Rng;

/// All weights of one model. Matrices are `[outputs, inputs]`.
///
/// `M` and `V` are the forms of ternary matrices and of 8-bit values: plain ones that training writes, or views of a
/// checkpoint's bytes, so that a model is laid out from the file's buffer with nothing between.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights<M = TernaryMatrix, V = Vec<i8>> {
    /// Sizes that the fields below have.
    pub config: Config,
    /// Tied embedding and head, `[vocab_size, d_model]`.
    pub embed: Int8Matrix<V>,
    /// One per layer.
    pub blocks: Vec<BlockWeights<M>>,
    /// Gain of the last norm, `[d_model]`.
    pub norm_final: Vec<f32>,
}

/// One layer: attention, then the MLP.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockWeights<M = TernaryMatrix> {
    /// Its attention half.
    pub attn: AttentionWeights<M>,
    /// Its MLP half.
    pub mlp: MlpWeights<M>,
}

/// Attention with its norms and residual mixing.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionWeights<M = TernaryMatrix> {
    /// Residual mixing; absent when `n_streams` is 1.
    pub mhc: Option<MhcWeights>,
    /// `[d_model]`.
    pub norm: Vec<f32>,
    /// `[d_model, d_model]`.
    pub q: M,
    /// `[kv_dim, d_model]`.
    pub k: M,
    /// `[kv_dim, d_model]`.
    pub v: M,
    /// `[d_model]`; SubLN before the output product.
    pub norm_out: Vec<f32>,
    /// `[d_model, d_model]`.
    pub o: M,
}

/// The gated MLP with its norms and residual mixing.
#[derive(Clone, Debug, PartialEq)]
pub struct MlpWeights<M = TernaryMatrix> {
    /// Residual mixing; absent when `n_streams` is 1.
    pub mhc: Option<MhcWeights>,
    /// `[d_model]`.
    pub norm: Vec<f32>,
    /// `[d_ff, d_model]`.
    pub gate: M,
    /// `[d_ff, d_model]`.
    pub up: M,
    /// `[d_ff]`; SubLN before the down product.
    pub norm_down: Vec<f32>,
    /// `[d_model, d_ff]`.
    pub down: M,
}

/// mHC-lite of one sublayer, for n streams and p = n! permutations in lexicographic order (the first is the
/// identity; permutation π puts stream π(i) at i). With x̂ = RMSNorm(vec X) `[n·d]`, no gain:
///
/// ```text
/// pre  [n] = σ(alpha_pre · x̂·w_pre + b_pre)            h  = Σ pre_i X_i
/// post [n] = 2σ(alpha_post · x̂·w_post + b_post)
/// c    [p] = softmax(alpha_res · x̂·w_res + b_res)      X'_i = Σ_k c_k X_{π_k(i)} + post_i · F(h)
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MhcWeights {
    /// Gains of the three per-token terms, initially 0.01.
    pub alpha_pre: f32,
    /// See `alpha_pre`.
    pub alpha_post: f32,
    /// See `alpha_pre`.
    pub alpha_res: f32,
    /// `[n·d, n]`, row-major, initially 0.
    pub w_pre: Vec<f32>,
    /// `[n·d, n]`, initially 0.
    pub w_post: Vec<f32>,
    /// `[n·d, p]`, initially 0.
    pub w_res: Vec<f32>,
    /// `[n]`; +1 on stream `layer mod n`, −1 elsewhere: without this the streams stay equal for ever.
    pub b_pre: Vec<f32>,
    /// `[n]`; as `b_pre`.
    pub b_post: Vec<f32>,
    /// `[p]`; 0 for the identity, −8 elsewhere.
    pub b_res: Vec<f32>,
}

/// Eight-bit rows: `value = scales[row] · values[row, column]`, values within ±127.
#[derive(Clone, Debug, PartialEq)]
pub struct Int8Matrix<V = Vec<i8>> {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Row-major.
    pub values: V,
    /// One per row.
    pub scales: Vec<f32>,
}

impl Int8Matrix {
    /// Rounds each row to 8 bits by its largest magnitude.
    ///
    /// # Panics
    /// If `weights` does not hold `rows × cols` numbers.
    pub fn quantize(weights: &[f32], rows: usize, cols: usize) -> Self {
        assert_eq!(weights.len(), rows * cols, "{} weights for {rows} × {cols}", weights.len());
        let mut values = Vec::with_capacity(weights.len());
        let mut scales = Vec::with_capacity(rows);
        for row in weights.chunks_exact(cols) {
            let absmax = row.iter().fold(0.0f32, |max, w| max.max(w.abs()));
            let scale = absmax / 127.0;
            scales.push(scale);
            values.extend(
                row.iter().map(|w| if absmax == 0.0 { 0 } else { (w / scale).round().clamp(-127.0, 127.0) as i8 }),
            );
        }
        Self { rows, cols, values, scales }
    }

    /// Writes one row as f32.
    ///
    /// # Panics
    /// If `row_idx` is not a row or `out` is not `cols` long.
    pub fn row_into(&self, row_idx: usize, out: &mut [f32]) {
        let row = &self.values[row_idx * self.cols..][..self.cols];
        let scale = self.scales[row_idx];
        for (out, value) in out.iter_mut().zip(row) {
            *out = scale * f32::from(*value);
        }
    }
}

/// n!, the number of permutations that mHC-lite mixes; `n_streams` is at most 4.
pub fn n_permutations(n_streams: usize) -> usize {
    (1..=n_streams).product()
}

/// Weights of an untrained model, as training starts; for benchmarks and tests.
///
/// # Panics
/// If the configuration is not valid.
pub fn random(config: &Config, seed: u64) -> Weights {
    config.validate().expect("a valid configuration");
    let mut rng = Rng::new(seed);
    let Config { d_model: d, d_ff, vocab_size, n_layers, n_streams: n, .. } = *config;
    let kv = config.kv_dim();
    let gaussian = |rng: &mut Rng, len: usize, sigma: f32| (0..len).map(|_| sigma * rng.normal()).collect::<Vec<_>>();
    let ternary = |rng: &mut Rng, rows: usize, cols: usize| {
        let weights = gaussian(rng, rows * cols, 1.0 / (cols as f32).sqrt());
        TernaryMatrix::quantize(&weights, Shape { rows, cols }, config.scales)
    };
    let mhc = |layer: usize| {
        let biases = |i: usize| if i == layer % n { 1.0 } else { -1.0 };
        let p = n_permutations(n);
        (n > 1).then(|| MhcWeights {
            alpha_pre: 0.01,
            alpha_post: 0.01,
            alpha_res: 0.01,
            w_pre: vec![0.0; n * d * n],
            w_post: vec![0.0; n * d * n],
            w_res: vec![0.0; n * d * p],
            b_pre: (0..n).map(biases).collect(),
            b_post: (0..n).map(biases).collect(),
            b_res: (0..p).map(|i| if i == 0 { 0.0 } else { -8.0 }).collect(),
        })
    };
    let embed = Int8Matrix::quantize(&gaussian(&mut rng, vocab_size * d, 0.02), vocab_size, d);
    let blocks = (0..n_layers)
        .map(|layer| BlockWeights {
            attn: AttentionWeights {
                mhc: mhc(layer),
                norm: vec![1.0; d],
                q: ternary(&mut rng, d, d),
                k: ternary(&mut rng, kv, d),
                v: ternary(&mut rng, kv, d),
                norm_out: vec![1.0; d],
                o: ternary(&mut rng, d, d),
            },
            mlp: MlpWeights {
                mhc: mhc(layer),
                norm: vec![1.0; d],
                gate: ternary(&mut rng, d_ff, d),
                up: ternary(&mut rng, d_ff, d),
                norm_down: vec![1.0; d_ff],
                down: ternary(&mut rng, d, d_ff),
            },
        })
        .collect();
    Weights { config: config.clone(), embed, blocks, norm_final: vec![1.0; d] }
}
