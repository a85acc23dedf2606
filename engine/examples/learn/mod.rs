//! What the examples that learn weights share: folders that threads take in turns, and a network with one hidden layer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nanochat_engine::rng::Rng;

/// Places of a step, and the decay of the weights.
const N_BATCH: usize = 512;
const DECAY: f32 = 0.05;

/// What `of` makes of each folder and its number, on a thread per core, each with what `with` makes for it; in the order of
/// the folders.
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
#[derive(Clone)]
pub(crate) struct Net {
    n_features: usize,
    pub(crate) weights: Vec<f32>,
}

impl Net {
    pub(crate) fn new(n_features: usize, n_hidden: usize) -> Self {
        let mut rng = Rng::new(20_261_127);
        let mut weights = vec![0.0; n_features + n_hidden * (n_features + 1)];
        weights[n_features..].iter_mut().for_each(|weight| *weight = 0.12 * rng.normal());
        Self { n_features, weights }
    }

    fn n_hidden(&self) -> usize {
        (self.weights.len() - self.n_features) / (self.n_features + 1)
    }

    /// The score of some features; leaves what the hidden units say of them.
    pub(crate) fn score(&self, features: &[f32], hidden: &mut Vec<f32>) -> f32 {
        let (direct, rest) = self.weights.split_at(self.n_features);
        let (units, out) = rest.split_at(self.n_hidden() * self.n_features);
        hidden.clear();
        hidden.extend(units.chunks_exact(self.n_features.max(1)).map(|unit| dot(unit, features).max(0.0)));
        dot(direct, features) + dot(out, hidden)
    }

    /// Adds the gradient of `by` times the score of some features, of which the hidden units said that.
    pub(crate) fn add_gradient(&self, by: f32, features: &[f32], hidden: &[f32], gradient: &mut [f32]) {
        let (n, n_hidden) = (self.n_features, self.n_hidden());
        add(&mut gradient[..n], by, features);
        let outs = &self.weights[n + n_hidden * n..];
        for (unit, out) in outs.iter().enumerate().filter(|(unit, _)| hidden[*unit] > 0.0) {
            add(&mut gradient[n + unit * n..][..n], by * out, features);
            gradient[n + n_hidden * n + unit] += by * hidden[unit];
        }
    }

    /// Steps of AdamW towards the least loss of what is numbered below `n`, whose gradients `add` adds. The rate falls to 0.
    pub(crate) fn fit(self, n: usize, rate: f32, n_steps: usize, add: impl Fn(&Self, usize, &mut [f32])) -> Self {
        let (mut net, mut rng) = (self, Rng::new(20_261_127));
        let (mut means, mut squares) = (vec![0.0; net.weights.len()], vec![0.0; net.weights.len()]);
        for step in 1..=n_steps {
            let mut gradient = vec![0.0; net.weights.len()];
            for _ in 0..N_BATCH.min(n) {
                add(&net, rng.below(n), &mut gradient);
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

/// Weights as the engine's files hold them.
pub(crate) fn bytes_of<'a>(nets: impl IntoIterator<Item = &'a Net>) -> Vec<u8> {
    nets.into_iter().flat_map(|net| &net.weights).flat_map(|weight| weight.to_le_bytes()).collect()
}

fn add(sum: &mut [f32], by: f32, x: &[f32]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += by * x);
}

/// In lanes, so that it vectorises.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; 8];
    let ((a_parts, a_rest), (b_parts, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a_parts.iter().zip(b_parts) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}
