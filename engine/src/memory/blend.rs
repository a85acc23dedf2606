//! How much the memory weighs against the model.

use super::{MAX_MATCH, Prediction};

/// How much the memory weighs against the model, by length of match; calibrated on held-out code.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Blend {
    /// Weight of the memory for a match of i tokens; the last holds for all longer ones. Within 0..=1.
    pub weights: Vec<f32>,
}

/// Weights that no blend can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlendError {
    /// There are none, or more than a match can be long.
    #[error("a blend has {n_weights} weights, which is not within 1..=64")]
    Length {
        /// How many there are.
        n_weights: usize,
    },
    /// A weight is no share.
    #[error("weight {index} of the blend is not within 0..=1")]
    OutOfRange {
        /// The length of match it is for.
        index: usize,
    },
}

/// Matches from this length on share a weight, by default and when calibrated.
const LONGEST: usize = 16;
const _: () = assert!(LONGEST <= MAX_MATCH);
/// Held-out tokens that the default weight counts for, per length of match.
const PRIOR_TOKENS: f64 = 50.0;
/// Rounds of expectation and maximization; the weight of one bucket is found to 1e-3 well before.
const N_ROUNDS: usize = 40;

impl Default for Blend {
    /// From 0.2 after one token to 0.9 after sixteen.
    fn default() -> Self {
        let rise = |len: usize| if len == 0 { 0.0 } else { 0.2 + 0.7 * ((len - 1) as f32 / 15.0).sqrt() };
        Self { weights: (0..=LONGEST).map(rise).collect() }
    }
}

impl Blend {
    /// Checks what [`Blend::mix`] relies on, for weights from outside.
    pub fn validate(&self) -> Result<(), BlendError> {
        if !(1..=64).contains(&self.weights.len()) {
            return Err(BlendError::Length { n_weights: self.weights.len() });
        }
        match self.weights.iter().position(|weight| !(0.0..=1.0).contains(weight)) {
            Some(index) => Err(BlendError::OutOfRange { index }),
            None => Ok(()),
        }
    }

    /// The memory's weight after a match of `match_len` tokens; 0 for no weights.
    pub fn weight(&self, match_len: usize) -> f32 {
        self.weights.get(match_len).or(self.weights.last()).copied().unwrap_or(0.0)
    }

    /// Mixes the memory's distribution into the model's: p = (1 − w)·model + w·memory, in place. Tokens that the
    /// model has no place for are left out of the memory's.
    pub fn mix(&self, model_probs: &mut [f32], prediction: &Prediction) {
        let known = || prediction.next.iter().filter(|(token, _)| usize::from(*token) < model_probs.len());
        let share: f32 = known().map(|(_, p)| p).sum();
        if share <= 0.0 {
            return;
        }
        let known: Vec<_> = known().copied().collect();
        let weight = self.weight(prediction.match_len);
        model_probs.iter_mut().for_each(|p| *p *= 1.0 - weight);
        for (token, p) in known {
            model_probs[usize::from(token)] += weight * p / share;
        }
    }

    /// The weights that make held-out tokens most probable. A sample is a token that came next: (length of the
    /// match, the model's probability of it, the memory's). Lengths with few samples stay near the default.
    pub fn calibrate(samples: impl Iterator<Item = (usize, f32, f32)>) -> Self {
        let mut blend = Self::default();
        let mut buckets = vec![Vec::new(); blend.weights.len()];
        for (match_len, p_model, p_memory) in samples {
            // Both 0 (or no number at all) says nothing about the weight.
            if p_model >= 0.0 && p_memory >= 0.0 && p_model + p_memory > 0.0 && (p_model + p_memory).is_finite() {
                buckets[match_len.min(LONGEST)].push((f64::from(p_model), f64::from(p_memory)));
            }
        }
        for (weight, bucket) in blend.weights.iter_mut().zip(buckets).skip(1) {
            let prior = f64::from(*weight);
            let mut w = prior;
            for _ in 0..N_ROUNDS {
                let claimed: f64 =
                    bucket.iter().map(|(model, memory)| w * memory / ((1.0 - w) * model + w * memory)).sum();
                w = (claimed + prior * PRIOR_TOKENS) / (bucket.len() as f64 + PRIOR_TOKENS);
            }
            *weight = (w as f32).clamp(0.0, 1.0);
        }
        blend
    }
}
