//! Which optimizer updates which parameter, and the step over all of them.

use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::Update;
use super::adamw::{AdamW, Rate};
use super::clip::clip;
use super::lion::Lion;
use super::moments::{MomentArray, MomentFormat, MomentOrder, Moments};
use super::muon::Muon;
use crate::model::{Param, ParamKind, Params};
use crate::pool::Pool;

/// The `[optimizer]` section of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// Upper bound of the norm of all gradients together; longer ones are scaled down.
    pub clip_norm: f64,
    /// Optimizer of the hidden matrices.
    pub hidden: Method,
    /// Optimizer of everything else; not Muon.
    pub rest: Method,
    /// Number format of the moments.
    pub moments: MomentFormat,
    /// Decay of the running average of the masters, which is measured and exported in their place; 0 turns it off.
    pub ema: f64,
    /// Hyperparameters of Muon.
    pub muon: Muon,
    /// Hyperparameters of Lion, required where it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lion: Option<Lion>,
    /// Hyperparameters of AdamW, required where it is named.
    #[serde(default)]
    pub adamw: Option<AdamW>,
}

/// An optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Muon, for hidden matrices only; see [`super::muon`].
    Muon,
    /// Lion; see [`super::lion`].
    Lion,
    /// AdamW; see [`super::adamw`].
    AdamW,
}

/// Rows of the embedding that a worker updates at a time.
const EMBED_ROWS: usize = 256;

/// Rows of each part of a parameter that is updated independently: matrices over the same input, and any rows of the
/// embedding.
fn parts(param: &Param) -> Vec<usize> {
    match &param.kind {
        ParamKind::Hidden { part_rows } => part_rows.clone(),
        ParamKind::Embedding => {
            let rows = param.shape[0];
            (0..rows).step_by(EMBED_ROWS).map(|first| EMBED_ROWS.min(rows - first)).collect()
        }
        ParamKind::Norm | ParamKind::Mhc => vec![1],
    }
}

/// Length of a row of a part.
fn width(param: &Param) -> usize {
    match &param.kind {
        ParamKind::Hidden { .. } | ParamKind::Embedding => param.shape[1],
        ParamKind::Norm | ParamKind::Mhc => param.values.len(),
    }
}

impl Optimizer {
    /// Moments before the first step: zeros.
    pub fn moments(&self, params: &Params) -> Moments {
        let orders = |method| match method {
            Method::Muon | Method::Lion => &[MomentOrder::First][..],
            Method::AdamW => &[MomentOrder::First, MomentOrder::Second],
        };
        let of_part =
            |method, len| orders(method).iter().map(|order| MomentArray::new(len, *order, self.moments)).collect();
        let of_param = |param| {
            let (method, width) = (self.method(param), width(param));
            parts(param).into_iter().map(move |rows| of_part(method, rows * width))
        };
        Moments { parts: params.list.iter().flat_map(of_param).collect() }
    }

    fn method(&self, param: &Param) -> Method {
        if matches!(param.kind, ParamKind::Hidden { .. }) { self.hidden } else { self.rest }
    }

    /// Updates all parameters and their moments. Returns the norm of the gradients before clipping; where that is not
    /// finite, nothing was changed.
    ///
    /// # Panics
    /// If `moments` belong to other parameters or another optimizer, or a method is used without its hyperparameters.
    pub fn step(
        &self,
        params: &mut Params,
        moments: &mut Moments,
        gradients: &mut [Vec<f32>],
        update: Update,
        pool: &Pool,
    ) -> f64 {
        let norm = clip(gradients, self.clip_norm);
        if !norm.is_finite() {
            return norm;
        }
        let mut arrays = moments.parts.iter_mut();
        let mut work = Vec::with_capacity(arrays.len());
        for (param, g) in params.list.iter_mut().zip(&*gradients) {
            let (method, parts, width) = (self.method(param), parts(param), width(param));
            let has_gain = matches!(param.kind, ParamKind::Norm | ParamKind::Mhc);
            let (mut w, mut g) = (&mut param.values[..], &g[..]);
            for rows in parts {
                let (part, rest) = w.split_at_mut(rows * width);
                let (g_part, g_rest) = g.split_at(rows * width);
                let moments = arrays.next().expect("there are moments for each part");
                work.push(Mutex::new(Some(UpdateSlice { method, has_gain, rows, w: part, moments, g: g_part })));
                (w, g) = (rest, g_rest);
            }
        }
        pool.map(work.len(), |idx| {
            let part = work[idx].lock().expect("no holder panics").take();
            self.update(part.expect("each index is visited once"), update);
        });
        norm
    }

