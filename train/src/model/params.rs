//! The f32 masters: names, kinds, shapes and initial values.

use nanochat_engine::Config;
use nanochat_engine::model::weights::{self, MhcWeights, n_permutations};
use nanochat_engine::rng::Rng;
use nanochat_kernels::TernaryMatrix;

use crate::quantize::WeightFormat;

/// Kind of a parameter; decides how it is rounded and which optimizer updates it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// Ternary matrices over the same input, stacked by rows; each is rounded and updated on its own.
    Hidden {
        /// Number of rows of each matrix.
        part_rows: Vec<usize>,
    },
    /// The tied embedding and head.
    Embedding,
    /// Gain of an RMSNorm.
    Norm,
    /// Coefficients of mHC-lite.
    Mhc,
}

/// A named parameter array.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Unique name, such as `block.0.attn.qkv`.
    pub name: String,
    /// Decides rounding and optimizer.
    pub kind: ParamKind,
    /// Dimensions, in row-major order.
    pub shape: Vec<usize>,
    /// The f32 masters.
    pub values: Vec<f32>,
}

/// All parameters of a model, in one fixed order.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Architecture.
    pub config: Config,
    /// Format that hidden matrices are rounded to.
    pub weights: WeightFormat,
    /// All parameters, in the order that [`ParamLayout`] states.
    pub list: Vec<Param>,
}

/// Index of each parameter in [`Params::list`].
#[derive(Clone, Debug)]
pub struct ParamLayout {
    /// Tied embedding `[V, d]`.
    pub embed: usize,
    /// Gain of the final norm.
    pub norm_final: usize,
    /// Indices of each layer.
    pub blocks: Vec<BlockLayout>,
}

/// Indices of one layer.
#[derive(Clone, Debug)]
pub struct BlockLayout {
    /// Attention sublayer.
    pub attn: AttentionLayout,
    /// MLP sublayer.
    pub mlp: MlpLayout,
}

/// Indices of an attention sublayer.
#[derive(Clone, Debug)]
pub struct AttentionLayout {
    /// Mixing of the residual streams, if there are several.
    pub mhc: Option<MhcLayout>,
    /// Gain of the norm before q, k and v.
    pub norm: usize,
    /// Queries, keys and values, `[d + 2·kv_dim, d]`.
    pub qkv: usize,
    /// Gain of the norm before o.
    pub norm_out: usize,
    /// Output projection, `[d, d]`.
    pub o: usize,
}

/// Indices of an MLP sublayer.
#[derive(Clone, Debug)]
pub struct MlpLayout {
    /// Mixing of the residual streams, if there are several.
    pub mhc: Option<MhcLayout>,
    /// Gain of the norm before gate and up.
    pub norm: usize,
    /// Gate and up projection, `[2·d_ff, d]`.
    pub gate_up: usize,
    /// Gain of the norm before down.
    pub norm_down: usize,
    /// Down projection, `[d, d_ff]`.
    pub down: usize,
}

/// Indices of a sublayer's mHC-lite. Columns of `w` and entries of `b`: n of pre, n of post, n! of res.
#[derive(Clone, Debug)]
pub struct MhcLayout {
    /// Scales of pre, post and res, `[3]`.
    pub alpha: usize,
    /// Weights, `[n·d, 2n + n!]`.
    pub w: usize,
    /// Biases, `[2n + n!]`.
    pub b: usize,
}

impl ParamLayout {
    /// The order of the parameters of an architecture.
    pub fn of(config: &Config) -> Self {
        let mut next = 0..;
        let mut take = || next.next().expect("the range has no end");
        let (embed, norm_final) = (take(), take());
        let several = config.n_streams > 1;
        let blocks = (0..config.n_layers)
            .map(|_| BlockLayout {
                attn: AttentionLayout {
                    norm: take(),
                    qkv: take(),
                    norm_out: take(),
                    o: take(),
                    mhc: several.then(|| MhcLayout { alpha: take(), w: take(), b: take() }),
                },
                mlp: MlpLayout {
                    norm: take(),
                    gate_up: take(),
                    norm_down: take(),
                    down: take(),
                    mhc: several.then(|| MhcLayout { alpha: take(), w: take(), b: take() }),
                },
            })
            .collect();
        Self { embed, norm_final, blocks }
    }
}

impl Params {
    /// Fresh masters. The embedding is small: tied to the head, a large one makes each token predict itself.
    pub fn init(config: &Config, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut normal = |shape: &[usize], deviation: f32| -> Vec<f32> {
            (0..shape.iter().product()).map(|_| rng.normal() * deviation).collect()
        };
        let (d, ff, kv) = (config.d_model, config.d_ff, config.kv_dim());
        let mut list = Vec::new();
        let embed = normal(&[config.vocab_size, d], 0.02);
        list.push(param("embed", ParamKind::Embedding, &[config.vocab_size, d], embed));
        list.push(param("norm_final", ParamKind::Norm, &[d], vec![1.0; d]));
        // Outputs into the residual are smaller by the number of sublayers, so that their sum is of order 1.
        let into_residual = 1.0 / (2.0 * config.n_layers as f32).sqrt();
        for layer in 0..config.n_layers {
            let mut hidden = |list: &mut Vec<Param>, name: &str, part_rows: Vec<usize>, cols: usize, gain: f32| {
                let shape = [part_rows.iter().sum(), cols];
                let values = normal(&shape, gain / (cols as f32).sqrt());
                list.push(param(&format!("block.{layer}.{name}"), ParamKind::Hidden { part_rows }, &shape, values));
            };
            let norm = |list: &mut Vec<Param>, name: &str, width: usize| {
                list.push(param(&format!("block.{layer}.{name}"), ParamKind::Norm, &[width], vec![1.0; width]));
            };
            norm(&mut list, "attn.norm", d);
            hidden(&mut list, "attn.qkv", vec![d, kv, kv], d, 1.0);
            norm(&mut list, "attn.norm_out", d);
            hidden(&mut list, "attn.o", vec![d], d, into_residual);
            push_mhc(&mut list, config, layer, "attn");
            norm(&mut list, "mlp.norm", d);
            hidden(&mut list, "mlp.gate_up", vec![ff, ff], d, 1.0);
            norm(&mut list, "mlp.norm_down", ff);
            hidden(&mut list, "mlp.down", vec![d], ff, into_residual);
            push_mhc(&mut list, config, layer, "mlp");
        }
        Self { config: config.clone(), weights: WeightFormat::Ternary, list }
    }

