//! Adam (Kingma and Ba 2014) for one network of mixing weights, with the gradients written out.

use super::Schedule;
use crate::memory::blend::{MixingWeights, N_FEATURES, N_HIDDEN, N_MIXING, slope, squash};

pub(super) struct Adam {
    network: MixingWeights,
    start: Vec<f32>,
    gradient: Vec<f32>,
    mean: Vec<f32>,
    square: Vec<f32>,
    n_steps: i32,
    schedule: Schedule,
    /// Of the current token, per step: the hidden units, their sum, the weight, and its share less the probability so
    /// far.
    trace: Vec<([f32; N_HIDDEN], f32, f32, f32)>,
}

const BETAS: (f32, f32) = (0.9, 0.99);

impl Adam {
    pub(super) fn new(network: &MixingWeights, schedule: Schedule) -> Self {
        let start: Vec<f32> = network.weights().collect();
        let zeros = vec![0.0; N_MIXING];
        Self {
            network: network.clone(),
            start,
            gradient: zeros.clone(),
            mean: zeros.clone(),
            square: zeros,
            n_steps: 0,
            schedule,
            trace: Vec::new(),
        }
    }

    /// Adds the gradient of −ln p of a token to which the base distribution gives `p`.
    pub(super) fn learn(&mut self, mut p: f32, steps: &[([f32; N_FEATURES], f32)]) {
        self.trace.clear();
        for (features, share) in steps {
            let mut units = [0.0; N_HIDDEN];
            let sum = self.network.sum(features, &mut units);
            let weight = squash(sum);
            self.trace.push((units, sum, weight, share - p));
            p += weight * (share - p);
        }
        let mut outer = -1.0 / p.max(1e-9);
        for ((features, _), (units, sum, weight, difference)) in steps.iter().zip(&self.trace).rev() {
            let by_sum = outer * difference * slope(*sum);
            outer *= 1.0 - weight;
            let (hidden, out) = self.gradient.split_at_mut(N_HIDDEN * (N_FEATURES + 1));
            for unit in 0..N_HIDDEN {
                out[unit] += by_sum * units[unit];
                if units[unit] > 0.0 {
                    let by_unit = by_sum * self.network.out[unit];
                    let row = &mut hidden[unit * (N_FEATURES + 1)..][..N_FEATURES + 1];
                    row.iter_mut().zip(features).for_each(|(g, f)| *g += by_unit * f);
                    row[N_FEATURES] += by_unit;
                }
            }
            out[N_HIDDEN] += by_sum;
        }
    }

    /// Changes the weights by the gradient of a batch of `n` tokens, at this share of the full rate.
    pub(super) fn step(&mut self, n: usize, share: f32) {
        self.n_steps += 1;
        let correct = (1.0 - BETAS.0.powi(self.n_steps), 1.0 - BETAS.1.powi(self.n_steps));
        let rate = self.schedule.rate * share;
        let mut weights: Vec<f32> = self.network.weights().collect();
        for i in 0..N_MIXING {
            let gradient = self.gradient[i] / n as f32;
            self.mean[i] += (1.0 - BETAS.0) * (gradient - self.mean[i]);
            self.square[i] += (1.0 - BETAS.1) * (gradient * gradient - self.square[i]);
            weights[i] -= rate * (self.mean[i] / correct.0) / ((self.square[i] / correct.1).sqrt() + 1e-6);
            weights[i] -= self.schedule.pull * share * (weights[i] - self.start[i]);
        }
        self.gradient.fill(0.0);
        self.network = MixingWeights::from_weights(&weights);
    }

    pub(super) fn into_weights(self) -> MixingWeights {
        self.network
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let mut rng = Rng::new(5);
        let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| 0.5 * rng.normal()).collect() };
        let network = MixingWeights::from_weights(&numbers(N_MIXING));
        let steps: Vec<([f32; N_FEATURES], f32)> = (0..3)
            .map(|i| {
                (
                    std::array::from_fn({
                        let row = numbers(N_FEATURES);
                        move |f| row[f]
                    }),
                    [0.5, 0.0, 0.9][i],
                )
            })
            .collect();
        let loss = |network: &MixingWeights| {
            let p = steps.iter().fold(0.05f64, |p, (features, share)| {
                let mut units = [0.0; N_HIDDEN];
                p + f64::from(squash(network.sum(features, &mut units))) * (f64::from(*share) - p)
            });
            -p.ln()
        };
        let mut adam = Adam::new(&network, Schedule::FRESH);
        adam.learn(0.05, &steps);
        let weights: Vec<f32> = network.weights().collect();
        for at in (0..N_MIXING).step_by(7) {
            let moved = |by: f32| {
                let mut weights = weights.clone();
                weights[at] += by;
                loss(&MixingWeights::from_weights(&weights))
            };
            // A step of 1e-2 in f32: rounding gives 1e-5, the third derivative as much.
            let expected = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            let found = f64::from(adam.gradient[at]);
            assert!((found - expected).abs() < 2e-3 * (1.0 + expected.abs()), "{at}: {found} for {expected}");
        }
    }
}
