//! The fused backend: one pass over a micro-batch, forward and back, over buffers that are kept from pass to pass.
//!
//! ```text
//! x ← embed[token]
//! per layer: qkv ← norm·W     o ← attention     x ← x + norm(o)·W     gate|up ← norm·W     x ← x + norm(gates)·W
//! loss, dx ← head;  then the layers in reverse, dx growing in place;  embed gradient ← dx
//! ```
//!
//! It calls the same loops as the candle operations do, and a test compares it with candle's own backward pass. What it
//! saves in addition: no tensor is allocated, cleared or copied, gradients of all micro-batches are added where they
//! are made, the residual's gradient has one buffer, and what the gated unit needs again is recomputed in the row where
//! it is needed. Measured in `LOG.md`. For a plain residual; with several streams the graph runs.

use std::sync::Arc;

use nanochat_engine::Config;
use nanochat_kernels::{Int8Rows, Norm, Write};

use crate::data::Batch;
use crate::model::params::{BlockLayout, ParamKind, Params};
use crate::model::{Graph, rope};
use crate::ops::attention::{BackwardInputs, LogSums};
use crate::ops::head::HeadTargets;
use crate::ops::linear::{TernaryStack, norm_backward};
use crate::ops::{Scratch, embed, glu, sized};

/// The buffers of one worker.
#[derive(Default)]
pub struct FusedPass {
    scratch: Scratch,
    layers: Vec<LayerBuffers>,
    /// Before each sublayer and after the last, `[N, d]`.
    residuals: Vec<Vec<f32>>,
    last: Option<Int8Rows>,
    /// Gradients of the residual, of normed rows, of what attention returned and of what it was given.
    dx: Vec<f32>,
    da: Vec<f32>,
    d_out: Vec<f32>,
    d_qkv: Vec<f32>,
    /// Rotary table of the last batch, with the length, head width and θ that it is for.
    rope: Option<((usize, usize, u32), Rope)>,
}

type Rope = Arc<(Vec<f32>, Vec<f32>)>;

/// What the forward pass of a layer keeps for its backward pass.
struct LayerBuffers {
    before_qkv: Int8Rows,
    qkv: Vec<f32>,
    kept: LogSums,
    out: Vec<f32>,
    before_o: Int8Rows,
    before_gate_up: Int8Rows,
    gate_up: Vec<f32>,
    before_down: Int8Rows,
}

impl LayerBuffers {
    fn new(d: usize, d_ff: usize) -> Self {
        Self {
            before_qkv: Int8Rows::new(d),
            qkv: Vec::new(),
            kept: LogSums::default(),
            out: Vec::new(),
            before_o: Int8Rows::new(d),
            before_gate_up: Int8Rows::new(d),
            gate_up: Vec::new(),
            before_down: Int8Rows::new(d_ff),
        }
    }
}

impl FusedPass {
    /// weight · Σ −ln p over the targets, each as much as it counts, less what the graph's entropy takes off; writes or
    /// adds its gradients, in the order of the parameters.
    ///
    /// # Panics
    /// If the model has several residual streams or `gradients` does not have the parameters' lengths.
    pub fn gradients(
        &mut self,
        graph: &Graph<'_>,
        params: &Params,
        batch: &Batch,
        weight: f32,
        gradients: &mut [Vec<f32>],
        write: Write,
    ) -> f64 {
        let config = graph.config();
        assert_eq!(config.n_streams, 1, "the fused pass supports one residual stream");
        let (d, d_ff, n_rows) = (config.d_model, config.d_ff, batch.tokens.len());
        while self.layers.len() < config.n_layers {
            self.layers.push(LayerBuffers::new(d, d_ff));
        }
        self.residuals.resize_with(2 * config.n_layers + 1, Vec::new);
        self.residuals.iter_mut().for_each(|x| _ = sized(x, n_rows * d));
        if write == Write::Store {
            // All other gradients are single products, which store.
            let gains = params.list.iter().zip(&mut *gradients).filter(|(param, _)| param.kind == ParamKind::Norm);
            gains.for_each(|(_, gradient)| gradient.fill(0.0));
        }
        let step =
            PassContext { graph, params, batch, rope: self.rope(config, batch.seq_len), eps: config.norm_eps, write };
        embed::forward(&graph.head().rows, &batch.tokens, &mut self.residuals[0]);
        for (layer_idx, block) in graph.layout().blocks.iter().enumerate() {
            self.forward(&step, layer_idx, block);
        }
        let loss = self.head(&step, weight, gradients);
        for (layer_idx, block) in graph.layout().blocks.iter().enumerate().rev() {
            self.backward(&step, layer_idx, block, gradients);
        }
        embed::backward(&batch.tokens, &self.dx, d, &mut gradients[graph.layout().embed]);
        loss * f64::from(weight)
    }

    fn rope(&mut self, config: &Config, seq_len: usize) -> Rope {
        let key = (seq_len, config.head_dim(), config.rope_theta.to_bits());
        let (_, rope) = match self.rope.take().filter(|(of, _)| *of == key) {
            Some(kept) => self.rope.insert(kept),
            None => self.rope.insert((key, rope::table(config, seq_len))),
        };
        Arc::clone(rope)
    }

