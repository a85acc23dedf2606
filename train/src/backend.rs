//! The gradients of a step, by one of two backends: fused operations on the CPU (micro-batches in lanes, lanes spread
//! over workers, one sum), or candle's operations on a device, one micro-batch after the other.

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

/// Number of gradient sums that exist at the same time. A constant, not the number of workers, so that the order of
/// additions does not depend on how many there are. More workers than this do not help.
const LANES: usize = 8;
/// Numbers that a worker sums at a time: they stay in L2.
const PIECE: usize = 1 << 15;

/// Computes the gradients of steps; its buffers are kept from step to step.
pub struct Backend {
    lanes: Vec<Mutex<Vec<Vec<f32>>>>,
    /// Passes not in use: as many as workers ever ran at once.
    passes: Mutex<Vec<FusedPass>>,
    /// Computes the gradients instead of the passes, in a single lane.
    candle: Option<CandleModel>,
    /// Rounded weights of the last step, kept for their memory.
    kept: Option<RoundedBuffers>,
    /// Weight of the entropy bonus, subtracted from the loss per nat of a prediction's entropy; 0 turns it off.
    pub entropy: f32,
}

impl Backend {
    /// The backend of a device, for steps of `n_parts` micro-batches of sequences of `seq_len` tokens.
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

    /// The fused backend, for steps of `n_parts` micro-batches.
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

    /// The candle backend, on the model's device.
    pub fn candle(params: &Params, model: CandleModel) -> Self {
        Self { candle: Some(model), ..Self::fused(params, 1) }
    }

    /// Computes the gradients of weight · Σ (−ln p − entropy · H) over all batches, and returns that loss. `matmul` is
    /// what they are made in on the CPU.
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

    /// As [`Backend::gradients`] of the fused backend, from masters that are already rounded.
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

    /// The gradients of the last step, summed over all micro-batches, in the order of the parameters.
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
