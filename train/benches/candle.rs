//! The step of `step.rs` with candle as it is: `cargo bench -p nanochat-train --bench candle -- [SHAPE …] [--threads N] [--json]`.
//!
//! The same model, masters, tokens, rates and flags, written with the tensor operations that candle-core has: no operation
//! of our own, candle's autograd, f32, glibc's allocator, candle's own threads. Rounded weights are the leaves of the
//! graph, so that masters are rounded once per step, as ours are, and not once per micro-batch. The matrix product is the
//! `gemm` crate's, with the AVX-512 routines that this workspace turns on: candle by itself would go without them.
//!
//! Before anything is timed, loss and gradients of one micro-batch are held against ours.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod common;

use std::error::Error;
use std::process::Command;

use candle_core::{D, Device, Result, Tensor, Var};
use common::{Clock, RATE, Setting};
use nanochat_engine::Config;
use nanochat_train::Recipe;
use nanochat_train::model::params::Places;
use nanochat_train::model::{Batch, Graph, Kind, Param, Params, rope};
use nanochat_train::optim::Optimizer;
use nanochat_train::optim::lion::Lion;
use nanochat_train::optim::muon::Muon;

/// candle reads its number of threads from the environment, which only a new process can be given.
const THREADS: [&str; 2] = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"];

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let setting = Setting::from_args()?;
    let n_threads = setting.n_threads.to_string();
    if THREADS.iter().any(|name| std::env::var(name).ok().as_ref() != Some(&n_threads)) {
        let mut measuring = Command::new(std::env::current_exe()?);
        measuring.args(std::env::args_os().skip(1)).envs(THREADS.map(|name| (name, &n_threads)));
        let status = measuring.status()?;
        return if status.success() { Ok(()) } else { Err(format!("the measuring process: {status}").into()) };
    }
    for shape in &setting.shapes {
        measure(shape, &setting)?;
    }
    Ok(())
}

fn measure(shape: &str, setting: &Setting) -> std::result::Result<(), Box<dyn Error>> {
    let config = setting.config(shape)?;
    if config.n_streams != 1 {
        return Err(format!("{shape} has {} residual streams; this step knows one", config.n_streams).into());
    }
    let params = Params::init(&config, 1);
    let optimizer = Recipe::load("default")?.optimizer;
    let model = Model::new(&config, setting.seq_len)?;
    let mut masters: Vec<Master> = params.list.iter().map(Master::new).collect::<Result<_>>()?;
    let ours = setting.batches(&config);
    let batches: Vec<Tokens> = ours.iter().map(Tokens::new).collect::<Result<_>>()?;
    compare(&model, &masters, &params, &ours[0])?;
    let mut clock = Clock::default();
    for _ in 0..=setting.n_steps {
        let mut step = clock.begin();
        let leaves: Vec<Vec<Var>> = masters.iter().map(Master::leaves).collect::<Result<_>>()?;
        step.lap("round");
        let (loss, mut gradients) = model.gradients(&leaves, &batches, setting.weight())?;
        step.lap("gradients");
        clip(&mut gradients, optimizer.clip_norm)?;
        for (master, gradients) in masters.iter_mut().zip(&gradients) {
            master.update(gradients, &optimizer)?;
        }
        step.lap("optimizer");
        drop((leaves, gradients));
        step.lap("free");
        step.end(loss);
    }
    clock.report(setting, shape, params.n_values());
    Ok(())
}