    fn forward(&mut self, step: &PassContext<'_>, layer_idx: usize, block: &BlockLayout) {
        let Self { scratch, layers, residuals, .. } = self;
        let layer = &mut layers[layer_idx];
        let [x, middle, after] = &mut residuals[2 * layer_idx..2 * layer_idx + 3] else {
            unreachable!("a layer has two sublayers")
        };
        let n_rows = step.batch.tokens.len();

        layer.before_qkv.rms_norm(scratch.isa, &scratch.pool, x, step.norm(block.attn.norm));
        let qkv = step.stack(block.attn.qkv);
        let qkv_rows = sized(&mut layer.qkv, n_rows * qkv.dims().0);
        qkv.forward(&layer.before_qkv, qkv_rows, Write::Store, scratch);
        let out = sized(&mut layer.out, x.len());
        step.graph.attention(step.batch, &step.rope).forward(qkv_rows, out, &mut layer.kept, scratch);
        layer.before_o.rms_norm(scratch.isa, &scratch.pool, out, step.norm(block.attn.norm_out));
        middle.copy_from_slice(x);
        step.stack(block.attn.o).forward(&layer.before_o, middle, Write::Add, scratch);

        layer.before_gate_up.rms_norm(scratch.isa, &scratch.pool, middle, step.norm(block.mlp.norm));
        let gate_up = step.stack(block.mlp.gate_up);
        let width = gate_up.dims().0;
        let gate_up_rows = sized(&mut layer.gate_up, n_rows * width);
        gate_up.forward(&layer.before_gate_up, gate_up_rows, Write::Store, scratch);
        let activation = step.graph.config().activation;
        let norm = step.norm(block.mlp.norm_down);
        glu::norm_quantize(gate_up_rows, activation, norm, &mut layer.before_down, scratch.isa);
        after.copy_from_slice(middle);
        step.stack(block.mlp.down).forward(&layer.before_down, after, Write::Add, scratch);
    }

    /// Leaves the gradient of the last residual in `dx`.
    fn head(&mut self, step: &PassContext<'_>, weight: f32, gradients: &mut [Vec<f32>]) -> f64 {
        let Self { scratch, residuals, last, dx, da, .. } = self;
        let x = residuals.last().expect("there is one more than sublayers");
        let layout = step.graph.layout();
        let norm = step.norm(layout.norm_final);
        let q = last.get_or_insert_with(|| Int8Rows::new(norm.gain.len()));
        q.rms_norm(scratch.isa, &scratch.pool, x, norm);
        let entropy = step.graph.entropy;
        let targets = HeadTargets { tokens: &step.batch.targets, counts: &step.batch.weights, weight, entropy };
        let da = sized(da, x.len());
        let loss =
            step.graph.head().loss(q, targets, Some((&mut *da, &mut gradients[layout.embed], step.write)), scratch);
        norm_backward(x, norm, da, sized(dx, x.len()), Write::Store, &mut gradients[layout.norm_final]);
        loss.cross_entropy - f64::from(entropy) * loss.entropy
    }

    fn backward(&mut self, step: &PassContext<'_>, layer_idx: usize, block: &BlockLayout, gradients: &mut [Vec<f32>]) {
        let Self { scratch, layers, residuals, dx, da, d_out, d_qkv, .. } = self;
        let layer = &mut layers[layer_idx];
        let (x, middle) = (&residuals[2 * layer_idx], &residuals[2 * layer_idx + 1]);
        let n_rows = step.batch.tokens.len();

        let down = step.stack(block.mlp.down);
        let da_down = sized(da, n_rows * down.dims().1);
        down.input_gradient(dx, da_down, scratch);
        down.weight_gradient(&layer.before_down, dx, &mut gradients[block.mlp.down], step.write, scratch);
        let d_gate_up = &mut layer.gate_up;
        let norm = step.norm(block.mlp.norm_down);
        let activation = step.graph.config().activation;
        glu::norm_backward(d_gate_up, activation, norm, da_down, &mut gradients[block.mlp.norm_down]);
        let da_gate_up = sized(da, x.len());
        let gate_up = step.stack(block.mlp.gate_up);
        gate_up.input_gradient(d_gate_up, da_gate_up, scratch);
        gate_up.weight_gradient(
            &layer.before_gate_up,
            d_gate_up,
            &mut gradients[block.mlp.gate_up],
            step.write,
            scratch,
        );
        let norm = step.norm(block.mlp.norm);
        norm_backward(middle, norm, da_gate_up, dx, Write::Add, &mut gradients[block.mlp.norm]);

        let o = step.stack(block.attn.o);
        o.input_gradient(dx, da, scratch);
        o.weight_gradient(&layer.before_o, dx, &mut gradients[block.attn.o], step.write, scratch);
        let d_out = sized(d_out, x.len());
        let norm = step.norm(block.attn.norm_out);
        norm_backward(&layer.out, norm, da, d_out, Write::Store, &mut gradients[block.attn.norm_out]);
        let d_qkv = sized(d_qkv, layer.qkv.len());
        let given = BackwardInputs { qkv: &layer.qkv, kept: &layer.kept, out: &layer.out, d_out };
        step.graph.attention(step.batch, &step.rope).backward(&given, d_qkv, scratch);
        let qkv = step.stack(block.attn.qkv);
        qkv.input_gradient(d_qkv, da, scratch);
        qkv.weight_gradient(&layer.before_qkv, d_qkv, &mut gradients[block.attn.qkv], step.write, scratch);
        let norm = step.norm(block.attn.norm);
        norm_backward(x, norm, da, dx, Write::Add, &mut gradients[block.attn.norm]);
    }
}

/// Inputs of a pass that all its parts read.
struct PassContext<'a> {
    graph: &'a Graph<'a>,
    params: &'a Params,
    batch: &'a Batch,
    rope: Rope,
    eps: f32,
    write: Write,
}

impl<'a> PassContext<'a> {
    fn norm(&self, param_idx: usize) -> Norm<'a> {
        Norm { gain: &self.params.list[param_idx].values, eps: self.eps }
    }

    fn stack(&self, param_idx: usize) -> &'a TernaryStack {
        self.graph.stack(param_idx).expect("a hidden matrix has a stack")
    }
}
