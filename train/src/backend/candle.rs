//! The candle backend: a step's gradients by candle's tensor operations alone. Runs on any device that candle supports,
//! and is what `benches/candle.rs` compares the fused operations with.
//!
//! ```text
//! masters → leaves (rounded, once per step) → x [N, d] ─┬→ rows with a target, some at a time → loss, dx, gradients
//!                                                       └→ Σ x ∘ dx → the gradients below
//! ```
//!
//! Rounded weights are the leaves of candle's graph, so that the gradient of what is rounded is taken for that of its
//! master. Logits exist for some rows at a time: their loss is taken back to x at once, and what reaches x continues
//! from there. Products may be made in 16 bits; masters, norms, softmax, losses and sums of gradients are f32. The
//! fused operations' forward products are exact; those in 16 bits are not, as both sides and the result are rounded.
//!
//! The model has one residual stream.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use nanochat_engine::Config;
use nanochat_kernels::{Activation, ScaleGroup};

use super::error::BackendError;
use crate::data::batch::{Batch, NO_TARGET};
use crate::model::params::{BlockLayout, ParamLayout};
use crate::model::{Param, ParamKind, Params, rope};
use crate::quantize::WeightFormat;

/// Rows whose logits exist at the same time: 50 MB of them at 12,288 tokens, and some such buffers on the way back.
const CHUNK_ROWS: usize = 1024;

/// The model in candle's operations; it holds what does not change from step to step.
pub struct CandleModel {
    config: Config,
    layout: ParamLayout,
    seq_len: usize,
    device: Device,
    /// Type of the operands of matrix products.
    matmul_dtype: DType,
    /// Rows whose logits exist at the same time.
    chunk_rows: usize,
    cos: Tensor,    // [seq_len, hd / 2]
    sin: Tensor,    // the same
    causal: Tensor, // [1, 1, seq_len, seq_len], −∞ where a query does not see
}

/// Rounded weights of a step, in the order of the parameters; matrices over the same input are separate.
pub type Leaves = Vec<Vec<Var>>;

impl CandleModel {
    /// For sequences of `seq_len` tokens. Products are made in bf16 on CUDA and in f32 elsewhere: on a CPU candle has
    /// none in bf16.
    pub fn new(config: &Config, seq_len: usize, device: &Device) -> std::result::Result<Self, BackendError> {
        let n_streams = config.n_streams;
        if n_streams != 1 {
            return Err(BackendError::Streams { n_streams });
        }
        let table = rope::table(config, seq_len);
        let (cos, sin) = &*table;
        let half = config.head_dim() / 2;
        let sees = |query: usize| (0..seq_len).map(move |key| if key <= query { 0.0 } else { f32::NEG_INFINITY });
        let causal: Vec<f32> = (0..seq_len).flat_map(sees).collect();
        Ok(Self {
            cos: Tensor::from_slice(cos, (seq_len, half), device)?,
            sin: Tensor::from_slice(sin, (seq_len, half), device)?,
            causal: Tensor::from_vec(causal, (1, 1, seq_len, seq_len), device)?,
            layout: ParamLayout::of(config),
            config: config.clone(),
            seq_len,
            device: device.clone(),
            matmul_dtype: if device.is_cuda() { DType::BF16 } else { DType::F32 },
            chunk_rows: CHUNK_ROWS,
        })
    }

    /// The masters on the device, matrices over the same input separately.
    pub fn masters(&self, param: &Param) -> Result<Vec<Tensor>> {
        let whole = Tensor::from_slice(&param.values, param.shape.clone(), &self.device)?;
        let ParamKind::Hidden { part_rows } = &param.kind else { return Ok(vec![whole]) };
        let mut start = 0;
        let part = |rows: &usize| {
            start += rows;
            whole.narrow(0, start - rows, *rows)
        };
        part_rows.iter().map(part).collect()
    }

