//! A network with one hidden layer: features of an order of the memory → its mixing weight.

/// Features of an order.
pub(crate) const N_FEATURES: usize = 24;
/// Units of the hidden layer.
pub(crate) const N_HIDDEN: usize = 12;
/// How many numbers such a network consists of.
pub(crate) const N_MIXING: usize = N_HIDDEN * (N_FEATURES + 1) + N_HIDDEN + 1;

/// features → rectified hidden units → mixing weight within 0..1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MixingWeights {
    /// Each unit's weights of the features, and its bias last.
    pub(crate) hidden: [[f32; N_FEATURES + 1]; N_HIDDEN],
    /// The weights of the units, and the bias last.
    pub(crate) out: [f32; N_HIDDEN + 1],
}

impl MixingWeights {
    /// The weight of the longest matches is `most` above that of the shortest; units differ, so that they can learn to
    /// be different.
    pub(crate) fn rough(most: f32) -> Self {
        let mut rng = crate::rng::Rng::new(1);
        let mut hidden = [[0.0; N_FEATURES + 1]; N_HIDDEN];
        for unit in &mut hidden {
            unit.iter_mut().for_each(|weight| *weight = 0.3 * rng.normal());
        }
        let mut out = [0.0; N_HIDDEN + 1];
        hidden[0] = [0.0; N_FEATURES + 1];
        hidden[0][9] = 1.0; // the length of the match, up to sixteen tokens
        out[0] = 4.0 * most;
        out[N_HIDDEN] = -1.0;
        Self { hidden, out }
    }

    /// Its numbers, in the order of a checkpoint.
    pub(crate) fn weights(&self) -> impl Iterator<Item = f32> {
        self.hidden.iter().flatten().chain(&self.out).copied()
    }

    /// A network from its [`N_MIXING`] numbers.
    pub(crate) fn from_weights(weights: &[f32]) -> Self {
        assert_eq!(weights.len(), N_MIXING, "{} numbers for the mixing weights", weights.len());
        let (hidden, out) = weights.split_at(N_HIDDEN * (N_FEATURES + 1));
        Self {
            hidden: std::array::from_fn(|unit| {
                std::array::from_fn(|feature| hidden[unit * (N_FEATURES + 1) + feature])
            }),
            out: std::array::from_fn(|unit| out[unit]),
        }
    }

    /// The mixing weight of an order.
    pub(crate) fn weight(&self, features: &[f32; N_FEATURES]) -> f32 {
        squash(self.sum(features, &mut [0.0; N_HIDDEN]))
    }

    /// The sum before it is squashed; `units` keeps the hidden layer.
    pub(crate) fn sum(&self, features: &[f32; N_FEATURES], units: &mut [f32; N_HIDDEN]) -> f32 {
        let mut sum = self.out[N_HIDDEN];
        for ((unit, weights), out) in units.iter_mut().zip(&self.hidden).zip(&self.out) {
            // Eight partial sums, which compilers turn into vectors without changing their order.
            let mut parts = [0.0f32; 8];
            for (features, weights) in features.as_chunks::<8>().0.iter().zip(weights.as_chunks::<8>().0) {
                for i in 0..8 {
                    parts[i] += features[i] * weights[i];
                }
            }
            *unit = (parts.iter().sum::<f32>() + weights[N_FEATURES]).max(0.0);
            sum += *unit * out;
        }
        sum
    }
}

const _: () = assert!(N_FEATURES.is_multiple_of(8));

/// Maps any number to 0..1, by roots and quotients alone, which every machine rounds alike.
pub(crate) fn squash(x: f32) -> f32 {
    (0.5 + 0.5 * (x / (1.0 + x * x).sqrt())).clamp(LEAST, 1.0 - LEAST)
}

/// The slope of [`squash`].
pub(crate) fn slope(x: f32) -> f32 {
    let square = 1.0 + x * x;
    0.5 / (square * square.sqrt())
}

/// Neither the base distribution nor an order is ever ignored altogether.
const LEAST: f32 = 1e-4;
