//! Model ⊕ memory: exact probabilities from the two together.
//!
//! ```text
//! p ← model (or uniform, without one)
//! for each order of each tier, the shortest match first, of equals the furthest tier:
//!     λ ← mixing weight(features of the order and of the model)       p ← (1 − λ)·p + λ·counts/total
//! ```
//!
//! The mixing weight λ of an order does not depend on the token that comes, so p sums to one. A small network with one
//! hidden layer computes it from two dozen features: the tier, how long the match is, how often and how uniformly it
//! was continued, whether the tiers agree, how sure the model is and how probable it finds the memory's favourite. That
//! last part lets a model that is right overrule a copy (mixing by length of match alone does not). Only operations
//! that IEEE 754 rounds exactly are used, so every machine finds the same weights.

use super::lookup::{Lookup, Order};
use crate::text::tokenizer::{N_SPECIALS, TokenId};
use crate::tier::{N_TIERS, Tier};

mod mixing;

pub(crate) use mixing::{MixingWeights, N_FEATURES, N_HIDDEN, N_MIXING, slope, squash};

/// The networks that compute mixing weights, calibrated on held-out code.
#[derive(Clone, Debug, PartialEq)]
pub struct Blend {
    /// Where the memory is mixed into a model's distribution.
    pub(crate) with_model: MixingWeights,
    /// Where there is no model.
    pub(crate) memory_only: MixingWeights,
}

/// How many numbers a blend consists of.
pub(crate) const N_WEIGHTS: usize = 2 * N_MIXING;

/// Weights that no blend can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlendError {
    /// There are too many weights or too few.
    #[error("a blend has {n_weights} weights where {N_WEIGHTS} are needed; train the checkpoint again")]
    Length {
        /// How many weights there are.
        n_weights: usize,
    },
    /// A weight is not a number, or beyond all reason.
    #[error("weight {index} of the blend is not a number within ±{MAX_WEIGHT}")]
    OutOfRange {
        /// The position of the weight.
        index: usize,
    },
}

/// Larger weights come from no calibration; sums of products of such stay finite.
const MAX_WEIGHT: f32 = 1e6;

/// The default weights, made by `--example relearn -- blend` on the `develop` crates.
const DEFAULT: &[u8; 4 * N_WEIGHTS] = include_bytes!("blend/default.f32");

impl Default for Blend {
    fn default() -> Self {
        let (words, _) = DEFAULT.as_chunks();
        let weights: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        Self::from_weights(&weights).expect("the committed weights are those of a blend")
    }
}

impl Blend {
    /// Before any calibration: longer matches weigh more.
    pub fn rough() -> Self {
        Self { with_model: MixingWeights::rough(0.3), memory_only: MixingWeights::rough(0.5) }
    }

    /// All weights, in the order of a checkpoint.
    pub fn weights(&self) -> Vec<f32> {
        self.with_model.weights().chain(self.memory_only.weights()).collect()
    }

    /// A blend from its weights, in the order of [`Blend::weights`].
    pub fn from_weights(weights: &[f32]) -> Result<Self, BlendError> {
        if weights.len() != N_WEIGHTS {
            return Err(BlendError::Length { n_weights: weights.len() });
        }
        if let Some(index) = weights.iter().position(|weight| !(-MAX_WEIGHT..=MAX_WEIGHT).contains(weight)) {
            return Err(BlendError::OutOfRange { index });
        }
        let (with_model, memory_only) = weights.split_at(N_MIXING);
        Ok(Self {
            with_model: MixingWeights::from_weights(with_model),
            memory_only: MixingWeights::from_weights(memory_only),
        })
    }

    /// Turns `probabilities`, the model's or (`has_model` false) any other starting distribution, into the blend, in
    /// place. Afterwards `mixture` holds the memory's part of each token.
    pub fn mix(&self, probabilities: &mut [f32], has_model: bool, lookup: &Lookup, mixture: &mut Mixture) {
        mixture.reset(probabilities.len());
        if lookup.is_empty() {
            return;
        }
        let weights = if has_model { &self.with_model } else { &self.memory_only };
        let base = BaseStats::of(probabilities, has_model);
        let mut kept = 1.0f32;
        each_order(lookup, |tier, order| {
            let Some(scale) = known_share(order, probabilities.len()) else { return };
            let weight = weights.weight(&features(lookup, tier, order, &base, probabilities));
            kept *= 1.0 - weight;
            mixture.shrink(1.0 - weight);
            for (token, count) in order.next.iter().filter(|(token, _)| is_known(*token, probabilities.len())) {
                mixture.add(*token, weight * scale * *count as f32);
            }
        });
        probabilities.iter_mut().for_each(|p| *p *= kept);
        for token in &mixture.touched {
            probabilities[usize::from(*token)] += mixture.memory[usize::from(*token)];
        }
    }