/// Refuses to time a model that is not ours: both losses of a micro-batch are the same, and so are the directions of all
/// gradients, but for the few activations that fall on the other side of a rounding.
fn compare(
    model: &Model,
    masters: &[Master],
    params: &Params,
    batch: &Batch,
) -> std::result::Result<(), Box<dyn Error>> {
    let weight = 1.0 / batch.tokens.len() as f64;
    let leaves: Vec<Vec<Var>> = masters.iter().map(Master::leaves).collect::<Result<_>>()?;
    let (loss, gradients) = model.gradients(&leaves, &[Tokens::new(batch)?], weight)?;
    let (our_loss, our_gradients) =
        Graph::new(params, nanochat_kernels::Precision::F32)?.gradients(batch, weight as f32)?;
    if (loss - our_loss).abs() > 1e-3 {
        return Err(format!("the loss is {loss}, ours {our_loss}").into());
    }
    for ((param, parts), ours) in params.list.iter().zip(&gradients).zip(&our_gradients) {
        let mut theirs = Vec::with_capacity(ours.len());
        for part in parts {
            theirs.extend(part.flatten_all()?.to_vec1::<f32>()?);
        }
        let cosine = dot(&theirs, ours) / (dot(&theirs, &theirs) * dot(ours, ours)).sqrt();
        // Not a number: one of them is zero.
        if cosine.is_nan() || cosine < 0.99 {
            return Err(format!("{}: the cosine of its gradient and ours is {cosine}", param.name).into());
        }
    }
    Ok(())
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// A micro-batch as tensors.
struct Tokens {
    tokens: Tensor,  // [N]
    targets: Tensor, // [N, 1]
}

impl Tokens {
    fn new(batch: &Batch) -> Result<Self> {
        let n_rows = batch.tokens.len();
        Ok(Self {
            tokens: Tensor::from_slice(batch.tokens.as_slice(), n_rows, &Device::Cpu)?,
            targets: Tensor::from_slice(batch.targets.as_slice(), (n_rows, 1), &Device::Cpu)?,
        })
    }
}

/// A parameter and its momentum. Matrices over the same input are parts, each a tensor of its own.
struct Master {
    kind: Kind,
    parts: Vec<Part>,
}

struct Part {
    w: Tensor,
    m: Tensor,
}

impl Master {
    fn new(param: &Param) -> Result<Self> {
        let whole = Tensor::from_slice(&param.values, param.shape.clone(), &Device::Cpu)?;
        let part_rows = match &param.kind {
            Kind::Hidden { part_rows } => part_rows.clone(),
            _ => vec![param.shape[0]],
        };
        let mut parts = Vec::with_capacity(part_rows.len());
        let mut start = 0;
        for rows in part_rows {
            let w = whole.narrow(0, start, rows)?;
            parts.push(Part { m: w.zeros_like()?, w });
            start += rows;
        }
        Ok(Self { kind: param.kind.clone(), parts })
    }

    /// What a step reads. The gradient of what is rounded is taken for that of the master.
    fn leaves(&self) -> Result<Vec<Var>> {
        let mut leaves = Vec::with_capacity(self.parts.len());
        for Part { w, .. } in &self.parts {
            leaves.push(match self.kind {
                Kind::Hidden { .. } => Var::from_tensor(&ternary(w)?)?,
                Kind::Embedding => Var::from_tensor(&int8_rows(w)?)?,
                Kind::Norm | Kind::Mhc => Var::from_tensor(w)?,
            });
        }
        Ok(leaves)
    }

    fn update(&mut self, gradients: &[Tensor], optimizer: &Optimizer) -> Result<()> {
        let Optimizer { muon, lion, .. } = optimizer;
        for (part, g) in self.parts.iter_mut().zip(gradients) {
            match self.kind {
                Kind::Hidden { .. } => part.muon(g, muon, muon.lr * RATE)?,
                Kind::Embedding => part.lion(g, lion, lion.lr * RATE, f64::from(lion.weight_decay))?,
                Kind::Norm | Kind::Mhc => part.lion(g, lion, lion.lr_gains * RATE, 0.0)?,
            }
        }
        Ok(())
    }
}

impl Part {
    /// `optim::muon`'s formulas.
    fn muon(&mut self, g: &Tensor, muon: &Muon, lr: f64) -> Result<()> {
        let (beta, decay) = (f64::from(muon.beta), f64::from(muon.weight_decay));
        let own = (g * (1.0 - beta))?;
        self.m = ((&self.m * beta)? + &own)?;
        let u = (own + (&self.m * beta)?)?;
        let (rows, cols) = u.dims2()?;
        let mut x = (&u / (square_sum(&u)?.sqrt() + 1e-7))?;
        // The product X·Xᵀ is smaller on the wide side.
        let tall = rows > cols;
        if tall {
            x = x.t()?.contiguous()?;
        }
        for _ in 0..muon.ns_steps {
            let a = x.matmul(&x.t()?)?;
            let b = ((&a * -4.7750)? + (a.matmul(&a)? * 2.0315)?)?;
            x = ((&x * 3.4445)? + b.matmul(&x)?)?;
        }
        if tall {
            x = x.t()?.contiguous()?;
        }
        let gain = (rows as f64 / cols as f64).max(1.0).sqrt();
        self.w = ((&self.w * (1.0 - lr * decay))? - (x * (lr * gain))?)?;
        Ok(())
    }

    /// `optim::lion`'s formulas.
    fn lion(&mut self, g: &Tensor, lion: &Lion, lr: f64, decay: f64) -> Result<()> {
        let mix = |beta: f64| -> Result<Tensor> { (&self.m * beta)? + (g * (1.0 - beta))? };
        let sign = mix(f64::from(lion.beta1))?.sign()?;
        let m = mix(f64::from(lion.beta2))?;
        self.w = ((&self.w * (1.0 - lr * decay))? - (sign * lr)?)?;
        self.m = m;
        Ok(())
    }
}

/// Scales all gradients down to a joint norm of at most `max_norm`.
fn clip(gradients: &mut [Vec<Tensor>], max_norm: f64) -> Result<()> {
    let mut square = 0.0;
    for gradient in gradients.iter().flatten() {
        square += square_sum(gradient)?;
    }
    let norm = square.sqrt();
    if norm > max_norm {
        for gradient in gradients.iter_mut().flatten() {
            *gradient = (&*gradient * (max_norm / norm))?;
        }
    }
    Ok(())
}

fn square_sum(x: &Tensor) -> Result<f64> {
    Ok(f64::from(x.sqr()?.sum_all()?.to_scalar::<f32>()?))
}

/// What does not change from step to step.
struct Model {
    config: Config,
    places: Places,
    seq_len: usize,
    cos: Tensor,  // [seq_len, hd / 2]
    sin: Tensor,  // the same
    mask: Tensor, // [seq_len, seq_len], −∞ where a query does not see
}

impl Model {
    fn new(config: &Config, seq_len: usize) -> Result<Self> {
        let table = rope::table(config, seq_len);
        let (cos, sin) = &*table;
        let half = config.head_dim() / 2;
        let sees = |query: usize| (0..seq_len).map(move |key| if key <= query { 0.0 } else { f32::NEG_INFINITY });
        let mask: Vec<f32> = (0..seq_len).flat_map(sees).collect();
        Ok(Self {
            cos: Tensor::from_slice(cos, (seq_len, half), &Device::Cpu)?,
            sin: Tensor::from_slice(sin, (seq_len, half), &Device::Cpu)?,
            mask: Tensor::from_vec(mask, (seq_len, seq_len), &Device::Cpu)?,
            places: Places::of(config),
            config: config.clone(),
            seq_len,
        })
    }

    /// weight · Σ −ln p over all micro-batches, and its gradients.
    fn gradients(&self, leaves: &[Vec<Var>], batches: &[Tokens], weight: f64) -> Result<(f64, Vec<Vec<Tensor>>)> {
        let mut loss = 0.0;
        let mut sums = Vec::with_capacity(leaves.len());
        for parts in leaves {
            sums.push(parts.iter().map(|leaf| leaf.zeros_like()).collect::<Result<Vec<Tensor>>>()?);
        }
        for batch in batches {
            let part = self.loss(leaves, batch, weight)?;
            loss += f64::from(part.to_scalar::<f32>()?);
            let mut store = part.backward()?;
            for (sum, leaf) in sums.iter_mut().flatten().zip(leaves.iter().flatten()) {
                let Some(gradient) = store.remove(leaf) else {
                    candle_core::bail!("a parameter has no gradient");
                };
                // Detached, or the sum would keep the graphs of all micro-batches.
                *sum = (&*sum + gradient.detach())?;
            }
        }
        Ok((loss, sums))
    }

    /// weight · Σ −ln p.
    fn loss(&self, leaves: &[Vec<Var>], batch: &Tokens, weight: f64) -> Result<Tensor> {
        let eps = f64::from(self.config.norm_eps);
        let embed = &leaves[self.places.embed][0];
        let mut x = embed.index_select(&batch.tokens, 0)?; // [N, d]
        for block in &self.places.blocks {
            let (attn, mlp) = (&block.attn, &block.mlp);
            let normed = norm_round(&x, &leaves[attn.norm][0], eps)?;
            let o = self.attention(&normed, &leaves[attn.qkv])?;
            let normed = norm_round(&o, &leaves[attn.norm_out][0], eps)?;
            x = (x + linear(&normed, &leaves[attn.o][0])?)?;
            let normed = norm_round(&x, &leaves[mlp.norm][0], eps)?;
            let [gate, up] = &leaves[mlp.gate_up][..] else { unreachable!("a gate and what it lets through") };
            let gated = (linear(&normed, gate)?.silu()? * linear(&normed, up)?)?;
            let normed = norm_round(&gated, &leaves[mlp.norm_down][0], eps)?;
            x = (x + linear(&normed, &leaves[mlp.down][0])?)?;
        }
        let normed = norm_round(&x, &leaves[self.places.norm_final][0], eps)?;
        let logits = linear(&normed, embed)?; // [N, V]
        let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
        let log_sums = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
        let at_targets = shifted.gather(&batch.targets, D::Minus1)?;
        (log_sums - at_targets)?.sum_all()? * weight
    }

    /// `[N, d]` from the normed residual.
    fn attention(&self, normed: &Tensor, weights: &[Var]) -> Result<Tensor> {
        let [wq, wk, wv] = weights else { unreachable!("queries, keys and values") };
        let Config { n_heads, n_kv_heads, d_model, .. } = self.config;
        let (hd, t, n_rows) = (self.config.head_dim(), self.seq_len, normed.dim(0)?);
        let n_sequences = n_rows / t;
        // [n_sequences, heads, t, hd]
        let split = |y: Tensor, heads: usize| -> Result<Tensor> {
            y.reshape((n_sequences, t, heads, hd))?.transpose(1, 2)?.contiguous()
        };
        let q = (self.rotate(&split(linear(normed, wq)?, n_heads)?)? * (1.0 / (hd as f64).sqrt()))?;
        let k = self.rotate(&split(linear(normed, wk)?, n_kv_heads)?)?;
        let v = split(linear(normed, wv)?, n_kv_heads)?;
        // Heads that share keys stand one below the other: keys and values are not copied for each.
        let (n_shared, rows) = (n_sequences * n_kv_heads, n_heads / n_kv_heads * t);
        let q = q.reshape((n_shared, rows, hd))?;
        let k = k.reshape((n_shared, t, hd))?;
        let v = v.reshape((n_shared, t, hd))?;
        let scores = q.matmul(&k.t()?)?.reshape((n_sequences * n_heads, t, t))?.broadcast_add(&self.mask)?;
        let p = softmax(&scores)?.reshape((n_shared, rows, t))?;
        let o = p.matmul(&v)?.reshape((n_sequences, n_heads, t, hd))?;
        o.transpose(1, 2)?.reshape((n_rows, d_model))
    }

    /// Rotates the halves of each head of `[.., t, hd]`.
    fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        let half = self.config.head_dim() / 2;
        let (low, high) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
        let new_low = (low.broadcast_mul(&self.cos)? - high.broadcast_mul(&self.sin)?)?;
        let new_high = (high.broadcast_mul(&self.cos)? + low.broadcast_mul(&self.sin)?)?;
        Tensor::cat(&[new_low, new_high], D::Minus1)
    }
}

/// x · wᵀ.
fn linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    x.matmul(&w.t()?)
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let exp = x.broadcast_sub(&x.detach().max_keepdim(D::Minus1)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

/// RMSNorm, then int8 with a straight-through gradient.
fn norm_round(x: &Tensor, gain: &Tensor, eps: f64) -> Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = x.broadcast_div(&(mean + eps)?.sqrt()?)?.broadcast_mul(gain)?;
    let plain = normed.detach();
    normed + (int8_rows(&plain)? - &plain)?
}

/// Each row to 8 bits by its largest magnitude, and back.
fn int8_rows(x: &Tensor) -> Result<Tensor> {
    let scales = (x.abs()?.max_keepdim(D::Minus1)? / 127.0)?.maximum(1e-12f32)?; // a row of zeros stays one
    x.broadcast_div(&scales)?.round()?.broadcast_mul(&scales)
}

/// To −γ, 0, γ with γ = mean|w|.
fn ternary(w: &Tensor) -> Result<Tensor> {
    let gamma = w.abs()?.mean_all()?;
    w.broadcast_div(&gamma)?.round()?.clamp(-1f32, 1f32)?.broadcast_mul(&gamma)
}
