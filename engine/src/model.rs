//! The packed transformer: tokens to logits. The math stands in [`crate::config`].
//!
//! ```text
//! Weights → Model (laid out for this machine, shared) ─┐
//! tokens  → Activations::forward ──────────────────────┴→ KV cache, logits
//! ```

use std::sync::Arc;

use nanochat_kernels::attention::{Heads, Queries};
use nanochat_kernels::rows::Norm;
use nanochat_kernels::{Int8Rows, Isa, KvCache, Plan, Pool, Prepared, PreparedInt8, Write};

use crate::tokenizer::TokenId;
use crate::weights::{AttentionWeights, MlpWeights, Weights};
use crate::{Cancel, Cancelled, Config};

pub mod mhc;
mod rope;

use mhc::Mhc;
use rope::Rope;

/// Weights laid out for this machine, and the workers that compute with them. Shared by sessions.
#[derive(Debug)]
pub struct Model {
    config: Config,
    isa: Isa,
    pool: Pool,
    embed: PreparedInt8,
    blocks: Vec<Block>,
    norm_final: Vec<f32>,
    rope: Rope,
}

#[derive(Debug)]
struct Block {
    attn: Attention,
    mlp: Mlp,
}

#[derive(Debug)]
struct Attention {
    mhc: Option<Mhc>,
    norm: Vec<f32>,
    /// Q, K and V below each other: they share their input.
    qkv: Prepared,
    norm_out: Vec<f32>,
    o: Prepared,
}

#[derive(Debug)]
struct Mlp {
    mhc: Option<Mhc>,
    norm: Vec<f32>,
    /// Gate and up below each other.
    gate_up: Prepared,
    norm_down: Vec<f32>,
    down: Prepared,
}

impl Model {
    /// Lays the weights out for `n_threads` workers (0: as many as the machine has cores).
    ///
    /// # Panics
    /// If a matrix does not have the shape that `weights.config` says; a checkpoint never hands out such weights.
    pub fn new(weights: &Weights, n_threads: usize) -> Arc<Self> {
        Self::with_plan(weights, n_threads, Plan::default())
    }

    /// As [`Model::new`], with a plan of the caller's.
    ///
    /// # Panics
    /// As [`Model::new`].
    pub fn with_plan(weights: &Weights, n_threads: usize, plan: Plan) -> Arc<Self> {
        let config = weights.config.clone();
        let embed = &weights.embed;
        assert_eq!((embed.rows, embed.cols), (config.vocab_size, config.d_model), "embedding of {config}");
        assert_eq!(weights.blocks.len(), config.n_layers, "blocks of {config}");
        let blocks = weights
            .blocks
            .iter()
            .map(|block| Block {
                attn: Attention::new(&config, &block.attn, plan),
                mlp: Mlp::new(&config, &block.mlp, plan),
            })
            .collect();
        Arc::new(Self {
            isa: plan.isa,
            pool: Pool::new(n_threads),
            embed: PreparedInt8::new(embed.cols, &embed.values, &embed.scales, plan.isa),
            blocks,
            norm_final: weights.norm_final.clone(),
            rope: Rope::new(&config),
            config,
        })
    }

    /// Sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Wakes the workers: a request is about to come.
    pub fn announce(&self) {
        self.pool.announce();
    }

    /// Threads that compute.
    pub fn n_threads(&self) -> usize {
        self.pool.n_threads()
    }

    /// The instruction set that the kernels use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Bytes of laid-out weights.
    pub fn n_bytes(&self) -> usize {
        let blocks = self.blocks.iter();
        let matrices = blocks.flat_map(|b| [&b.attn.qkv, &b.attn.o, &b.mlp.gate_up, &b.mlp.down]);
        self.embed.n_bytes() + matrices.map(Prepared::n_bytes).sum::<usize>()
    }

    /// An empty cache for each layer.
    pub(crate) fn caches(&self) -> Vec<KvCache> {
        let Config { n_heads, n_kv_heads, context, .. } = self.config;
        let heads = Heads { n_heads, n_kv_heads, head_dim: self.config.head_dim() };
        (0..self.config.n_layers).map(|_| KvCache::new(heads, context)).collect()
    }
}

impl Attention {
    fn new(config: &Config, weights: &AttentionWeights, plan: Plan) -> Self {
        let d = config.d_model;
        let qkv = Prepared::new(&[&weights.q, &weights.k, &weights.v], plan);
        let o = Prepared::new(&[&weights.o], plan);
        assert_eq!((qkv.shape().rows, qkv.shape().cols), (d + 2 * config.kv_dim(), d), "QKV of {config}");
        assert_eq!((o.shape().rows, o.shape().cols), (d, d), "attention output of {config}");
        Self {
            mhc: Mhc::new(config, weights.mhc.as_ref()),
            norm: weights.norm.clone(),
            qkv,
            norm_out: weights.norm_out.clone(),
            o,
        }
    }
}