    fn update(&self, part: UpdateSlice<'_>, update: Update) {
        let UpdateSlice { method, has_gain, rows, w, moments, g } = part;
        let lr = |matrix: f64, gain: f64| (if has_gain { gain } else { matrix } * update.factor) as f32;
        let decay = |of_matrix: f32| if has_gain { 0.0 } else { of_matrix };
        match (method, moments) {
            (Method::Muon, [m]) => m.update(|m| self.muon.step(w, m, g, rows, update)),
            (Method::Lion, [m]) => {
                let lion = self.lion.as_ref().expect("a recipe that names it has its hyperparameters");
                let (lr, decay) = (lr(lion.lr, lion.lr_gains), decay(lion.weight_decay));
                m.update(|m| lion.step(w, m, g, lr, decay));
            }
            (Method::AdamW, [m, v]) => {
                let adamw = self.adamw.as_ref().expect("a recipe that names it has its hyperparameters");
                let rate =
                    Rate { lr: lr(adamw.lr, adamw.lr_gains), decay: decay(adamw.weight_decay), step: update.step };
                m.update(|m| v.update(|v| adamw.step(w, m, v, g, rate)));
            }
            _ => unreachable!("moments are made for the method"),
        }
    }
}

/// A part of a parameter that one worker updates.
struct UpdateSlice<'a> {
    method: Method,
    /// Whether it belongs to a norm or to mHC-lite, whose entries are of order 1.
    has_gain: bool,
    rows: usize,
    w: &'a mut [f32],
    moments: &'a mut [MomentArray],
    g: &'a [f32],
}

#[cfg(test)]
mod tests {
    use nanochat_engine::rng::Rng;
    use nanochat_kernels::Precision;

    use super::*;
    use crate::Recipe;

    /// The share of a quadratic's height that is left after 300 steps down it.
    fn height_left(change: impl FnOnce(&mut Optimizer)) -> f64 {
        let recipe = Recipe::load("test").expect("it is built in");
        let mut optimizer = recipe.optimizer;
        optimizer.clip_norm = 1e9;
        optimizer.muon.weight_decay = 0.0;
        optimizer.lion = Some(Lion { lr: 0.001, lr_gains: 0.002, beta1: 0.9, beta2: 0.99, weight_decay: 0.0 });
        optimizer.adamw =
            Some(AdamW { lr: 0.01, lr_gains: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 });
        change(&mut optimizer);
        let mut params = Params::init(&recipe.model, 1);
        let goal = Params::init(&recipe.model, 2);
        let mut moments = optimizer.moments(&params);
        let pool = Pool::new(1).expect("a thread starts");
        let mut rng = Rng::new(1);
        let height = |params: &Params| -> f64 {
            let pairs = params.list.iter().zip(&goal.list).flat_map(|(p, g)| p.values.iter().zip(&g.values));
            pairs.map(|(p, g)| f64::from(p - g).powi(2)).sum()
        };
        let start = height(&params);
        for step in 1..=300 {
            let mut gradients: Vec<Vec<f32>> = params
                .list
                .iter()
                .zip(&goal.list)
                .map(|(p, g)| p.values.iter().zip(&g.values).map(|(p, g)| p - g + 1e-3 * rng.normal()).collect())
                .collect();
            let update = Update { factor: 1.0 - step as f64 / 301.0, precision: Precision::F32, step };
            optimizer.step(&mut params, &mut moments, &mut gradients, update, &pool);
        }
        height(&params) / start
    }

    #[test]
    fn every_method_walks_down_in_either_format() {
        for (hidden, rest) in
            [(Method::Muon, Method::Lion), (Method::Muon, Method::AdamW), (Method::AdamW, Method::AdamW)]
        {
            for moments in [MomentFormat::F32, MomentFormat::Int8] {
                let left = height_left(|optimizer| {
                    (optimizer.hidden, optimizer.rest, optimizer.moments) = (hidden, rest, moments);
                });
                assert!(left < 0.05, "{hidden:?} and {rest:?} in {moments:?}: {left}");
            }
        }
    }

    #[test]
    fn moments_in_8_bits_take_a_quarter() {
        let recipe = Recipe::load("test").expect("it is built in");
        let params = Params::init(&recipe.model, 1);
        let bytes = |moments| Optimizer { moments, ..recipe.optimizer.clone() }.moments(&params).n_bytes();
        assert_eq!(bytes(MomentFormat::F32), 4 * params.n_values());
        assert!((3.7..4.0).contains(&(bytes(MomentFormat::F32) as f64 / bytes(MomentFormat::Int8) as f64)));
    }
}
