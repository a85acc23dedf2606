//! Which parameter is updated how.

use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::Update;
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

/// Rows of the embedding that a worker updates at a time.
const EMBED_ROWS: usize = 256;

impl Optimizer {
    /// One step. `momenta` has the parameters' shapes. Returns the norm of
    /// the gradients before clipping; where that is no number, nothing else was changed.
    pub fn step(
        &self,
        params: &mut Params,
        momenta: &mut [Vec<f32>],
        gradients: &mut [Vec<f32>],
        update: Update,
        pool: &Pool,
    ) -> f64 {
        let norm = clip(gradients, self.clip_norm);
        if !norm.is_finite() {
            return norm;
        }
        let mut work = Vec::new();
        for ((param, m), g) in params.list.iter_mut().zip(momenta).zip(&*gradients) {
            let cols = param.shape.last().copied().unwrap_or(1);
            // Matrices over the same input are updated each by itself; rows of the embedding know nothing of each other.
            let part_rows = match &param.kind {
                Kind::Hidden { part_rows } => part_rows.clone(),
                Kind::Embedding => vec![EMBED_ROWS; param.shape[0].div_ceil(EMBED_ROWS)],
                Kind::Norm | Kind::Mhc => vec![param.values.len()],
            };
            let (mut w, mut m, mut g) = (&mut param.values[..], &mut m[..], &g[..]);
            for rows in part_rows {
                let n = (rows * cols).min(w.len());
                let (part, rest) = (w.split_at_mut(n), m.split_at_mut(n));
                let g_part = g.split_at(n);
                work.push(Mutex::new(Some((&param.kind, rows, part.0, rest.0, g_part.0))));
                (w, m, g) = (part.1, rest.1, g_part.1);
            }
        }
        pool.map(work.len(), |idx| {
            let taken = work[idx].lock().expect("no holder panics").take();
            let (kind, rows, w, m, g) = taken.expect("each index is visited once");
            match kind {
                Kind::Hidden { .. } => self.muon.step(w, m, g, rows, update),
                Kind::Embedding => {
                    self.lion.step(w, m, g, (self.lion.lr * update.factor) as f32, self.lion.weight_decay)
                }
                Kind::Norm | Kind::Mhc => self.lion.step(w, m, g, (self.lion.lr_gains * update.factor) as f32, 0.0),
            }
        });
        norm
    }
}
