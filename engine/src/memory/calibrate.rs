//! Held-out code → the mixing weights that make it most probable.
//!
//! ```text
//! each token: p₀ by the base, per order (features φₖ, share cₖ)        pₖ = pₖ₋₁ + λₖ·(cₖ − pₖ₋₁),  λₖ = weight(φₖ)
//! −∂ln p/∂λₖ = −(cₖ − pₖ₋₁)·Π_{j>k}(1 − λⱼ) / p                        Adam over small batches
//! ```

use super::blend::{Blend, MixingWeights, N_FEATURES};
use super::lookup::Lookup;
use crate::rng::Rng;
use crate::text::tokenizer::TokenId;

mod adam;

use adam::Adam;

/// Held-out tokens as samples, to calibrate one network of mixing weights.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// The probability of each token by the base distribution, and where its steps end.
    tokens: Vec<(f32, usize)>,
    /// For each order: its features, and the token's share of its counts.
    steps: Vec<([f32; N_FEATURES], f32)>,
}

impl Samples {
    /// Adds a token: the base distribution at its place, and what the memory knew there.
    pub fn add(&mut self, probabilities: &[f32], has_model: bool, lookup: &Lookup, token: TokenId) {
        let steps = &mut self.steps;
        let p =
            Blend::observe(probabilities, has_model, lookup, token, |features, share| steps.push((features, share)));
        self.tokens.push((p, self.steps.len()));
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Mean bits per token by the base distribution alone.
    pub fn bits_of_base(&self) -> f64 {
        let bits = self.tokens.iter().map(|(p, _)| -f64::from(p.max(f32::MIN_POSITIVE)).log2());
        bits.sum::<f64>() / self.len().max(1) as f64
    }

    fn bits(&self, weights: &MixingWeights) -> f64 {
        let p = |idx: usize| {
            let steps = self.steps_of(idx).iter();
            steps.fold(self.tokens[idx].0, |p, (features, share)| p + weights.weight(features) * (share - p))
        };
        let bits = (0..self.len()).map(|idx| -f64::from(p(idx).max(f32::MIN_POSITIVE)).log2());
        bits.sum::<f64>() / self.len().max(1) as f64
    }

    fn steps_of(&self, idx: usize) -> &[([f32; N_FEATURES], f32)] {
        let start = idx.checked_sub(1).map_or(0, |before| self.tokens[before].1);
        &self.steps[start..self.tokens[idx].1]
    }
}

/// How mixing weights are calibrated.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Passes over all samples.
    pub n_passes: usize,
    /// Largest change of a weight in one step of Adam.
    pub rate: f32,
    /// Pull towards the starting weights, per step: few samples change little.
    pub pull: f32,
}

impl Schedule {
    /// From scratch, on plenty of samples.
    pub const FRESH: Self = Self { n_passes: 8, rate: 4e-3, pull: 0.0 };
    /// From weights that were calibrated elsewhere, on a few thousand samples.
    pub const ADAPT: Self = Self { n_passes: 4, rate: 1e-3, pull: 2e-3 };
}

/// Tokens of one step of Adam.
const BATCH: usize = 256;

impl Blend {
    /// Changes the weights so that the samples become more probable: those with a model, and those of the memory alone.
    pub fn calibrate(&mut self, with_model: &Samples, memory_only: &Samples, schedule: Schedule) {
        for (weights, samples) in [(&mut self.with_model, with_model), (&mut self.memory_only, memory_only)] {
            let mut adam = Adam::new(weights, schedule);
            let mut order: Vec<usize> = (0..samples.len()).collect();
            let mut rng = Rng::new(7);
            let n_steps = schedule.n_passes * samples.len().div_ceil(BATCH);
            let mut step = 0;
            for _ in 0..schedule.n_passes {
                rng.shuffle(&mut order);
                for batch in order.chunks(BATCH) {
                    for idx in batch {
                        adam.learn(samples.tokens[*idx].0, samples.steps_of(*idx));
                    }
                    adam.step(batch.len(), 1.0 - step as f32 / n_steps as f32);
                    step += 1;
                }
            }
            *weights = adam.into_weights();
        }
    }

    /// Mean bits per token of the samples with a model, and of those of the memory alone.
    pub fn bits(&self, with_model: &Samples, memory_only: &Samples) -> [f64; 2] {
        [(&self.with_model, with_model), (&self.memory_only, memory_only)]
            .map(|(weights, samples)| samples.bits(weights))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Order, Tier};

    /// A file whose long matches are always right and a workspace that is right half of the time, with a model that
    /// knows nothing.
    fn samples(n: usize) -> Samples {
        let mut rng = Rng::new(11);
        let mut samples = Samples::default();
        for _ in 0..n {
            let token = 20 + rng.below(50) as TokenId;
            let other = 100 + rng.below(50) as TokenId;
            let mut lookup = Lookup::default();
            let order = |len, token| Order { len, total: 3, next: vec![(token, 3)] };
            let is_long = rng.below(2) == 0;
            lookup.tiers[Tier::File as usize] =
                vec![if is_long { order(20, token) } else { order(2, if rng.below(10) == 0 { token } else { other }) }];
            let next = if rng.below(2) == 0 { token } else { other };
            lookup.tiers[Tier::Workspace as usize] = vec![order(6, next)];
            samples.add(&[1.0 / 264.0; 264], true, &lookup, token);
        }
        samples
    }

    #[test]
    fn weights_learn_which_matches_to_believe() {
        let (train, held_out) = (samples(4000), samples(500));
        let mut blend = Blend::rough();
        let before = held_out.bits(&blend.with_model);
        blend.calibrate(&train, &Samples::default(), Schedule::FRESH);
        let after = held_out.bits(&blend.with_model);
        // Half of the tokens are certain, and the other half takes 1 + ½·log₂ 264 bits at least: 2.5 together.
        assert!(after < before - 0.3 && after < 3.0, "{before} → {after}");
        assert_eq!(blend.memory_only, Blend::rough().memory_only, "there was nothing to learn from");
    }

    #[test]
    fn the_same_samples_give_the_same_weights() {
        let samples = samples(600);
        let [a, b] = [(); 2].map(|()| {
            let mut blend = Blend::rough();
            blend.calibrate(&samples, &samples, Schedule::ADAPT);
            blend.weights()
        });
        assert_eq!(a, b);
    }
}
