//! From a distribution to a token.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use nanochat_kernels::{Isa, vector};

use crate::rng::Rng;
use crate::text::tokenizer::TokenId;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The most probable; ties go to the lower id.
    Greedy,
    /// From the smallest set that holds probability `p` (nucleus sampling, arXiv 1904.09751), after raising each
    /// probability to 1 / `temperature`.
    TopP {
        /// The probability that the nucleus holds, within (0, 1].
        p: f32,
        /// Above 0; 1 leaves probabilities as they are, and near 0 the most probable token is always taken.
        temperature: f32,
    },
}

impl Sampling {
    /// A token of `probabilities`, which need not sum to 1. `None` if no token has any.
    pub fn choose(self, probabilities: &[f32], rng: &mut Rng) -> Option<TokenId> {
        match self {
            Self::Greedy => most_probable(probabilities),
            Self::TopP { p, temperature } => top_p(probabilities, p, temperature, rng),
        }
    }
}

fn most_probable(probabilities: &[f32]) -> Option<TokenId> {
    let best = vector::argmax(Isa::best(), probabilities)?;
    (probabilities[best] > 0.0).then_some(best as TokenId)
}

/// A token of the nucleus' choice; the most probable is the greatest, of equals the lowest id.
#[derive(PartialEq)]
struct Candidate {
    weight: f32,
    token: TokenId,
}

impl Eq for Candidate {}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.weight.total_cmp(&other.weight).then(other.token.cmp(&self.token))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One pass picks candidates, a heap gives as many of them in order as the nucleus holds; nothing is sorted.
fn top_p(probabilities: &[f32], p: f32, temperature: f32, rng: &mut Rng) -> Option<TokenId> {
    let exponent = 1.0 / temperature.max(1e-3);
    let top = probabilities[vector::argmax(Isa::best(), probabilities)?];
    // What is a hundred thousand times less probable than the best is not worth keeping in the heap.
    let candidates = probabilities.iter().enumerate().filter(|(_, p)| **p > top * 1e-5);
    let mut heap: BinaryHeap<_> =
        candidates.map(|(token, p)| Candidate { weight: (p / top).powf(exponent), token: token as TokenId }).collect();
    let total: f32 = heap.iter().map(|candidate| candidate.weight).sum();
    let (mut nucleus, mut kept) = (Vec::new(), 0.0);
    while nucleus.is_empty() || kept < p * total {
        let Some(candidate) = heap.pop() else { break };
        kept += candidate.weight;
        nucleus.push(candidate);
    }
    let mut left = rng.uniform() * kept;
    for candidate in &nucleus {
        left -= candidate.weight;
        if left < 0.0 {
            return Some(candidate.token);
        }
    }
    nucleus.first().map(|candidate| candidate.token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_first_of_the_most_probable() {
        assert_eq!(Sampling::Greedy.choose(&[0.1, 0.4, 0.4, 0.1], &mut Rng::new(0)), Some(1));
        assert_eq!(Sampling::Greedy.choose(&[0.0, 0.0], &mut Rng::new(0)), None);
    }

    #[test]
    fn nucleus_sampling_keeps_to_the_nucleus_and_its_proportions() {
        let sampling = Sampling::TopP { p: 0.75, temperature: 1.0 };
        let mut rng = Rng::new(1);
        let mut counts = [0; 4];
        for _ in 0..3000 {
            counts[usize::from(sampling.choose(&[0.1, 0.5, 0.3, 0.1], &mut rng).expect("a token"))] += 1;
        }
        assert_eq!((counts[0], counts[3]), (0, 0));
        // 0.5 / 0.8 of 3000 is 1875; five standard deviations are 133.
        assert!((1742..2008).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn nothing_is_drawn_where_nothing_is_probable() {
        let sampling = Sampling::TopP { p: 0.9, temperature: 0.7 };
        assert_eq!(sampling.choose(&[0.0; 40], &mut Rng::new(0)), None);
        assert_eq!(sampling.choose(&[], &mut Rng::new(0)), None);
        let mut one = [0.0; 40];
        one[33] = 1e-30;
        assert_eq!(sampling.choose(&one, &mut Rng::new(0)), Some(33));
    }

    #[test]
    fn a_seed_names_a_sequence_and_a_low_temperature_is_greedy() {
        let draw = |seed, temperature| {
            let mut rng = Rng::new(seed);
            let sampling = Sampling::TopP { p: 1.0, temperature };
            (0..50).map(|_| sampling.choose(&[0.2, 0.3, 0.5], &mut rng).expect("a token")).collect::<Vec<_>>()
        };
        assert_eq!(draw(5, 1.0), draw(5, 1.0));
        assert_ne!(draw(5, 1.0), draw(6, 1.0));
        assert_eq!(draw(5, 0.01), vec![2; 50]);
    }
}
