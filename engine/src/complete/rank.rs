//! How likely a line is the one that was meant: what the search, the memory's two sides and the suffix say of it, weighed.
//!
//! p = 1 / (1 + e^−(w·f)). The weights are those under which the lines of the `develop` crates were most likely; the
//! example `rank` finds them.

/// Numbers that are known of a line.
pub(super) const N_FEATURES: usize = 16;

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
        f
    }
}

/// Weights of the features.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rank([f32; N_FEATURES]);

impl Rank {
    /// Beside a model, and for the memory alone.
    pub(super) const BESIDE: Self = Self([
        -1.4280, 2.7476, 3.5749, 0.3860, -0.1032, 1.6441, -3.0122, 0.0914, 0.0781, 0.3249, 0.5447, 0.3896, 1.2053,
        0.1625, 1.1634, -0.4005,
    ]);
    pub(super) const ALONE: Self = Self([
        -2.0427, 1.5043, 3.1845, 0.8703, -0.5879, 1.7516, -1.9441, 0.1293, 0.1109, 0.2058, 0.5726, 0.2392, 1.2917,
        0.0498, 1.6030, -0.5613,
    ]);

    /// The probability that this is the line.
    pub(super) fn p(&self, features: &[f32; N_FEATURES]) -> f32 {
        let sum: f32 = self.0.iter().zip(features).map(|(weight, feature)| weight * feature).sum();
        1.0 / (1.0 + (-sum).exp())
    }
}
