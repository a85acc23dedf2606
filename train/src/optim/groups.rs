//! Which parameter is updated how.

use std::sync::Mutex;

use candle_core::Result;
use serde::{Deserialize, Serialize};

use super::clip::clip;
use super::lion::Lion;
use super::muon::Muon;
use crate::model::{Kind, Params};
use crate::pool::Pool;

/// The optimizers' numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// Longest joint gradient.
    pub clip_norm: f64,
    /// For hidden matrices.
    pub muon: Muon,
    /// For everything else.
    pub lion: Lion,
}

impl Optimizer {
    /// One step with the rate at `factor` of its top. `momenta` has the parameters' shapes. Returns the norm of
    /// the gradients before clipping.
    pub fn step(
        &self,
        params: &mut Params,
        momenta: &mut [Vec<f32>],
        mut gradients: Vec<Vec<f32>>,
        factor: f64,
        pool: &Pool,
    ) -> Result<f64> {
        let norm = clip(&mut gradients, self.clip_norm);
        let work: Vec<_> = params.list.iter_mut().zip(momenta).zip(&gradients).map(|t| Mutex::new(Some(t))).collect();
        pool.map(work.len(), |idx| {
            let taken = work[idx].lock().expect("no holder panics").take();
            let ((param, m), g) = taken.expect("each index is visited once");
            match &param.kind {
                Kind::Hidden { part_rows } => {
                    let (cols, mut start) = (param.shape[1], 0);
                    for rows in part_rows {
                        let range = start..start + rows * cols;
                        let (w, m, g) = (&mut param.values[range.clone()], &mut m[range.clone()], &g[range]);
                        self.muon.step(w, m, g, *rows, (self.muon.lr * factor) as f32)?;
                        start += rows * cols;
                    }
                }
                Kind::Embedding => {
                    let lr = (self.lion.lr * factor) as f32;
                    self.lion.step(&mut param.values, m, g, lr, self.lion.weight_decay);
                }
                Kind::Norm | Kind::Mhc => {
                    self.lion.step(&mut param.values, m, g, (self.lion.lr_gains * factor) as f32, 0.0);
                }
            }
            Ok(())
        })
        .into_iter()
        .collect::<Result<()>>()?;
        Ok(norm)
    }
}
