//! The packed transformer: tokens to logits. The math is in [`crate::model::config`].
//!
//! ```text
//! Weights → Model (laid out for this machine, shared) ─┐
//! tokens  → Activations::forward ──────────────────────┴→ KV cache, logits
//! ```

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use nanochat_kernels::attention::{Heads, Rows};
use nanochat_kernels::autotune::Plans;
use nanochat_kernels::rows::Norm;
use nanochat_kernels::streams::sum_streams;
use nanochat_kernels::{
    HeadBits, Int8Rows, Isa, KvBits, KvCache, Mixer, Plan, Pool, Prepared, PreparedHead, Shape, Streams, Ternary, Write,
};

use crate::model::weights::{AttentionWeights, MlpWeights, Weights};
use crate::text::tokenizer::TokenId;
use crate::{Cancel, Cancelled, Config};

use super::mhc;
use super::rope::Rope;

/// Weights laid out for this machine, and the workers that compute with them. Shared by sessions.
#[derive(Debug)]
pub struct Model {
    config: Config,
    isa: Isa,
    kv_bits: KvBits,
    prompt_batch: usize,
    pool: Pool,
    embed: PreparedHead,
    blocks: Vec<Block>,
    norm_final: Vec<f32>,
    rope: Rope,
}

/// How many bits hold what a checkpoint leaves open. The default is what is fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Precision {
    /// Bits of the embedding, which is the head too.
    pub head: HeadBits,
    /// Bits of keys and values.
    pub kv: KvBits,
}

#[derive(Debug)]
struct Block {
    attn: Attention,
    mlp: Mlp,
}

#[derive(Debug)]
struct Attention {
    mixer: Option<Mixer>,
    norm: Vec<f32>,
    qkv: Qkv,
    norm_out: Vec<f32>,
    o: Prepared,
}

/// The three products that share their input.
#[derive(Debug)]
enum Qkv {
    /// Below each other, as one product.
    Together(Prepared),
    /// The last layer's: every token needs a key and a value, but only those whose logits are wanted need more.
    Apart { q: Prepared, kv: Prepared },
}

#[derive(Debug)]
struct Mlp {
    mixer: Option<Mixer>,
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
    pub fn new<M: Ternary, V: AsRef<[i8]> + Sync>(weights: &Weights<M, V>, n_threads: usize) -> Arc<Self> {
        Self::with_plans(weights, n_threads, &Plans::default())
    }

    /// As [`Model::new`], with a plan of the caller's.
    ///
    /// # Panics
    /// As [`Model::new`].
    pub fn with_plan<M: Ternary, V: AsRef<[i8]> + Sync>(
        weights: &Weights<M, V>,
        n_threads: usize,
        plan: Plan,
    ) -> Arc<Self> {
        Self::with_plans(weights, n_threads, &Plans::uniform(plan))
    }

    /// As [`Model::new`], with what the autotuner picked.
    ///
    /// # Panics
    /// As [`Model::new`].
    pub fn with_plans<M: Ternary, V: AsRef<[i8]> + Sync>(
        weights: &Weights<M, V>,
        n_threads: usize,
        plans: &Plans,
    ) -> Arc<Self> {
        Self::with_precision(weights, n_threads, plans, Precision::default())
    }

    /// As [`Model::with_plans`], with numbers held in as many bits as the caller says.
    ///
    /// # Panics
    /// As [`Model::new`].
    pub fn with_precision<M: Ternary, V: AsRef<[i8]> + Sync>(
        weights: &Weights<M, V>,
        n_threads: usize,
        plans: &Plans,
        precision: Precision,
    ) -> Arc<Self> {
        let config = weights.config.clone();
        let embed = &weights.embed;
        assert_eq!((embed.rows, embed.cols), (config.vocab_size, config.d_model), "embedding of {config}");
        assert_eq!(weights.blocks.len(), config.n_layers, "blocks of {config}");
        let pool = Pool::new(n_threads);
        // The embedding is the largest part, so it is started first.
        let (embed_slot, rope) = (OnceLock::new(), OnceLock::new());
        let blocks: Vec<OnceLock<Block>> = weights.blocks.iter().map(|_| OnceLock::new()).collect();
        pool.for_each(blocks.len() + 2, |piece_idx| {
            let is_first = match piece_idx {
                0 => embed_slot
                    .set(PreparedHead::new(
                        embed.cols,
                        embed.values.as_ref(),
                        &embed.scales,
                        precision.head,
                        plans.isa(),
                    ))
                    .is_ok(),
                1 => rope.set(Rope::new(&config)).is_ok(),
                _ => {
                    let layer = piece_idx - 2;
                    let block = &weights.blocks[layer];
                    let attn = Attention::new(&config, &block.attn, layer + 1 == config.n_layers, plans);
                    blocks[layer].set(Block { attn, mlp: Mlp::new(&config, &block.mlp, plans) }).is_ok()
                }
            };
            debug_assert!(is_first, "each piece runs once");
        });
        let proof = "each piece ran";
        Arc::new(Self {
            isa: plans.isa(),
            kv_bits: precision.kv,
            prompt_batch: plans.prompt_batch(),
            pool,
            embed: embed_slot.into_inner().expect(proof),
            blocks: blocks.into_iter().map(|block| block.into_inner().expect(proof)).collect(),
            norm_final: weights.norm_final.clone(),
            rope: rope.into_inner().expect(proof),
            config,
        })
    }

