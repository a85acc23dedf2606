//! From a distribution to a token.

use crate::rng::Rng;
use crate::tokenizer::TokenId;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The most probable; ties go to the lower id.
    Greedy,
    /// From the smallest set that holds probability `p` (nucleus sampling, arXiv 1904.09751), after raising each
    /// probability to 1 / `temperature`.
    TopP {
        /// Within (0, 1].
        p: f32,
        /// Above 0.
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
    let mut best = None;
    let mut top = 0.0;
    for (token, p) in probabilities.iter().enumerate() {
        if *p > top {
            (best, top) = (Some(token as TokenId), *p);
        }
    }
    best
}

fn top_p(probabilities: &[f32], p: f32, temperature: f32, rng: &mut Rng) -> Option<TokenId> {
    let exponent = 1.0 / temperature.max(1e-3);
    let top = probabilities.iter().fold(0.0f32, |top, p| top.max(*p));
    // What is a hundred thousand times less probable than the best is not worth sorting.
    let mut tokens: Vec<(TokenId, f32)> = probabilities
        .iter()
        .enumerate()
        .filter(|(_, p)| **p > top * 1e-5)
        .map(|(token, p)| (token as TokenId, (p / top).powf(exponent)))
        .collect();
    tokens.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let total: f32 = tokens.iter().map(|(_, weight)| weight).sum();
    let mut kept = 0.0;
    let within = |(_, weight): &&(TokenId, f32)| {
        let before = kept;
        kept += weight;
        before < p * total
    };
    let n_kept = tokens.iter().take_while(within).count();
    tokens.truncate(n_kept.max(1));
    let mut left = rng.uniform() * tokens.iter().map(|(_, weight)| weight).sum::<f32>();
    for (token, weight) in &tokens {
        left -= weight;
        if left < 0.0 {
            return Some(*token);
        }
    }
    tokens.first().map(|(token, _)| *token)
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