    /// The rounded weights that a step reads in place of a master.
    pub fn leaf(&self, kind: &ParamKind, master: &Tensor) -> Result<Var> {
        match kind {
            ParamKind::Hidden { .. } => Var::from_tensor(&ternary(master, self.config.scales)?),
            ParamKind::Embedding => Var::from_tensor(&int8_rows(master)?),
            ParamKind::Norm | ParamKind::Mhc => Var::from_tensor(master),
        }
    }

    /// Uploads and rounds all masters.
    pub fn leaves(&self, params: &Params) -> Result<Leaves> {
        if params.weights != WeightFormat::Ternary {
            candle_core::bail!("candle's operations round to ternary only");
        }
        let leaves = |param: &Param| self.masters(param)?.iter().map(|w| self.leaf(&param.kind, w)).collect();
        params.list.iter().map(leaves).collect()
    }

    /// weight · Σ (−ln p − entropy · H) over the targets of all batches, each as much as it counts, and its gradients,
    /// each of its leaf's shape.
    pub fn gradients(
        &self,
        leaves: &Leaves,
        batches: &[Batch],
        weight: f64,
        entropy: f64,
    ) -> Result<(f64, Vec<Vec<Tensor>>)> {
        let zeros = |parts: &Vec<Var>| parts.iter().map(|leaf| leaf.zeros_like()).collect();
        let mut sums: Vec<Vec<Tensor>> = leaves.iter().map(zeros).collect::<Result<_>>()?;
        let mut loss = 0.0;
        for batch in batches {
            let rows = self.rows(batch)?;
            let Some(targets) = &rows.targets else { continue };
            let x = self.hidden(leaves, &rows)?;
            let (part, dx) = self.head(leaves, &x.detach(), targets, [weight, entropy], &mut sums)?;
            loss += part;
            let mut store = (x * dx)?.sum_all()?.backward()?;
            for (sum, leaf) in sums.iter_mut().flatten().zip(leaves.iter().flatten()) {
                add(sum, store.remove(leaf))?;
            }
        }
        Ok((loss, sums))
    }

    fn rows(&self, batch: &Batch) -> Result<DeviceBatch> {
        let (n_rows, t) = (batch.tokens.len(), self.seq_len);
        if batch.seq_len != t {
            candle_core::bail!("sequences of {} tokens where {t} were announced", batch.seq_len);
        }
        let mask = match batch.starts.iter().all(|start| *start == 0) {
            true => self.causal.clone(),
            false => {
                let starts = Tensor::from_slice(&batch.starts, (n_rows / t, 1, t, 1), &self.device)?;
                let keys = Tensor::arange(0, t as u32, &self.device)?.reshape((1, 1, 1, t))?;
                let shape = (n_rows / t, 1, t, t);
                let unseen = Tensor::full(f32::NEG_INFINITY, shape, &self.device)?;
                keys.broadcast_ge(&starts)?.where_cond(&self.causal.broadcast_as(shape)?, &unseen)?
            }
        };
        let with_target =
            |(row_idx, target): (usize, &u32)| (*target != NO_TARGET).then_some((row_idx as u32, *target));
        let (rows, targets): (Vec<u32>, Vec<u32>) = batch.targets.iter().enumerate().filter_map(with_target).unzip();
        let counts: Vec<f32> = rows.iter().map(|row| batch.weights[*row as usize]).collect();
        let n_targets = rows.len();
        let targets = match n_targets {
            0 => None,
            _ => Some(TargetRows {
                rows: Tensor::from_vec(rows, n_targets, &self.device)?,
                tokens: Tensor::from_vec(targets, (n_targets, 1), &self.device)?,
                counts: Tensor::from_vec(counts, (n_targets, 1), &self.device)?,
            }),
        };
        Ok(DeviceBatch { tokens: Tensor::from_slice(&batch.tokens, n_rows, &self.device)?, mask, targets })
    }

    /// The last residual `[N, d]`, before the final norm.
    fn hidden(&self, leaves: &Leaves, rows: &DeviceBatch) -> Result<Tensor> {
        let mut x = leaves[self.layout.embed][0].index_select(&rows.tokens, 0)?;
        for block in &self.layout.blocks {
            x = self.block(leaves, block, x, &rows.mask)?;
        }
        Ok(x)
    }