    /// The sizes of the architecture.
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

    /// Prompt tokens that go through the layers together.
    pub(crate) fn prompt_batch(&self) -> usize {
        self.prompt_batch
    }

    /// How each ternary matrix is computed, in the order of the layers.
    pub fn plans(&self) -> Vec<(Shape, Plan)> {
        self.matrices().map(|matrix| (matrix.shape(), matrix.plan())).collect()
    }

    fn matrices(&self) -> impl Iterator<Item = &Prepared> {
        self.blocks.iter().flat_map(|b| {
            let (first, second) = match &b.attn.qkv {
                Qkv::Together(qkv) => (qkv, None),
                Qkv::Apart { q, kv } => (q, Some(kv)),
            };
            std::iter::once(first).chain(second).chain([&b.attn.o, &b.mlp.gate_up, &b.mlp.down])
        })
    }

    /// Bytes of laid-out weights.
    pub fn n_bytes(&self) -> usize {
        self.embed.n_bytes() + self.matrices().map(Prepared::n_bytes).sum::<usize>()
    }

    /// An empty cache for each layer.
    pub(crate) fn caches(&self) -> Vec<KvCache> {
        let Config { n_heads, n_kv_heads, context, .. } = self.config;
        let heads = Heads { n_heads, n_kv_heads, head_dim: self.config.head_dim() };
        (0..self.config.n_layers).map(|_| KvCache::new(heads, context, self.kv_bits)).collect()
    }
}

impl Attention {
    fn new<M: Ternary>(config: &Config, weights: &AttentionWeights<M>, is_last: bool, plans: &Plans) -> Self {
        let (d, kv) = (config.d_model, config.kv_dim());
        let prepared = |matrices: &[&M], rows: usize| {
            let prepared = Prepared::new(matrices, plans.plan(Shape { rows, cols: d }));
            assert_eq!((prepared.shape().rows, prepared.shape().cols), (rows, d), "attention of {config}");
            prepared
        };
        let AttentionWeights { q, k, v, .. } = weights;
        let qkv = if is_last {
            Qkv::Apart { q: prepared(&[q], d), kv: prepared(&[k, v], 2 * kv) }
        } else {
            Qkv::Together(prepared(&[q, k, v], d + 2 * kv))
        };
        Self {
            mixer: mhc::mixer(config, weights.mhc.as_ref()),
            norm: weights.norm.clone(),
            qkv,
            norm_out: weights.norm_out.clone(),
            o: prepared(&[&weights.o], d),
        }
    }
}

impl Mlp {
    fn new<M: Ternary>(config: &Config, weights: &MlpWeights<M>, plans: &Plans) -> Self {
        let (d, d_ff) = (config.d_model, config.d_ff);
        let plan = |rows, cols| plans.plan(Shape { rows, cols });
        let gate_up = Prepared::new(&[&weights.gate, &weights.up], plan(2 * d_ff, d));
        let down = Prepared::new(&[&weights.down], plan(d, d_ff));
        assert_eq!((gate_up.shape().rows, gate_up.shape().cols), (2 * d_ff, d), "gate and up of {config}");
        assert_eq!((down.shape().rows, down.shape().cols), (d, d_ff), "down of {config}");
        Self {
            mixer: mhc::mixer(config, weights.mhc.as_ref()),
            norm: weights.norm.clone(),
            gate_up,
            norm_down: weights.norm_down.clone(),
            down,
        }
    }
}