    /// The probability of one token by the memory alone, where the starting distribution gives it `p`, of `vocab_size`
    /// tokens: the same bits as [`Blend::mix`] without a model.
    pub fn p_memory_only(&self, token: TokenId, p: f32, vocab_size: usize, lookup: &Lookup) -> f32 {
        let base = BaseStats::of(&[], false);
        let (mut kept, mut part) = (1.0f32, 0.0f32);
        each_order(lookup, |tier, order| {
            let Some(scale) = known_share(order, vocab_size) else { return };
            let weight = self.memory_only.weight(&features(lookup, tier, order, &base, &[]));
            kept *= 1.0 - weight;
            if part > 0.0 {
                part = shrunk(part, 1.0 - weight);
            }
            let counts = order.next.iter().filter(|(other, _)| *other == token && is_known(token, vocab_size));
            part += counts.map(|(_, count)| weight * scale * *count as f32).sum::<f32>();
        });
        p * kept + part
    }

    /// What calibration needs of one held-out token: returns its probability by the base distribution, and calls `each`
    /// per order with the features and the token's share of the counts.
    pub(super) fn observe(
        probabilities: &[f32],
        has_model: bool,
        lookup: &Lookup,
        token: TokenId,
        mut each: impl FnMut([f32; N_FEATURES], f32),
    ) -> f32 {
        let base = BaseStats::of(probabilities, has_model);
        each_order(lookup, |tier, order| {
            let Some(scale) = known_share(order, probabilities.len()) else { return };
            let count = order.next.iter().find(|(other, _)| *other == token).map_or(0, |(_, count)| *count);
            each(features(lookup, tier, order, &base, probabilities), scale * count as f32);
        });
        probabilities.get(usize::from(token)).copied().unwrap_or(0.0)
    }
}

/// The memory's part of a blend, token by token. Its buffers are reused.
#[derive(Clone, Debug, Default)]
pub struct Mixture {
    /// `[vocab_size]`, 0 but for the tokens that were touched.
    memory: Vec<f32>,
    /// Tokens that the memory gives any probability.
    touched: Vec<TokenId>,
}

impl Mixture {
    /// The part of the token's blended probability that came from the memory.
    pub fn memory(&self, token: TokenId) -> f32 {
        self.memory.get(usize::from(token)).copied().unwrap_or(0.0)
    }

    fn reset(&mut self, vocab_size: usize) {
        self.touched.drain(..).for_each(|token| self.memory[usize::from(token)] = 0.0);
        self.memory.resize(vocab_size, 0.0);
    }

    fn shrink(&mut self, by: f32) {
        for token in &self.touched {
            let part = &mut self.memory[usize::from(*token)];
            *part = shrunk(*part, by);
        }
    }

    fn add(&mut self, token: TokenId, part: f32) {
        let memory = &mut self.memory[usize::from(token)];
        if *memory == 0.0 {
            self.touched.push(token);
        }
        *memory += part;
    }
}

/// Never 0, which would be taken for untouched.
fn shrunk(part: f32, by: f32) -> f32 {
    (part * by).max(f32::MIN_POSITIVE)
}

/// Calls `each` with the shortest match first, of equals the furthest tier: what is mixed in last weighs most.
fn each_order(lookup: &Lookup, mut each: impl FnMut(Tier, &Order)) {
    let mut left: [usize; N_TIERS] = std::array::from_fn(|tier| lookup.tiers[tier].len());
    loop {
        let ends = Tier::ALL.iter().rev().filter(|tier| left[**tier as usize] > 0);
        let next = ends.min_by_key(|tier| lookup.tiers[**tier as usize][left[**tier as usize] - 1].len);
        let Some(&tier) = next else { break };
        left[tier as usize] -= 1;
        each(tier, &lookup.tiers[tier as usize][left[tier as usize]]);
    }
}