    /// Masters that round to exactly these weights.
    ///
    /// A ternary value ±γ becomes ±γ/f with f the share of non-zeros in its scale group: then the mean
    /// magnitude, which is the next γ, is γ again. Dequantised weights would shrink it by f.
    pub fn from_weights(weights: &weights::Weights) -> Self {
        let config = &weights.config;
        let layout = ParamLayout::of(config);
        let mut params = Self::init(config, 0);
        let mut set = |param_idx: usize, values: Vec<f32>| {
            let param = &mut params.list[param_idx];
            assert_eq!(param.values.len(), values.len(), "{}", param.name);
            param.values = values;
        };
        let mut embed = vec![0.0; config.vocab_size * config.d_model];
        for (row_idx, row) in embed.chunks_exact_mut(config.d_model).enumerate() {
            weights.embed.row_into(row_idx, row);
        }
        set(layout.embed, embed);
        set(layout.norm_final, weights.norm_final.clone());
        for (block, layout) in weights.blocks.iter().zip(&layout.blocks) {
            let (attn, mlp) = (&block.attn, &block.mlp);
            set(layout.attn.norm, attn.norm.clone());
            set(layout.attn.qkv, [&attn.q, &attn.k, &attn.v].into_iter().flat_map(masters).collect());
            set(layout.attn.norm_out, attn.norm_out.clone());
            set(layout.attn.o, masters(&attn.o));
            set(layout.mlp.norm, mlp.norm.clone());
            set(layout.mlp.gate_up, [&mlp.gate, &mlp.up].into_iter().flat_map(masters).collect());
            set(layout.mlp.norm_down, mlp.norm_down.clone());
            set(layout.mlp.down, masters(&mlp.down));
            for (mhc, layout) in [(&attn.mhc, &layout.attn.mhc), (&mlp.mhc, &layout.mlp.mhc)] {
                if let (Some(mhc), Some(layout)) = (mhc, layout) {
                    set(layout.alpha, vec![mhc.alpha_pre, mhc.alpha_post, mhc.alpha_res]);
                    set(layout.w, columns_side_by_side(mhc, config.n_streams));
                    set(layout.b, [&mhc.b_pre[..], &mhc.b_post, &mhc.b_res].concat());
                }
            }
        }
        params
    }

    /// Total number of values.
    pub fn n_values(&self) -> usize {
        self.list.iter().map(|param| param.values.len()).sum()
    }
}

fn param(name: &str, kind: ParamKind, shape: &[usize], values: Vec<f32>) -> Param {
    Param { name: name.to_owned(), kind, shape: shape.to_vec(), values }
}

fn push_mhc(list: &mut Vec<Param>, config: &Config, layer: usize, half: &str) {
    let n = config.n_streams;
    if n == 1 {
        return;
    }
    let p = n_permutations(n);
    let width = 2 * n + p;
    // Streams start as copies of each other: only the signs here distinguish them.
    let signs = (0..n).map(|i| if i == layer % n { 1.0 } else { -1.0 });
    let identity = (0..p).map(|k| if k == 0 { 0.0 } else { -8.0 });
    let b = signs.clone().chain(signs).chain(identity).collect();
    let shape = [n * config.d_model, width];
    let mut push = |name, shape: &[usize], values| {
        list.push(param(&format!("block.{layer}.{half}.mhc.{name}"), ParamKind::Mhc, shape, values));
    };
    push("alpha", &[3], vec![0.01; 3]);
    push("w", &shape, vec![0.0; shape[0] * shape[1]]);
    push("b", &[width], b);
}

fn masters(matrix: &TernaryMatrix) -> Vec<f32> {
    let len = matrix.group().len(matrix.shape());
    let mut out = Vec::with_capacity(matrix.trits().len());
    for (trits, scale) in matrix.trits().chunks_exact(len).zip(matrix.scales()) {
        let n_set = trits.iter().filter(|t| **t != 0).count().max(1);
        let magnitude = scale * len as f32 / n_set as f32;
        out.extend(trits.iter().map(|t| magnitude * f32::from(*t)));
    }
    out
}

fn columns_side_by_side(mhc: &MhcWeights, n: usize) -> Vec<f32> {
    let p = n_permutations(n);
    let mut out = Vec::with_capacity(mhc.w_pre.len() / n * (2 * n + p));
    for ((pre, post), res) in mhc.w_pre.chunks_exact(n).zip(mhc.w_post.chunks_exact(n)).zip(mhc.w_res.chunks_exact(p)) {
        out.extend_from_slice(pre);
        out.extend_from_slice(post);
        out.extend_from_slice(res);
    }
    out
}
