//! A network with one hidden layer that learns, and threads that share the crates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nanochat_engine::rng::Rng;

/// Places in a step.
const N_BATCH: usize = 256;
/// Weight decay of AdamW.
const DECAY: f32 = 0.05;

/// Calls `of` for each folder and its number, on one thread per core, each with a state of its own from `with`. The
/// results are in the order of the folders.
pub(crate) fn of_each<W, R: Send, E: Send>(
    folders: &[PathBuf],
    with: impl Fn() -> W + Sync,
    of: impl Fn(&mut W, usize, &Path) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    let work = || -> Result<(), E> {
        let mut with = with();
        loop {
            let idx = next.fetch_add(1, Ordering::Relaxed);
            let Some(folder) = folders.get(idx) else { return Ok(()) };
            let result = of(&mut with, idx, folder)?;
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.insert(idx, result);
            eprintln!("{} of {} crates", found.len(), folders.len());
        }
    };
    std::thread::scope(|scope| {
        let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it returns what went wrong"))
    })?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect())
}

/// w, then each u, then v, of score = w·f + Σ v·max(u·f, 0).
pub(crate) struct Network {
    n_features: usize,
    /// Dropout: the share of the hidden units that are silent at each line while the network learns.
    dropped: f32,
    pub(crate) weights: Vec<f32>,
}

impl Network {
    pub(crate) fn new(n_features: usize, n_hidden: usize, dropped: f32) -> Self {
        let mut rng = Rng::new(20_261_127);
        let mut weights = vec![0.0; n_features + n_hidden * (n_features + 1)];
        weights[n_features..].iter_mut().for_each(|weight| *weight = 0.12 * rng.normal());
        Self { n_features, dropped, weights }
    }

    fn n_hidden(&self) -> usize {
        (self.weights.len() - self.n_features) / (self.n_features + 1)
    }

    /// The score of some features.
    pub(crate) fn score(&self, features: &[f32]) -> f32 {
        let mut hidden = Vec::new();
        self.activate(features, &mut hidden);
        self.sum(features, &hidden)
    }

    /// The score of some features with dropout; leaves the values of the hidden units in `hidden`.
    #[inline(always)]
    pub(crate) fn score_learning(&self, features: &[f32], hidden: &mut Vec<f32>, rng: &mut Rng) -> f32 {
        self.activate(features, hidden);
        if self.dropped > 0.0 {
            let kept = 1.0 / (1.0 - self.dropped);
            hidden.iter_mut().for_each(|unit| *unit *= if rng.uniform() < self.dropped { 0.0 } else { kept });
        }
        self.sum(features, hidden)
    }

    #[inline(always)]
    fn activate(&self, features: &[f32], hidden: &mut Vec<f32>) {
        let units = self.weights[self.n_features..].chunks_exact(self.n_features.max(1)).take(self.n_hidden());
        hidden.clear();
        hidden.extend(units.map(|unit| dot(unit, features).max(0.0)));
    }

    #[inline(always)]
    fn sum(&self, features: &[f32], hidden: &[f32]) -> f32 {
        let outs = &self.weights[self.weights.len() - hidden.len()..];
        dot(&self.weights[..self.n_features], features) + dot(outs, hidden)
    }

    /// Adds the gradient of `by` times the score of some features, whose hidden units [`Network::score_learning`] left.
    #[inline(always)]
    pub(crate) fn add_gradient(&self, by: f32, features: &[f32], hidden: &[f32], gradient: &mut [f32]) {
        let (n, n_hidden) = (self.n_features, self.n_hidden());
        add(&mut gradient[..n], by, features);
        let outs = &self.weights[n + n_hidden * n..];
        let by_unit = by / (1.0 - self.dropped);
        for (unit, out) in outs.iter().enumerate().filter(|(unit, _)| hidden[*unit] > 0.0) {
            add(&mut gradient[n + unit * n..][..n], by_unit * out, features);
            gradient[n + n_hidden * n + unit] += by * hidden[unit];
        }
    }

    /// Minimises the loss of the samples numbered below `n` by AdamW; `add` adds the gradient of one. The rate falls to
    /// 0.
    pub(crate) fn fit(
        self,
        n: usize,
        rate: f32,
        n_steps: usize,
        add: impl Fn(&Self, usize, &mut Rng, &mut [f32]),
    ) -> Self {
        let (mut net, mut rng) = (self, Rng::new(20_261_127));
        let (mut means, mut squares) = (vec![0.0; net.weights.len()], vec![0.0; net.weights.len()]);
        for step in 1..=n_steps {
            let mut gradient = vec![0.0; net.weights.len()];
            for _ in 0..N_BATCH.min(n) {
                let idx = rng.below(n);
                // Compiled for the widest registers of this CPU.
                pulp::Arch::new().dispatch(
                    #[inline(always)]
                    || add(&net, idx, &mut rng, &mut gradient),
                );
            }
            let rate = rate * (1.0 - (step - 1) as f32 / n_steps as f32);
            let [unbias_mean, unbias_square] = [0.9f32, 0.999].map(|beta| 1.0 / (1.0 - beta.powi(step as i32)));
            let moments = means.iter_mut().zip(&mut squares);
            for ((weight, (mean, square)), gradient) in net.weights.iter_mut().zip(moments).zip(gradient) {
                let gradient = gradient / N_BATCH as f32;
                *mean = 0.9 * *mean + 0.1 * gradient;
                *square = 0.999 * *square + 0.001 * gradient * gradient;
                let by = *mean * unbias_mean / ((*square * unbias_square).sqrt() + 1e-8);
                *weight -= rate * (by + DECAY * *weight);
            }
        }
        net
    }
}

#[inline(always)]
fn add(sum: &mut [f32], by: f32, x: &[f32]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += by * x);
}

/// In lanes, so that the compiler vectorises it.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const N_LANES: usize = 16;
    let mut lanes = [0.0; N_LANES];
    let ((a_parts, a_rest), (b_parts, b_rest)) = (a.as_chunks::<N_LANES>(), b.as_chunks::<N_LANES>());
    for (a, b) in a_parts.iter().zip(b_parts) {
        for lane in 0..N_LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}
