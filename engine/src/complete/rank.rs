//! How likely a line is the one that was meant: what the search, the memory's two sides, the suffix and the text around the
//! cursor say of it, weighed against all that is said of the others.
//!
//! p = e^(w·f) / (1 + Σ e^(w·f)): the 1 stands for none of the lines. The weights are those under which the right lines of
//! the `develop` crates were most likely; the example `rank` finds them.

use super::fit;

/// Numbers that are known of a line.
pub(super) const N_FEATURES: usize = N_SAID + fit::N_FEATURES;
/// Of them, what the voices say.
const N_SAID: usize = 16;

/// What is known of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    /// ln p of the line by the search, and of the best line by it; `None` where the search has not found it.
    pub(super) searched: Option<(f32, f32)>,
    /// ln p of the begin of the suffix behind it, by the memory, and of how many tokens.
    pub(super) behind: (f32, usize),
    /// Of where it stands elsewhere.
    pub(super) bridge: Option<Bridged>,
    /// The most tokens of any line that stands elsewhere: before, and behind.
    pub(super) most: (u32, u32),
    /// Its own tokens.
    pub(super) n_tokens: usize,
    /// How it fits in with the text around it.
    pub(super) fit: [f32; fit::N_FEATURES],
}

/// Where a line stands elsewhere: the place that agrees best.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bridged {
    pub(super) n_before: u32,
    pub(super) n_behind: u32,
    /// Whether it stands in the file at hand.
    pub(super) is_near: bool,
    /// Places of it.
    pub(super) n_places: usize,
}

impl Bridged {
    /// How well the place agrees on both sides.
    pub(super) fn agreement(&self) -> u32 {
        2 * self.n_before + self.n_behind
    }
}

impl Evidence {
    /// As the weights read it.
    pub(super) fn features(&self) -> [f32; N_FEATURES] {
        let mut f = [0.0; N_FEATURES];
        let flag = |is: bool| if is { 1.0 } else { 0.0 };
        let ln = |n: u32| ((1 + n) as f32).ln();
        f[0] = 1.0;
        if let Some((log_p, best)) = self.searched {
            f[1] = 1.0;
            f[2] = log_p.max(-12.0) / 4.0;
            f[3] = flag(log_p >= best);
            f[4] = (log_p - best).max(-4.0);
        }
        let (log_p, n) = self.behind;
        f[5] = if n == 0 { 0.0 } else { (log_p / n as f32).max(-8.0) / 4.0 };
        if let Some(bridge) = self.bridge {
            f[6] = 1.0;
            f[7] = ln(bridge.n_before);
            f[8] = ln(bridge.n_behind);
            f[9] = flag(bridge.n_behind >= 8);
            f[10] = ln(bridge.n_places as u32);
            f[11] = flag(bridge.n_before == self.most.0);
            f[12] = flag(bridge.n_behind == self.most.1 && bridge.n_behind > 0);
            f[13] = flag(bridge.is_near);
            f[14] = flag(self.searched.is_some());
        }
        f[15] = ln(self.n_tokens as u32);
        f[N_SAID..].copy_from_slice(&self.fit);
        f
    }
}

/// Weights of the features.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rank([f32; N_FEATURES]);

impl Rank {
    /// Beside a model, and for the memory alone.
    pub(super) const BESIDE: Self = Self([
        -1.5127, 2.5916, 3.8189, 0.0416, -0.2566, 1.1067, -2.9725, 0.2655, 0.2310, 0.3086, 0.7461, 0.2065, 0.8585,
        -0.1634, 1.1318, -0.7873, 1.2874, 0.2646, -1.6617, -1.7824, 0.0000, -1.9183, 0.5321, 0.5196, 1.0218, 0.0000,
        -1.0293, 1.2613, 0.6576, 1.0908, 0.0000, -0.1827, 1.3788, 0.5342, -1.0694, 0.0000, -0.6815, 0.0946, -0.5299,
        -0.4048, 0.0000, -0.3581, 0.2683, 0.5743, -1.3798, 0.0000, -0.9130, 0.3074, 0.6932, -0.2937, -1.5320,
    ]);
    pub(super) const ALONE: Self = Self([
        -2.2555, 1.3776, 3.3133, 0.4632, -0.6548, 1.4304, -2.0671, 0.3003, 0.2206, 0.1662, 0.7614, 0.0809, 0.9713,
        -0.4001, 1.5659, -0.8179, 1.0886, 0.0745, -1.4304, -1.5305, 0.0000, -1.8581, 0.6081, 0.4626, 1.1788, 0.0000,
        -0.9166, 0.7837, 0.5684, 0.9374, 0.0000, 0.1383, 1.2342, 0.5708, -0.7552, 0.0000, -0.4452, 0.1315, -0.5372,
        -0.1148, 0.0000, -0.4436, -0.4726, 0.2045, -1.7327, 0.0000, -0.7932, 0.7645, 0.5253, -0.2706, -1.4679,
    ]);

    /// The probability of each line that it is the one.
    pub(super) fn probabilities(&self, lines: &[[f32; N_FEATURES]]) -> Vec<f32> {
        let score = |features: &[f32; N_FEATURES]| -> f32 { self.0.iter().zip(features).map(|(w, f)| w * f).sum() };
        let scores: Vec<f32> = lines.iter().map(score).collect();
        let largest = scores.iter().copied().fold(0.0, f32::max);
        let total = (-largest).exp() + scores.iter().map(|score| (score - largest).exp()).sum::<f32>();
        scores.into_iter().map(|score| (score - largest).exp() / total).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_compete_with_each_other_and_with_none() {
        let mut weights = [0.0; N_FEATURES];
        weights[0] = 1.0;
        let line = |score: f32| {
            let mut features = [0.0; N_FEATURES];
            features[0] = score;
            features
        };
        let p = Rank(weights).probabilities(&[line(0.0), line(3.0f32.ln()), line(-200.0)]);
        assert!((p[0] - 0.2).abs() < 1e-6 && (p[1] - 0.6).abs() < 1e-6 && p[2] == 0.0, "{p:?}");
        let p = Rank(weights).probabilities(&[line(500.0), line(500.0)]);
        assert!(p.iter().all(|p| (p - 0.5).abs() < 1e-6), "{p:?}");
        assert!(Rank(weights).probabilities(&[]).is_empty());
    }
}