    fn block(&self, leaves: &Leaves, block: &BlockLayout, x: Tensor, mask: &Tensor) -> Result<Tensor> {
        let (attn, mlp) = (&block.attn, &block.mlp);
        let normed = self.norm_round(&x, &leaves[attn.norm][0])?;
        let o = self.attention(&normed, &leaves[attn.qkv], mask)?;
        let normed = self.norm_round(&o, &leaves[attn.norm_out][0])?;
        let x = (x + self.linear(&normed, &leaves[attn.o][0])?)?;
        let normed = self.norm_round(&x, &leaves[mlp.norm][0])?;
        let [gate, up] = &leaves[mlp.gate_up][..] else { unreachable!("a gate and what it lets through") };
        let gate = self.linear(&normed, gate)?;
        let gate = match self.config.activation {
            Activation::Silu => gate.silu()?,
            Activation::Relu2 => gate.relu()?.sqr()?,
        };
        let gated = (gate * self.linear(&normed, up)?)?;
        let normed = self.norm_round(&gated, &leaves[mlp.norm_down][0])?;
        x + self.linear(&normed, &leaves[mlp.down][0])?
    }

    /// The loss of the last residual `x` `[N, d]` and its gradient there; adds those of the head's own parameters.
    fn head(
        &self,
        leaves: &Leaves,
        x: &Tensor,
        targets: &TargetRows,
        weights: [f64; 2],
        sums: &mut [Vec<Tensor>],
    ) -> Result<(f64, Tensor)> {
        let n_targets = targets.rows.dim(0)?;
        let (mut loss, mut parts) = (0.0, Vec::new());
        for first in (0..n_targets).step_by(self.chunk_rows) {
            let n_rows = self.chunk_rows.min(n_targets - first);
            let rows = targets.rows.narrow(0, first, n_rows)?;
            let x = Var::from_tensor(&x.index_select(&rows, 0)?)?;
            let [tokens, counts] = [&targets.tokens, &targets.counts].map(|all| all.narrow(0, first, n_rows));
            let part = self.cross_entropy(leaves, &x, [&tokens?, &counts?], weights)?;
            loss += f64::from(part.to_scalar::<f32>()?);
            let mut store = part.backward()?;
            for param_idx in [self.layout.embed, self.layout.norm_final] {
                add(&mut sums[param_idx][0], store.remove(&leaves[param_idx][0]))?;
            }
            let Some(dx) = store.remove(&x) else { candle_core::bail!("the last residual has no gradient") };
            parts.push(dx.detach());
        }
        let dx = x.zeros_like()?.index_add(&targets.rows, &Tensor::cat(&parts, 0)?, 0)?;
        Ok((loss, dx))
    }

    /// weight · Σ (−ln p − entropy · H) of targets `[n, 1]`, each as much as it counts, after the residuals `x`
    /// `[n, d]`.
    fn cross_entropy(
        &self,
        leaves: &Leaves,
        x: &Tensor,
        [targets, counts]: [&Tensor; 2],
        [weight, entropy]: [f64; 2],
    ) -> Result<Tensor> {
        let normed = self.norm_round(x, &leaves[self.layout.norm_final][0])?;
        let logits = self.linear(&normed, &leaves[self.layout.embed][0])?; // [n, V]
        let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
        let log_sums = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
        let at_targets = shifted.gather(targets, D::Minus1)?;
        let loss = ((&log_sums - at_targets)? * counts)?.sum_all()?;
        if entropy == 0.0 {
            return loss * weight;
        }
        let log_p = shifted.broadcast_sub(&log_sums)?;
        let negative_entropy = ((log_p.exp()? * log_p)?.sum_keepdim(D::Minus1)? * counts)?.sum_all()?;
        (loss + (negative_entropy * entropy)?)? * weight
    }

