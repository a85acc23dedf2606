//! The gradients of a step: micro-batches in lanes, lanes over workers, one sum; or one after the other on a device.

pub mod error;
pub mod device;
pub mod fused;
pub mod candle;

use std::sync::Mutex;

use candle_core::{Result, Tensor};
use nanochat_kernels::Write;

use crate::data::Batch;
use crate::model::{Graph, Params, RoundedBuffers};
use crate::ops::{MatmulPrecision, simd};
use crate::pool::Pool;
use candle::CandleModel;
pub use device::Device;
pub use error::BackendError;
use fused::FusedPass;

/// Sums that exist at the same time. A constant, not the number of workers: what is added in which order does not depend
/// on how many there are. More workers than this are of no use.
const LANES: usize = 8;
/// Numbers that a worker sums at a time, while they are in L2.
const PIECE: usize = 1 << 15;

/// Buffers that are kept from step to step.
pub struct Backend {
    lanes: Vec<Mutex<Vec<Vec<f32>>>>,
    /// Of workers that are not at work: there are as many as ever worked at once.
    passes: Mutex<Vec<FusedPass>>,
    /// What takes them instead of the passes; there is one lane then.
    candle: Option<CandleModel>,
    /// Of the last step.
    kept: Option<RoundedBuffers>,
    /// What is taken off the loss for each nat of a prediction's entropy; 0: nothing.
    pub entropy: f32,
}

impl Backend {
    /// For steps of `n_parts` micro-batches of sequences of `seq_len` tokens.
    pub fn for_device(
        device: Device,
        params: &Params,
        n_parts: usize,
        seq_len: usize,
    ) -> std::result::Result<Self, BackendError> {
        match device {
            Device::Cpu => Ok(Self::fused(params, n_parts)),
            Device::Cuda => Ok(Self::candle(params, CandleModel::new(&params.config, seq_len, &device.open()?)?)),
        }
    }

    /// By the fused operations, for steps of `n_parts` micro-batches.
    pub fn fused(params: &Params, n_parts: usize) -> Self {
        let zeros = || params.list.iter().map(|param| vec![0.0; param.values.len()]).collect();
        let n_lanes = n_parts.clamp(1, LANES);
        Self {
            lanes: (0..n_lanes).map(|_| Mutex::new(zeros())).collect(),
            passes: Mutex::default(),
            candle: None,
            kept: None,
            entropy: 0.0,
        }
    }

    /// By candle's operations, on the model's device.
    pub fn candle(params: &Params, model: CandleModel) -> Self {
        Self { candle: Some(model), ..Self::fused(params, 1) }
    }

    /// Takes the gradients of weight · Σ (−ln p − entropy · H) over all batches, and returns that loss. `matmul` is what they are
    /// made in on the CPU.
    ///
    /// On a device, masters are uploaded once and gradients come back once per step, 8 bytes per parameter in all:
    /// 0.2 GB for a model of 24M. The optimizer works on the CPU. Nothing of a step stays on the device.
    pub fn gradients(
        &mut self,
        params: &Params,
        matmul: impl Into<MatmulPrecision>,
        batches: &[Batch],
        weight: f32,
        pool: &Pool,
    ) -> Result<f64> {
        match &self.candle {
            Some(model) => {
                let gradients = self.lanes[0].get_mut().expect("no holder panics");
                let leaves = model.leaves(params)?;
                let (loss, taken) = model.gradients(&leaves, batches, f64::from(weight), f64::from(self.entropy))?;
                download(&taken, gradients)?;
                Ok(loss)
            }
            None => {
                self.kept = None;
                let mut graph = Graph::with_pool(params, matmul, pool);
                graph.entropy = self.entropy;
                let loss = self.gradients_rounded(&graph, params, batches, weight, pool);
                self.kept = Some(graph.into_rounded());
                loss
            }
        }
    }

    /// The same by the fused operations, of masters that are rounded already.
    pub fn gradients_rounded(
        &self,
        graph: &Graph<'_>,
        params: &Params,
        batches: &[Batch],
        weight: f32,
        pool: &Pool,
    ) -> Result<f64> {
        let n_lanes = self.lanes.len();
        let losses = pool.map(n_lanes, |lane_idx| {
            let mut lane = self.lanes[lane_idx].lock().expect("no holder panics");
            let batches = &batches[lane_idx * batches.len() / n_lanes..(lane_idx + 1) * batches.len() / n_lanes];
            if graph.config().n_streams == 1 && !batches.is_empty() {
                let mut pass = self.passes.lock().expect("no holder panics").pop().unwrap_or_default();
                let writes = std::iter::once(Write::Store).chain(std::iter::repeat(Write::Add));
                let mut loss = 0.0;
                for (batch, write) in batches.iter().zip(writes) {
                    loss += pass.gradients(graph, params, batch, weight, &mut lane, write);
                }
                self.passes.lock().expect("no holder panics").push(pass);
                return Ok(loss);
            }
            lane.iter_mut().for_each(|gradient| gradient.fill(0.0));
            let mut loss = 0.0;
            for batch in batches {
                let (part_loss, part) = graph.gradients(batch, weight)?;
                loss += part_loss;
                lane.iter_mut().flatten().zip(part.iter().flatten()).for_each(|(sum, part)| *sum += part);
            }
            Ok(loss)
        });
        losses.into_iter().sum()
    }

    /// The sum over all micro-batches that were taken.
    pub fn sum(&mut self, pool: &Pool) -> &mut [Vec<f32>] {
        let [sum, others @ ..] = &mut self.lanes[..] else { unreachable!("there is at least one lane") };
        let sum = sum.get_mut().expect("no holder panics");
        let others: Vec<&[Vec<f32>]> =
            others.iter_mut().map(|lane| &**lane.get_mut().expect("no holder panics")).collect();
        let pieces: Vec<_> = sum
            .iter_mut()
            .enumerate()
            .flat_map(|(param_idx, sum)| {
                sum.chunks_mut(PIECE).enumerate().map(move |(idx, piece)| (param_idx, idx * PIECE, piece))
            })
            .map(Mutex::new)
            .collect();
        pool.map(pieces.len(), |idx| {
            let mut piece = pieces[idx].lock().expect("no holder panics");
            let (param_idx, start, sum) = &mut *piece;
            simd::dispatch(
                #[inline(always)]
                || {
                    for lane in &others {
                        let part = &lane[*param_idx][*start..][..sum.len()];
                        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                    }
                },
            );
        });
        drop(pieces);
        sum
    }
}

fn download(taken: &[Vec<Tensor>], gradients: &mut [Vec<f32>]) -> Result<()> {
    for (gradient, parts) in gradients.iter_mut().zip(taken) {
        gradient.clear();
        for part in parts {
            gradient.extend(part.flatten_all()?.to_vec1::<f32>()?);
        }
    }
    Ok(())
}
