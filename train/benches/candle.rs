//! The step of `step.rs` with candle as it is:
//! `cargo bench -p nanochat-train --bench candle -- [SHAPE …] [--threads N] [--json]`.
//!
//! The same model, masters, tokens, rates and flags, written with the tensor operations that candle-core has (the
//! candle backend): no operation of our own, candle's autograd, f32, glibc's allocator, candle's own threads. Rounded
//! weights are the leaves of the graph, so that masters are rounded once per step, as ours are, and not once per
//! micro-batch. The matrix product is the `gemm` crate's, with the AVX-512 routines that this workspace turns on:
//! candle by itself would go without them.
//!
//! Before anything is timed, loss and gradients of one micro-batch are compared with ours.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod common;

use std::error::Error;
use std::process::Command;

use candle_core::{Device, Result, Tensor, Var};
use common::{Clock, RATE, Setting};
use nanochat_train::Recipe;
use nanochat_train::backend::candle::{CandleModel, Leaves};
use nanochat_train::data::Batch;
use nanochat_train::model::{Graph, Param, ParamKind, Params};
use nanochat_train::optim::Optimizer;
use nanochat_train::optim::lion::Lion;
use nanochat_train::optim::muon::Muon;

/// candle reads its number of threads from the environment, which only a new process can be given.
const THREADS: [&str; 2] = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"];

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let mut setting = Setting::from_args()?;
    // Whatever is asked for: candle has no bf16 products on a CPU.
    setting.matmul = nanochat_kernels::Precision::F32.into();
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
    let params = Params::init(&config, 1);
    let optimizer = Recipe::load("adapt")?.optimizer;
    let model = CandleModel::new(&config, setting.seq_len, &Device::Cpu)?;
    let mut masters: Vec<Master> = params.list.iter().map(|param| Master::new(&model, param)).collect::<Result<_>>()?;
    let batches = setting.batches(&config);
    compare(&model, &masters, &params, &batches[0])?;
    let mut clock = Clock::default();
    for _ in 0..=setting.n_steps {
        let mut step = clock.start();
        let leaves: Leaves = masters.iter().map(|master| master.leaves(&model)).collect::<Result<_>>()?;
        step.lap("round");
        let (loss, mut gradients) = model.gradients(&leaves, &batches, setting.weight(), 0.0)?;
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

/// Refuses to time a model that is not ours: both losses of a micro-batch are the same, and so are the directions of
/// all gradients, but for the few activations that fall on the other side of a rounding.
fn compare(
    model: &CandleModel,
    masters: &[Master],
    params: &Params,
    batch: &Batch,
) -> std::result::Result<(), Box<dyn Error>> {
    let weight = 1.0 / batch.tokens.len() as f64;
    let leaves: Leaves = masters.iter().map(|master| master.leaves(model)).collect::<Result<_>>()?;
    let (loss, gradients) = model.gradients(&leaves, std::slice::from_ref(batch), weight, 0.0)?;
    let (our_loss, our_gradients) =
        Graph::new(params, nanochat_kernels::Precision::F32).gradients(batch, weight as f32)?;
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

/// A parameter and its momentum. Matrices over the same input are parts, each a tensor of its own.
struct Master {
    kind: ParamKind,
    parts: Vec<Part>,
}

struct Part {
    w: Tensor,
    m: Tensor,
}

impl Master {
    fn new(model: &CandleModel, param: &Param) -> Result<Self> {
        let parts = model.masters(param)?.into_iter().map(|w| Ok(Part { m: w.zeros_like()?, w }));
        Ok(Self { kind: param.kind.clone(), parts: parts.collect::<Result<_>>()? })
    }

    fn leaves(&self, model: &CandleModel) -> Result<Vec<Var>> {
        self.parts.iter().map(|part| model.leaf(&self.kind, &part.w)).collect()
    }

    fn update(&mut self, gradients: &[Tensor], optimizer: &Optimizer) -> Result<()> {
        let Optimizer { muon, lion: Some(lion), .. } = optimizer else {
            candle_core::bail!("measured with Muon and Lion")
        };
        for (part, g) in self.parts.iter_mut().zip(gradients) {
            match self.kind {
                ParamKind::Hidden { .. } => part.muon(g, muon, muon.lr * RATE)?,
                ParamKind::Embedding => part.lion(g, lion, lion.lr * RATE, f64::from(lion.weight_decay))?,
                ParamKind::Norm | ParamKind::Mhc => part.lion(g, lion, lion.lr_gains * RATE, 0.0)?,
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
