//! The small networks of the reranker and the stop classifier: named features to a score.
//!
//! ```text
//! score = w·f + Σ over the hidden units of v·max(u·f, 0)
//! file  = hash of the features' names, in their order · the network with a model · the one for the memory alone
//! ```
//!
//! The weights know features by their position alone. The hash makes a feature that is added, removed, renamed or moved
//! without new weights an error at the first use, and in a test before it.

use nanochat_kernels::{Isa, vector};

/// A number by its name; `F` is a function that finds it.
pub(super) type Feature<F> = (&'static str, F);

/// 1 for true.
pub(super) fn flag(is: bool) -> f32 {
    if is { 1.0 } else { 0.0 }
}

/// Bytes of the hash that a file starts with.
const HASH_LEN: usize = 16;

/// A hash of the names of features in their order.
pub(super) fn hash_of_names<'n>(names: impl Iterator<Item = &'n str>) -> [u8; HASH_LEN] {
    let mut hasher = blake3::Hasher::new();
    for name in names {
        hasher.update(name.as_bytes()).update(b"\n");
    }
    let mut hash = [0; HASH_LEN];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..HASH_LEN]);
    hash
}

/// How many weights a network has.
pub(super) const fn n_weights(n_features: usize, n_hidden: usize) -> usize {
    n_features + n_hidden * (n_features + 1)
}

/// How many bytes the file of two networks has.
pub(super) const fn n_bytes(n_features: usize, n_hidden: usize) -> usize {
    HASH_LEN + 4 * 2 * n_weights(n_features, n_hidden)
}

/// The weights were learned from other features, or from these in another order. Holds the hash of these.
#[derive(Debug, thiserror::Error)]
#[error(
    "the weights were not learned from these features in this order: learn them again (`--example relearn`), after \
         writing a file that starts with the bytes {0:02x?} and has zeros for weights"
)]
pub(super) struct OtherFeatures([u8; HASH_LEN]);

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

    /// The two networks of a file that [`file_of`] wrote, with a model and for the memory alone, over the features of
    /// these names.
    pub(super) fn pair<F>(features: &[Feature<F>], file: &[u8]) -> Result<[Self; 2], OtherFeatures> {
        let hash = hash_of_names(features.iter().map(|(name, _)| *name));
        let bytes = file.strip_prefix(&hash).ok_or(OtherFeatures(hash))?;
        let (words, _) = bytes.as_chunks();
        let weights: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let (with_model, memory_only) = weights.split_at(weights.len() / 2);
        Ok([with_model, memory_only].map(|weights| Self::new(features.len(), weights.to_vec())))
    }

    /// The score of `features`, as many as the network was made for.
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

/// The file of two networks, with a model and for the memory alone.
pub(super) fn file_of<F>(features: &[Feature<F>], with_model: &[f32], memory_only: &[f32]) -> Vec<u8> {
    let mut file = hash_of_names(features.iter().map(|(name, _)| *name)).to_vec();
    file.extend([with_model, memory_only].into_iter().flatten().flat_map(|weight| weight.to_le_bytes()));
    file
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

    const FEATURES: [Feature<fn(&[f32; 2]) -> f32>; 2] = [("first", |x| x[0]), ("second", |x| x[1])];

    #[test]
    fn a_file_holds_two_networks_one_after_the_other() {
        let (first, second): (Vec<f32>, Vec<f32>) =
            ((0..5).map(|i| i as f32).collect(), (5..10).map(|i| i as f32).collect());
        let file = file_of(&FEATURES, &first, &second);
        assert_eq!(file.len(), n_bytes(2, 1));
        let [with_model, memory_only] = Network::pair(&FEATURES, &file).expect("they are of these features");
        assert_eq!((with_model.weights, memory_only.weights), (first, second));
    }

    #[test]
    fn weights_of_other_features_are_refused() {
        let file = file_of(&FEATURES, &[0.0; 5], &[0.0; 5]);
        let [first, second] = FEATURES;
        for other in [[second, first], [first, ("third", first.1)]] {
            assert!(Network::pair(&other, &file).is_err());
        }
        assert!(Network::pair(&FEATURES[..1], &file).is_err());
        assert!(Network::pair(&FEATURES, &file[16..]).is_err(), "weights without a hash");
    }
}
