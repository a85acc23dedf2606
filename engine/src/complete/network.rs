//! The small networks that choose: what is known of something, as numbers, to a score.
//!
//! ```text
//! score = w·f + Σ over the hidden units of v·max(u·f, 0)
//! ```

use nanochat_kernels::Isa;
use nanochat_kernels::vector;

/// Numbers of a network over so many features.
pub(super) const fn n_weights(n_features: usize, n_hidden: usize) -> usize {
    n_features + n_hidden * (n_features + 1)
}

/// One network: w, then each u, then v.
#[derive(Clone, Debug)]
pub(super) struct Network {
    n_features: usize,
    weights: Vec<f32>,
}

impl Network {
    /// `weights` are as many as [`n_weights`] says.
    pub(super) fn new(n_features: usize, weights: Vec<f32>) -> Self {
        Self { n_features, weights }
    }

    /// The two of a file that an example wrote: beside a model, and for the memory alone.
    pub(super) fn pair(n_features: usize, bytes: &[u8]) -> [Self; 2] {
        let (words, _) = bytes.as_chunks();
        let weights: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let (beside, alone) = weights.split_at(weights.len() / 2);
        [beside, alone].map(|weights| Self::new(n_features, weights.to_vec()))
    }

    /// The score of `features`, as many as there are.
    pub(super) fn score(&self, features: &[f32]) -> f32 {
        let isa = Isa::best();
        let (direct, rest) = self.weights.split_at(self.n_features);
        let n_hidden = rest.len() / (self.n_features + 1);
        let (units, out) = rest.split_at(n_hidden * self.n_features);
        let mut hidden = vec![0.0; n_hidden];
        vector::matvec(isa, units, features, &mut hidden);
        hidden.iter_mut().for_each(|unit| *unit = unit.max(0.0));
        vector::dot(isa, direct, features) + vector::dot(isa, out, &hidden)
    }

    #[cfg(test)]
    pub(super) fn is_sound(&self) -> bool {
        self.weights.iter().all(|weight| weight.is_finite() && weight.abs() < 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_silent_below_0() {
        // Two features and two units: w = (1, 0), u = (1, 0) and (0, 1), v = (5, -1).
        let network = Network::new(2, vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 5.0, -1.0]);
        assert_eq!(network.weights.len(), n_weights(2, 2));
        let scores = [[2.0, 0.0], [-2.0, 0.0], [0.0, 3.0]].map(|features| network.score(&features));
        assert_eq!(scores, [12.0, -2.0, -3.0]);
    }

    #[test]
    fn a_file_holds_two_one_after_the_other() {
        let bytes: Vec<u8> = (0..2 * n_weights(2, 1)).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let [beside, alone] = Network::pair(2, &bytes);
        assert_eq!(
            (beside.weights, alone.weights),
            ((0..5).map(|i| i as f32).collect(), (5..10).map(|i| i as f32).collect())
        );
    }
}
