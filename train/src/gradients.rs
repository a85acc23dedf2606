//! The gradients of a step: micro-batches in lanes, lanes over workers, one sum.

use std::sync::Mutex;

use candle_core::Result;

use crate::model::{Batch, Graph, Params};
use crate::ops::simd;
use crate::pass::Pass;
use crate::pool::Pool;

/// Sums that exist at the same time. A constant, not the number of workers: what is added in which order does not depend
/// on how many there are. More workers than this are of no use.
const LANES: usize = 8;
/// Numbers that a worker sums at a time, while they are in L2.
const PIECE: usize = 1 << 15;

/// Buffers that are kept from step to step.
pub struct Gradients {
    lanes: Vec<Mutex<Vec<Vec<f32>>>>,
    /// Of workers that are not at work: there are as many as ever worked at once.
    passes: Mutex<Vec<Pass>>,
}

impl Gradients {
    /// For steps of `n_parts` micro-batches.
    pub fn new(params: &Params, n_parts: usize) -> Self {
        let zeros = || params.list.iter().map(|param| vec![0.0; param.values.len()]).collect();
        let n_lanes = n_parts.clamp(1, LANES);
        Self { lanes: (0..n_lanes).map(|_| Mutex::new(zeros())).collect(), passes: Mutex::default() }
    }

    /// Takes the gradients of weight · Σ −ln p over all batches, and returns that loss.
    pub fn take(&mut self, graph: &Graph, params: &Params, batches: &[Batch], weight: f32, pool: &Pool) -> Result<f64> {
        let n_lanes = self.lanes.len();
        let losses = pool.map(n_lanes, |lane_idx| {
            let mut lane = self.lanes[lane_idx].lock().expect("no holder panics");
            lane.iter_mut().for_each(|gradient| gradient.fill(0.0));
            let batches = &batches[lane_idx * batches.len() / n_lanes..(lane_idx + 1) * batches.len() / n_lanes];
            if graph.config().n_streams == 1 {
                let mut pass = self.passes.lock().expect("no holder panics").pop().unwrap_or_default();
                let losses = batches.iter().map(|batch| pass.gradients(graph, params, batch, weight, &mut lane));
                let loss = losses.sum();
                self.passes.lock().expect("no holder panics").push(pass);
                return Ok(loss);
            }
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
            .flat_map(|(place, sum)| {
                sum.chunks_mut(PIECE).enumerate().map(move |(idx, piece)| (place, idx * PIECE, piece))
            })
            .map(Mutex::new)
            .collect();
        pool.map(pieces.len(), |idx| {
            let mut piece = pieces[idx].lock().expect("no holder panics");
            let (place, start, sum) = &mut *piece;
            simd::dispatch(
                #[inline(always)]
                || {
                    for lane in &others {
                        let part = &lane[*place][*start..][..sum.len()];
                        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                    }
                },
            );
        });
        drop(pieces);
        sum
    }
}
