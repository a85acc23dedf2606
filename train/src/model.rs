//! The differentiable twin of the engine's model, over packed sequences of many documents. Files that have a
//! counterpart in the engine's `model` have its name.
//!
//! ```text
//! Params (f32 masters) → Graph (rounded once per step) → loss, gradients      export writes the same rounded values
//! ```

pub mod params;
pub mod rope;
pub mod mhc;
pub mod forward;

use std::sync::{Arc, OnceLock};

use candle_core::{Device, Result, Tensor, Var};
use nanochat_engine::Config;
use nanochat_kernels::Precision;

pub use params::{Param, ParamKind, Params};

use crate::data::Batch;
use crate::ops::MatmulPrecision;
use crate::ops::head::{CrossEntropy, Int8Head};
use crate::ops::linear::TernaryStack;
use crate::pool::Pool;
use params::ParamLayout;

/// The parameters of one step with their roundings, and as candle variables where these are asked for.
pub struct Graph<'a> {
    params: &'a Params,
    layout: ParamLayout,
    vars: OnceLock<Vec<Var>>,
    stacks: Vec<Option<Arc<TernaryStack>>>,
    head: Arc<Int8Head>,
    /// Weight of the entropy bonus: subtracted from the training loss per nat of a prediction's entropy; 0 turns it
    /// off.
    pub entropy: f32,
}

/// Memory of rounded parameters that the next [`Graph`] takes over when this is dropped.
pub struct RoundedBuffers {
    _stacks: Vec<Option<Arc<TernaryStack>>>,
    _head: Arc<Int8Head>,
}

/// A parameter after rounding.
enum Rounded {
    Hidden(TernaryStack),
    Embedding(Int8Head),
    Not,
}

impl<'a> Graph<'a> {
    /// Rounds the masters. Matrix products use the precision `matmul`; those of rounded numbers are always exact.
    pub fn new(params: &'a Params, matmul: impl Into<MatmulPrecision>) -> Self {
        let matmul = matmul.into();
        let rounded = (0..params.list.len()).map(|param_idx| Self::round(params, param_idx, matmul));
        Self::of(params, rounded.collect())
    }

    /// As [`Graph::new`], spread over workers.
    pub fn with_pool(params: &'a Params, matmul: impl Into<MatmulPrecision>, pool: &Pool) -> Self {
        let matmul = matmul.into();
        Self::of(params, pool.map(params.list.len(), |param_idx| Self::round(params, param_idx, matmul)))
    }

    fn round(params: &Params, param_idx: usize, matmul: MatmulPrecision) -> Rounded {
        let (param, config) = (&params.list[param_idx], &params.config);
        match &param.kind {
            ParamKind::Hidden { part_rows } => {
                let (values, cols) = (&param.values, param.shape[1]);
                Rounded::Hidden(params.weights.round(values, part_rows, cols, config.scales, matmul))
            }
            ParamKind::Embedding => {
                let (values, precision) = (&param.values, matmul.precision);
                Rounded::Embedding(Int8Head::quantize(values, config.vocab_size, config.d_model, precision))
            }
            ParamKind::Norm | ParamKind::Mhc => Rounded::Not,
        }
    }

    fn of(params: &'a Params, rounded: Vec<Rounded>) -> Self {
        let (mut stacks, mut head) = (Vec::with_capacity(rounded.len()), None);
        for rounded in rounded {
            stacks.push(match rounded {
                Rounded::Hidden(stack) => Some(Arc::new(stack)),
                Rounded::Embedding(embedding) => {
                    head = Some(Arc::new(embedding));
                    None
                }
                Rounded::Not => None,
            });
        }
        let head = head.expect("a model has an embedding");
        Self { params, layout: ParamLayout::of(&params.config), vars: OnceLock::new(), stacks, head, entropy: 0.0 }
    }

    /// The memory of the rounded masters. Keep it until the masters are rounded again: the allocator would otherwise
    /// return it to the system, and new pages cost more than the rounding.
    pub fn into_rounded(self) -> RoundedBuffers {
        RoundedBuffers { _stacks: self.stacks, _head: self.head }
    }

    /// The rounded matrices of a hidden parameter.
    pub fn stack(&self, param_idx: usize) -> Option<&Arc<TernaryStack>> {
        self.stacks[param_idx].as_ref()
    }

    /// The rounded embedding.
    pub fn head(&self) -> &Int8Head {
        &self.head
    }

    /// Precision of matrix products.
    pub fn precision(&self) -> Precision {
        self.head.precision()
    }

    /// Architecture.
    pub fn config(&self) -> &Config {
        &self.params.config
    }

    /// Index of each parameter.
    pub fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    /// Replaces the rounding of one parameter; the parity test plants an error this way.
    pub fn set_stack(&mut self, param_idx: usize, stack: TernaryStack) {
        self.stacks[param_idx] = Some(Arc::new(stack));
    }

    /// The last residual `[N, d]`, before the final norm, and the streams `[N, n, d]` if there are several.
    pub fn hidden(&self, batch: &Batch) -> Result<(Tensor, Option<Tensor>)> {
        let rope = rope::table(self.config(), batch.seq_len);
        let embedded = forward::lookup(self, batch)?;
        let mut streams = mhc::Streams::new(embedded, self.config().n_streams)?;
        for block in &self.layout.blocks {
            streams = forward::block(self, block, streams, batch, &rope)?;
        }
        streams.sum()
    }

    /// weight · Σ −ln p over the targets, each times its own weight, a scalar `[1]`; in training less the entropy
    /// bonus.
    pub fn loss(&self, batch: &Batch, weight: f32, train: bool) -> Result<Tensor> {
        let (x, _) = self.hidden(batch)?;
        let mut op = CrossEntropy::new(self.head.clone(), batch.targets.clone(), weight, self.config().norm_eps, train);
        op.entropy = if train { self.entropy } else { 0.0 };
        op.weights = Arc::clone(&batch.weights);
        x.apply_op3(self.var(self.layout.norm_final)?, self.var(self.layout.embed)?, op)
    }

    /// Logits `[N, vocab_size]`.
    pub fn logits(&self, batch: &Batch) -> Result<Vec<f32>> {
        let (x, _) = self.hidden(batch)?;
        let gain = self.var(self.layout.norm_final)?.to_vec1::<f32>()?;
        self.head.logits(&x, &gain, self.config().norm_eps)
    }

    /// The loss and its gradients, in the order of the parameters; a parameter without gradient has zeros.
    pub fn gradients(&self, batch: &Batch, weight: f32) -> Result<(f64, Vec<Vec<f32>>)> {
        let loss = self.loss(batch, weight, true)?;
        let mut store = loss.backward()?;
        let vars = self.vars()?;
        let mut gradients = Vec::with_capacity(vars.len());
        for var in vars {
            gradients.push(match store.remove(var) {
                Some(gradient) => gradient.flatten_all()?.to_vec1::<f32>()?,
                None => vec![0.0; var.elem_count()],
            });
        }
        Ok((f64::from(loss.to_vec1::<f32>()?[0]), gradients))
    }

    /// Copies of the masters, made once.
    fn vars(&self) -> Result<&[Var]> {
        if self.vars.get().is_none() {
            let var = |param: &Param| Var::from_vec(param.values.clone(), param.shape.clone(), &Device::Cpu);
            // Ignored if another thread was faster: the copies are the same.
            let _ = self.vars.set(self.params.list.iter().map(var).collect::<Result<_>>()?);
        }
        Ok(self.vars.get().expect("they were set"))
    }

    fn var(&self, param_idx: usize) -> Result<&Tensor> {
        Ok(&self.vars()?[param_idx])
    }
}