    /// `[N, d]` from the normed residual.
    fn attention(&self, normed: &Tensor, weights: &[Var], mask: &Tensor) -> Result<Tensor> {
        let [wq, wk, wv] = weights else { unreachable!("queries, keys and values") };
        let Config { n_heads, n_kv_heads, d_model, .. } = self.config;
        let (hd, t, n_rows) = (self.config.head_dim(), self.seq_len, normed.dim(0)?);
        let n_sequences = n_rows / t;
        // [n_sequences, heads, t, hd]
        let split = |y: Tensor, heads: usize| -> Result<Tensor> {
            y.reshape((n_sequences, t, heads, hd))?.transpose(1, 2)?.contiguous()
        };
        let q = (self.rotate(&split(self.linear(normed, wq)?, n_heads)?)? * (1.0 / (hd as f64).sqrt()))?;
        let k = self.rotate(&split(self.linear(normed, wk)?, n_kv_heads)?)?;
        let v = split(self.linear(normed, wv)?, n_kv_heads)?;
        // Heads that share keys are stacked by rows: keys and values are not copied for each.
        let (n_shared, rows) = (n_sequences * n_kv_heads, n_heads / n_kv_heads * t);
        let q = q.reshape((n_shared, rows, hd))?;
        let k = k.reshape((n_shared, t, hd))?;
        let v = v.reshape((n_shared, t, hd))?;
        let scores = self.product(&q, &k.t()?)?.reshape((n_sequences, n_heads, t, t))?.broadcast_add(mask)?;
        let p = softmax(&scores)?.reshape((n_shared, rows, t))?;
        let o = self.product(&p, &v)?.reshape((n_sequences, n_heads, t, hd))?;
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

    /// x · wᵀ.
    fn linear(&self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        self.product(x, &w.t()?)
    }

    /// a · b, in the type of products, as f32.
    fn product(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        a.to_dtype(self.matmul_dtype)?.matmul(&b.to_dtype(self.matmul_dtype)?)?.to_dtype(DType::F32)
    }

    /// RMSNorm, then int8 with a straight-through gradient.
    fn norm_round(&self, x: &Tensor, gain: &Tensor) -> Result<Tensor> {
        let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = x.broadcast_div(&(mean + f64::from(self.config.norm_eps))?.sqrt()?)?.broadcast_mul(gain)?;
        let plain = normed.detach();
        normed + (int8_rows(&plain)? - &plain)?
    }
}

/// A micro-batch on the device.
struct DeviceBatch {
    tokens: Tensor, // [N]
    mask: Tensor,   // [n_sequences or 1, 1, seq_len, seq_len], −∞ where a query does not see
    /// `None` if no row has a target.
    targets: Option<TargetRows>,
}

/// Rows with a target.
struct TargetRows {
    rows: Tensor,   // [n]
    tokens: Tensor, // [n, 1]
    counts: Tensor, // [n, 1]
}

fn add(sum: &mut Tensor, gradient: Option<Tensor>) -> Result<()> {
    if let Some(gradient) = gradient {
        // Detached, or the sum would keep the graphs of all micro-batches.
        *sum = (&*sum + gradient.detach())?;
    }
    Ok(())
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let exp = x.broadcast_sub(&x.detach().max_keepdim(D::Minus1)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

/// Each row to 8 bits by its largest magnitude, and back.
fn int8_rows(x: &Tensor) -> Result<Tensor> {
    let scales = (x.abs()?.max_keepdim(D::Minus1)? / 127.0)?.maximum(1e-12f32)?; // a row of zeros stays one
    x.broadcast_div(&scales)?.round()?.broadcast_mul(&scales)
}

/// To −γ, 0, γ with γ = mean|w| of the weights that share a scale.
fn ternary(w: &Tensor, scales: ScaleGroup) -> Result<Tensor> {
    let (rows, cols) = w.dims2()?;
    let groups = w.reshape(((), scales.len(nanochat_kernels::Shape { rows, cols })))?;
    let gamma = groups.abs()?.mean_keepdim(D::Minus1)?.maximum(1e-12f32)?; // a group of zeros stays one
    let trits = groups.broadcast_div(&gamma)?.round()?.clamp(-1f32, 1f32)?;
    trits.broadcast_mul(&gamma)?.reshape((rows, cols))
}

#[cfg(test)]
mod tests;