fn is_known(token: TokenId, vocab_size: usize) -> bool {
    token >= N_SPECIALS && usize::from(token) < vocab_size
}

/// The share of one count among those of tokens that the vocabulary has; `None` if it has none of them.
fn known_share(order: &Order, vocab_size: usize) -> Option<f32> {
    let known = order.next.iter().filter(|(token, _)| is_known(*token, vocab_size));
    let total: u32 = known.map(|(_, count)| count).sum();
    (total > 0).then(|| 1.0 / total as f32)
}

/// What is known of the distribution that the memory is mixed into.
struct BaseStats {
    has_model: bool,
    /// The largest probability.
    most: f32,
    /// Rényi's entropy of order 2, in bits: unlike Shannon's it needs no logarithm per token.
    entropy: f32,
}

impl BaseStats {
    fn of(probabilities: &[f32], has_model: bool) -> Self {
        if !has_model {
            return Self { has_model, most: 0.0, entropy: 0.0 };
        }
        // Sixteen partial sums, in an order of their own on every machine.
        let (mut most, mut squares) = ([0.0f32; 16], [0.0f32; 16]);
        for chunk in probabilities.chunks(16) {
            for (i, p) in chunk.iter().enumerate() {
                most[i] = most[i].max(*p);
                squares[i] += p * p;
            }
        }
        let most = most.into_iter().fold(0.0, f32::max);
        Self { has_model, most, entropy: -log2(squares.iter().sum()) }
    }
}

/// log₂ to within 0.09, straight between powers of two: from the bits alone, the same on every machine.
fn log2(x: f32) -> f32 {
    (x.max(1e-30).to_bits() as f32) * (1.0 / (1 << 23) as f32) - 127.0
}

fn features(lookup: &Lookup, tier: Tier, order: &Order, base: &BaseStats, probabilities: &[f32]) -> [f32; N_FEATURES] {
    let mut f = [0.0; N_FEATURES];
    let flag = |is: bool| if is { 1.0 } else { 0.0 };
    let len = order.len as f32;
    let (top, most) = order.next[0];
    let total = order.total as f32;
    f[tier as usize] = 1.0;
    let of_tier = &lookup.tiers[tier as usize];
    f[5] = flag(of_tier[0].len == order.len);
    f[6] = flag(order.len == 1);
    f[7] = flag(order.len == 2);
    f[8] = flag((3..=4).contains(&order.len));
    f[9] = len.min(16.0) / 16.0;
    f[10] = len.min(32.0) / 32.0;
    f[11] = log2(total) / 8.0;
    f[12] = order.next.len() as f32 / total;
    f[13] = most as f32 / total;
    f[14] = flag(order.next.len() == 1);
    let longest = |tiers: &[Vec<Order>]| tiers.iter().filter_map(|orders| orders.first()).map(|o| o.len).max();
    let nearer = longest(&lookup.tiers[..tier as usize]).unwrap_or(0) as f32;
    f[15] = ((nearer - len) / 16.0).clamp(-1.0, 1.0);
    let others = || lookup.tiers.iter().enumerate().filter(|(other, _)| *other != tier as usize);
    let firsts = || others().filter_map(|(_, orders)| orders.first());
    let n_agree = firsts().filter(|order| order.next[0].0 == top).count();
    f[16] = n_agree as f32 / firsts().count().max(1) as f32;
    f[17] = longest(&lookup.tiers).unwrap_or(0) as f32 / 32.0;
    if base.has_model {
        let p = |token: TokenId| probabilities.get(usize::from(token)).copied().unwrap_or(0.0);
        let overlap: f32 = order.next.iter().map(|(token, count)| *count as f32 * p(*token)).sum();
        f[18] = p(top);
        f[19] = (log2(p(top)) / 16.0).max(-1.5);
        f[20] = base.most;
        f[21] = base.entropy / 8.0;
        f[22] = (log2(overlap / total) / 16.0).max(-1.5);
        f[23] = flag(p(top) >= base.most);
    }
    f
}

#[cfg(test)]
mod tests;
