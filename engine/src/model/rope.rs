//! Rotary positions (arXiv 2104.09864): features i and i + hd/2 of a head turn by position · θ^(−2i/hd).

use crate::Config;

/// Positions from one whose sines are computed to the next.
const STEP: usize = 64;

/// Cosines and sines of every position, `[context][hd/2]` each.
#[derive(Debug)]
pub(super) struct Rope {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    pub(super) fn new(config: &Config) -> Self {
        let half = config.head_dim() / 2;
        let theta = f64::from(config.rope_theta);
        let frequencies: Vec<f64> = (0..half).map(|i| theta.powf(-(i as f64) / half as f64)).collect();
        let turns = |position: usize| frequencies.iter().map(move |f| (position as f64 * f).sin_cos());
        // The angle of position 64a + b is the sum of two: few sines are computed, and f64 loses nothing that f32
        // keeps.
        let fine: Vec<(f64, f64)> = (0..STEP).flat_map(turns).collect();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for coarse in (0..config.context).step_by(STEP) {
            let coarse: Vec<(f64, f64)> = turns(coarse).collect();
            for ((sin_b, cos_b), (sin_a, cos_a)) in fine.iter().zip(coarse.iter().cycle()) {
                cos.push((cos_a * cos_b - sin_a * sin_b) as f32);
                sin.push((sin_a * cos_b + cos_a * sin_b) as f32);
            }
        }
        cos.truncate(config.context * half);
        sin.truncate(config.context * half);
        Self { cos, sin }
    }

    /// The tables, for the kernels.
    pub(super) fn tables(&self) -> nanochat_kernels::attention::Rope<'_> {
        nanochat_kernels::attention::Rope { cos: &self.cos, sin: &self.sin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_angles_are_as_good_as_the_angles() {
        let config: Config = "d96 h2 kv1 ctx20000".parse().expect("a shape");
        let (half, Rope { cos, sin }) = (config.head_dim() / 2, Rope::new(&config));
        assert_eq!((cos.len(), sin.len()), (20_000 * half, 20_000 * half));
        for position in (0..20_000).step_by(37) {
            for i in 0..half {
                let angle = position as f64 * f64::from(config.rope_theta).powf(-(i as f64) / half as f64);
                // The largest f32 below 1 is 2^-24 from 1: half a step of rounding to nearest is 2^-25.
                let bound = 0.5f64.powi(25) * 1.001;
                assert!((f64::from(cos[position * half + i]) - angle.cos()).abs() <= bound, "{position}, {i}");
                assert!((f64::from(sin[position * half + i]) - angle.sin()).abs() <= bound, "{position}, {i}");
            }
        }
    }
}