impl Mlp {
    fn new(config: &Config, weights: &MlpWeights, plan: Plan) -> Self {
        let (d, d_ff) = (config.d_model, config.d_ff);
        let gate_up = Prepared::new(&[&weights.gate, &weights.up], plan);
        let down = Prepared::new(&[&weights.down], plan);
        assert_eq!((gate_up.shape().rows, gate_up.shape().cols), (2 * d_ff, d), "gate and up of {config}");
        assert_eq!((down.shape().rows, down.shape().cols), (d, d_ff), "down of {config}");
        Self {
            mhc: Mhc::new(config, weights.mhc.as_ref()),
            norm: weights.norm.clone(),
            gate_up,
            norm_down: weights.norm_down.clone(),
            down,
        }
    }
}

/// Buffers of a forward pass, kept from one to the next.
#[derive(Debug)]
pub(crate) struct Activations {
    /// `[n, n_streams, d]`
    streams: Vec<f32>,
    /// `[n, d]`: a sublayer's input and, with several streams, its output.
    hidden: Vec<f32>,
    mix: mhc::Mix,
    /// `[n, d + 2·kv]`
    qkv: Vec<f32>,
    /// `[n, d]`
    attended: Vec<f32>,
    /// `[n, 2·d_ff]`
    gate_up: Vec<f32>,
    narrow: Int8Rows,
    wide: Int8Rows,
}

impl Activations {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            streams: Vec::new(),
            hidden: Vec::new(),
            mix: mhc::Mix::default(),
            qkv: Vec::new(),
            attended: Vec::new(),
            gate_up: Vec::new(),
            narrow: Int8Rows::new(config.d_model),
            wide: Int8Rows::new(config.d_ff),
        }
    }

    /// Runs tokens at positions `first..`, writing their keys and values. Looks at `cancel` between layers.
    pub(crate) fn forward(
        &mut self,
        model: &Model,
        caches: &mut [KvCache],
        tokens: &[TokenId],
        first: usize,
        cancel: &Cancel,
    ) -> Result<(), Cancelled> {
        let Config { d_model: d, n_streams, norm_eps: eps, .. } = model.config;
        let (isa, pool) = (model.isa, &model.pool);
        let n = tokens.len();
        let qkv_width = d + 2 * model.config.kv_dim();
        self.streams.resize(n * n_streams * d, 0.0);
        for (streams, token) in self.streams.chunks_exact_mut(n_streams * d).zip(tokens) {
            let (one, copies) = streams.split_at_mut(d);
            model.embed.row_into(usize::from(*token), one);
            copies.chunks_exact_mut(d).for_each(|copy| copy.copy_from_slice(one));
        }
        self.qkv.resize(n * qkv_width, 0.0);
        self.attended.resize(n * d, 0.0);
        self.gate_up.resize(n * 2 * model.config.d_ff, 0.0);
        for (block, cache) in model.blocks.iter().zip(caches) {
            cancel.check()?;
            let Attention { mhc, norm, qkv, norm_out, o } = &block.attn;
            let input = mhc::mix_in(mhc.as_ref(), isa, &self.streams, &mut self.hidden, &mut self.mix);
            self.narrow.rms_norm(isa, pool, input, Norm { gain: norm, eps });
            qkv.gemm(pool, &self.narrow, &mut self.qkv, Write::Store);
            for (i, row) in self.qkv.chunks_exact_mut(qkv_width).enumerate() {
                let (q, kv) = row.split_at_mut(d);
                let (k, v) = kv.split_at_mut(model.config.kv_dim());
                model.rope.rotate(first + i, q);
                model.rope.rotate(first + i, k);
                cache.write(first + i, k, v);
            }
            let queries = Queries { q: &self.qkv, stride: qkv_width, first };
            cache.attend(isa, pool, queries, &mut self.attended);
            self.narrow.rms_norm(isa, pool, &self.attended, Norm { gain: norm_out, eps });
            mhc::mix_out(mhc.as_ref(), &mut self.streams, &mut self.hidden, &mut self.mix, |out, write| {
                o.gemm(pool, &self.narrow, out, write);
            });

            let Mlp { mhc, norm, gate_up, norm_down, down } = &block.mlp;
            let input = mhc::mix_in(mhc.as_ref(), isa, &self.streams, &mut self.hidden, &mut self.mix);
            self.narrow.rms_norm(isa, pool, input, Norm { gain: norm, eps });
            gate_up.gemm(pool, &self.narrow, &mut self.gate_up, Write::Store);
            self.wide.swiglu_rms_norm(isa, pool, &mut self.gate_up, Norm { gain: norm_down, eps });
            mhc::mix_out(mhc.as_ref(), &mut self.streams, &mut self.hidden, &mut self.mix, |out, write| {
                down.gemm(pool, &self.wide, out, write);
            });
        }
        Ok(())
    }

    /// Logits `[vocab_size]` after token `i` of the last forward pass.
    pub(crate) fn logits(&mut self, model: &Model, i: usize, out: &mut [f32]) {
        let Config { d_model: d, n_streams, norm_eps: eps, .. } = model.config;
        let streams = &self.streams[i * n_streams * d..][..n_streams * d];
        let mut sum = streams[..d].to_vec();
        for stream in streams.chunks_exact(d).skip(1) {
            sum.iter_mut().zip(stream).for_each(|(sum, x)| *sum += x);
        }
        self.narrow.rms_norm(model.isa, &model.pool, &sum, Norm { gain: &model.norm_final, eps });
        model.embed.gemv(&model.pool, &self.narrow, 0, out);
    }
}
