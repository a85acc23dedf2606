//! How likely a line is the one that was meant: what the search, the memory's two sides, the suffix and the text around the
//! cursor say of it, weighed against all that is said of the others.
//!
//! ```text
//! p = e^score / (1 + Σ e^score): the 1 stands for none of the lines
//! ```
//!
//! The weights are those under which the right lines of the crates on the lists `develop` and `ranking` were most likely; the
//! example `rank` finds them.

use std::sync::LazyLock;

use super::analogy::Alike;
use super::fit;
use super::network::{Network, n_weights};
use super::next_token::ModelLogP;
use crate::symbols::MemberCounts;

/// Numbers that are known of a line.
pub(super) const N_FEATURES: usize = N_SAID + fit::N_FEATURES;
/// Of them, what the voices say, and of what kind the place is.
const N_SAID: usize = 37;
/// Units of the hidden layer.
const N_HIDDEN: usize = 48;

/// What is known of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    /// ln p of the line by the search, and of the best line by it; `None` where the search has not found it.
    pub(super) searched: Option<(f32, f32)>,
    /// What the model alone makes of the line and its end, and ln p of the best line by it; `None` where it was not asked.
    pub(super) by_model: Option<(ModelLogP, f32)>,
    /// ln p of the begin of the suffix behind it, by the memory, and of how many tokens.
    pub(super) behind: (f32, usize),
    /// Of where it stands elsewhere.
    pub(super) bridge: Option<Bridged>,
    /// The most tokens of any line that stands elsewhere: before, and behind.
    pub(super) most: (u32, u32),
    /// Of where it stands under other names.
    pub(super) analogy: Option<Alike>,
    /// Its own tokens, and those of them that come from the model.
    pub(super) n_tokens: usize,
    pub(super) n_own: usize,
    /// Of the members that it names.
    pub(super) members: MemberCounts,
    /// Where it is to stand.
    pub(super) place: Place,
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
        if let Some(alike) = self.analogy {
            f[16] = 1.0;
            f[17] = ln(alike.n_before);
            f[18] = ln(alike.n_behind);
            f[19] = ln(alike.n_renamed);
            f[20] = ln(alike.n_clashes);
            f[21] = flag(self.searched.is_some() || self.bridge.is_some());
        }
        if let Some((ModelLogP { log_p, first, last, least, .. }, best)) = self.by_model {
            f[22] = 1.0;
            f[23] = log_p.max(-24.0) / 8.0;
            f[24] = (log_p - best).max(-8.0) / 2.0;
            f[25] = (log_p / (1 + self.n_tokens) as f32).max(-6.0);
            f[32] = flag(log_p >= best);
            f[33] = first.max(-8.0) / 4.0;
            f[34] = last.max(-8.0) / 4.0;
            f[35] = least.max(-8.0) / 4.0;
        }
        f[26] = ln(self.members.n_existing.into());
        f[27] = ln(self.members.n_missing.into());
        f[28] = ln(self.members.n_wrong_calls.into());
        f[29 + self.place as usize] = 1.0;
        f[36] = self.n_own as f32 / self.n_tokens.max(1) as f32;
        f[N_SAID..].copy_from_slice(&self.fit);
        f
    }
}

/// Where a line is to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The cursor's line ends at the cursor, and what follows is behind the line.
    Ends,
    /// Text follows the cursor on its line.
    Within,
    /// More lines may stand between it and what follows.
    Several,
}

/// What the example `rank` wrote.
const DEFAULT: &[u8; 4 * 2 * n_weights(N_FEATURES, N_HIDDEN)] = include_bytes!("rank/default.f32");

static RANKS: LazyLock<[Network; 2]> = LazyLock::new(|| Network::pair(N_FEATURES, DEFAULT));

/// The probability of each line that it is the one, beside a model or not.
pub(super) fn probabilities(has_model: bool, lines: &[[f32; N_FEATURES]]) -> Vec<f32> {
    let rank = &RANKS[usize::from(!has_model)];
    compete(lines.iter().map(|line| rank.score(line)).collect())
}

fn compete(scores: Vec<f32>) -> Vec<f32> {
    let largest = scores.iter().copied().fold(0.0, f32::max);
    let total = (-largest).exp() + scores.iter().map(|score| (score - largest).exp()).sum::<f32>();
    scores.into_iter().map(|score| (score - largest).exp() / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_is_finite() {
        assert!(RANKS.iter().all(Network::is_sound));
    }

    #[test]
    fn what_the_model_says_of_a_line_is_read_by_its_parts() {
        let by_model = [0.5, 0.125, 0.25].into_iter().fold(ModelLogP::default(), ModelLogP::then);
        let evidence = |best: f32, n_own: usize| Evidence {
            searched: None,
            by_model: Some((by_model, best)),
            behind: (0.0, 0),
            bridge: None,
            most: (0, 0),
            analogy: None,
            n_tokens: 2,
            n_own,
            members: MemberCounts::default(),
            place: Place::Within,
            fit: [0.0; fit::N_FEATURES],
        };
        let f = evidence(by_model.log_p, 1).features();
        let log2 = [f[33], f[34], f[35]].map(|feature| (4.0 * feature / 2f32.ln()).round());
        assert_eq!((f[32], log2, f[36]), (1.0, [-1.0, -2.0, -3.0], 0.5));
        assert_eq!(f[29..32], [0.0, 1.0, 0.0], "where it is to stand");
        let f = evidence(by_model.log_p + 1.0, 0).features();
        assert_eq!((f[32], f[36]), (0.0, 0.0), "another line is more probable");
    }

    #[test]
    fn lines_compete_with_each_other_and_with_none() {
        let p = compete(vec![0.0, 3.0f32.ln(), -200.0]);
        assert!((p[0] - 0.2).abs() < 1e-6 && (p[1] - 0.6).abs() < 1e-6 && p[2] == 0.0, "{p:?}");
        let p = compete(vec![500.0, 500.0]);
        assert!(p.iter().all(|p| (p - 0.5).abs() < 1e-6), "{p:?}");
        assert!(compete(Vec::new()).is_empty());
    }
}