/// Consecutive tokens of a forward pass.
pub(crate) struct Run<'a> {
    /// Keys and values of the tokens before them, one cache for each layer.
    pub(crate) caches: &'a mut [KvCache],
    /// Position of the first token.
    pub(crate) first: usize,
    /// How many tokens.
    pub(crate) n: usize,
}

/// Buffers of a forward pass, kept from one to the next.
#[derive(Debug)]
pub(crate) struct Activations {
    /// `[n, n_streams, d]`
    streams: Vec<f32>,
    /// `[n, d]`, with several streams: what the last sublayer gave, or the next one's input.
    hidden: Vec<f32>,
    /// `[n, n_coefficients]`, with several streams: those of the last sublayer.
    coefficients: Vec<f32>,
    /// `[n, d + 2·kv]`; in the last layer `[n, 2·kv]`.
    qkv: Vec<f32>,
    /// `[n, d]`, in the last layer.
    queries: Vec<f32>,
    /// `[n, d]`
    attended: Vec<f32>,
    /// `[n, 2·d_ff]`
    gate_up: Vec<f32>,
    /// `[n, d]`: sums of streams.
    total: Vec<f32>,
    narrow: Int8Rows,
    wide: Int8Rows,
}

impl Activations {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            streams: Vec::new(),
            hidden: Vec::new(),
            coefficients: Vec::new(),
            qkv: Vec::new(),
            queries: Vec::new(),
            attended: Vec::new(),
            gate_up: Vec::new(),
            total: Vec::new(),
            narrow: Int8Rows::new(config.d_model),
            wide: Int8Rows::new(config.d_ff),
        }
    }

    /// Runs tokens, those of each run after what its caches hold, writing their keys and values. The last `n_wanted` of
    /// all may have their logits taken; the others end with their keys and values in the last layer. Looks at `cancel`
    /// between layers.
    pub(crate) fn forward(
        &mut self,
        model: &Model,
        runs: &mut [Run<'_>],
        tokens: &[TokenId],
        n_wanted: usize,
        cancel: &Cancel,
    ) -> Result<(), Cancelled> {
        let Config { d_model: d, n_streams, norm_eps: eps, .. } = model.config;
        let (isa, pool, rope) = (model.isa, &model.pool, model.rope.tables());
        let n = tokens.len();
        let (kv_width, ff_width) = (2 * model.config.kv_dim(), 2 * model.config.d_ff);
        assert!(n_wanted <= n, "{n_wanted} of {n} tokens");
        assert_eq!(runs.iter().map(|run| run.n).sum::<usize>(), n, "tokens of all runs");
        self.streams.resize(n * n_streams * d, 0.0);
        self.attended.resize(n * d, 0.0);
        model.embed.gather(pool, tokens, n_streams, &mut self.streams);
        let mut from = 0; // the first row that is computed further
        for (layer, block) in model.blocks.iter().enumerate() {
            cancel.check()?;
            let Attention { mixer, norm, qkv, norm_out, o } = &block.attn;
            self.enter(model, mixer.as_ref(), layer > 0, from, norm);
            let (queries, stride) = match qkv {
                Qkv::Together(qkv) => {
                    let stride = d + kv_width;
                    self.qkv.resize(n * stride, 0.0);
                    qkv.gemm(pool, &self.narrow, &mut self.qkv, Write::Store);
                    append(model, runs, layer, &self.qkv[d..], stride);
                    (&self.qkv, stride)
                }
                Qkv::Apart { q, kv } => {
                    self.qkv.resize(n * kv_width, 0.0);
                    kv.gemm(pool, &self.narrow, &mut self.qkv, Write::Store);
                    append(model, runs, layer, &self.qkv, kv_width);
                    from = n - n_wanted;
                    if n_wanted == 0 {
                        break;
                    }
                    if from > 0 {
                        let input = if mixer.is_some() { &self.hidden } else { &self.streams };
                        self.narrow.rms_norm(isa, pool, &input[from * d..], Norm { gain: norm, eps });
                    }
                    self.queries.resize(n_wanted * d, 0.0);
                    q.gemm(pool, &self.narrow, &mut self.queries, Write::Store);
                    (&self.queries, d)
                }
            };
            let attended = &mut self.attended[from * d..];
            let mut start = 0; // of a run
            for run in &*runs {
                let rows = start.max(from)..start + run.n;
                let first = run.first + rows.start - start;
                start = rows.end;
                if !rows.is_empty() {
                    let x = &queries[(rows.start - from) * stride..];
                    let attended = &mut attended[(rows.start - from) * d..(rows.end - from) * d];
                    run.caches[layer].attend(isa, pool, Rows { x, stride, n: rows.len(), first }, rope, attended);
                }
            }
            self.narrow.rms_norm(isa, pool, attended, Norm { gain: norm_out, eps });
            self.leave(pool, mixer.as_ref(), from, o, Width::Narrow);

            let Mlp { mixer, norm, gate_up, norm_down, down } = &block.mlp;
            self.enter(model, mixer.as_ref(), true, from, norm);
            self.gate_up.resize((n - from) * ff_width, 0.0);
            gate_up.gemm(pool, &self.narrow, &mut self.gate_up, Write::Store);
            let norm = Norm { gain: norm_down, eps };
            self.wide.gated_rms_norm(isa, pool, &mut self.gate_up, model.config.activation, norm);
            self.leave(pool, mixer.as_ref(), from, down, Width::Wide);
        }
        Ok(())
    }

    /// A sublayer's normalised, quantised input for the rows `from..`. With several streams the output of the sublayer
    /// before, if there was one, is mixed in first.
    fn enter(&mut self, model: &Model, mixer: Option<&Mixer>, has_output: bool, from: usize, gain: &[f32]) {
        let Config { d_model: d, n_streams, norm_eps: eps, .. } = model.config;
        let (isa, pool) = (model.isa, &model.pool);
        let norm = Norm { gain, eps };
        let x = &mut self.streams[from * n_streams * d..];
        let Some(mixer) = mixer else { return self.narrow.rms_norm(isa, pool, x, norm) };
        let (n, n_coefficients) = (from + x.len() / (n_streams * d), mixer.n_coefficients());
        self.hidden.resize(n * d, 0.0);
        self.coefficients.resize(n * n_coefficients, 0.0);
        let (hidden, coefficients) = (&mut self.hidden[from * d..], &mut self.coefficients[from * n_coefficients..]);
        self.narrow.mixed_rms_norm(isa, pool, mixer, Streams { x, hidden, coefficients }, has_output, norm);
    }

    /// A sublayer's last product, added to the one stream or kept for [`Activations::enter`] to mix in.
    fn leave(&mut self, pool: &Pool, mixer: Option<&Mixer>, from: usize, product: &Prepared, width: Width) {
        let from = from * product.shape().rows;
        let input = match width {
            Width::Narrow => &self.narrow,
            Width::Wide => &self.wide,
        };
        match mixer {
            None => product.gemm(pool, input, &mut self.streams[from..], Write::Add),
            Some(_) => product.gemm(pool, input, &mut self.hidden[from..], Write::Store),
        }
    }
    /// Logits `[rows, vocab_size]` after the tokens `rows` of the last forward pass; all of them were wanted there.
    pub(crate) fn logits(&mut self, model: &Model, rows: Range<usize>, out: &mut [f32]) {
        let Config { d_model: d, n_streams, norm_eps: eps, .. } = model.config;
        let norm = Norm { gain: &model.norm_final, eps };
        let streams = &self.streams[rows.start * n_streams * d..rows.end * n_streams * d];
        let mixer = model.blocks.last().and_then(|block| block.mlp.mixer.as_ref());
        let x = match mixer {
            None => streams,
            Some(mixer) => {
                self.total.resize(rows.len() * d, 0.0);
                let width = mixer.n_coefficients();
                for ((i, x), total) in rows.zip(streams.chunks_exact(n_streams * d)).zip(self.total.chunks_exact_mut(d))
                {
                    let (hidden, coefficients) = (&self.hidden[i * d..][..d], &self.coefficients[i * width..][..width]);
                    sum_streams(model.isa, mixer, x, hidden, coefficients, total);
                }
                &self.total
            }
        };
        self.narrow.rms_norm(model.isa, &model.pool, x, norm);
        model.embed.gemm(&model.pool, &self.narrow, out);
    }
}

/// Writes keys and values of a layer, `stride` from one token to the next.
fn append(model: &Model, runs: &mut [Run<'_>], layer: usize, mut x: &[f32], stride: usize) {
    for Run { caches, first, n } in runs {
        let rows = Rows { x, stride, n: *n, first: *first };
        caches[layer].append(model.isa, &model.pool, rows, model.rope.tables());
        x = x.get(*n * stride..).unwrap_or_default();
    }
}

/// Which of the two quantised inputs.
#[derive(Clone, Copy)]
enum Width {
    /// `[n, d]`
    Narrow,
    /// `[n, d_ff]`
    Wide,
}
