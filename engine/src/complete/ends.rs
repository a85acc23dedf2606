//! Whether a text of several lines ends behind one of them: what the model says of it, how sure the next line is, and how
//! what was written meets what follows.
//!
//! ```text
//! p = 1 / (1 + e^−score)
//! ```
//!
//! The weights are those under which the ends of texts of the `develop` crates were most likely; the example `ends` finds
//! them.

use std::sync::LazyLock;

use super::fit;
use super::network::{Network, n_weights};

/// Numbers that are known of such a place.
pub(super) const N_FEATURES: usize = 24;
/// Units of the hidden layer.
const N_HIDDEN: usize = 8;

/// What is known behind a line with which all brackets are closed that the text has opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence<'a> {
    /// ln of how much more probable the end is than a line break, by the model.
    pub(super) odds: Option<f32>,
    /// What would be written next, with its indentation, and how probable it is.
    pub(super) next: (&'a str, f32),
    /// Whether the next tokens, most probable first, close a bracket that is not the text's own.
    pub(super) closes: bool,
    /// What was written: whole lines, the first from its indentation on.
    pub(super) written: &'a str,
    pub(super) n_lines: usize,
    /// What follows the cursor.
    pub(super) suffix: &'a str,
}

impl Evidence<'_> {
    /// As the weights read it.
    pub(super) fn features(&self) -> [f32; N_FEATURES] {
        let mut f = [0.0; N_FEATURES];
        let flag = |is: bool| if is { 1.0 } else { 0.0 };
        let indent = |line: &str| (line.len() - line.trim_start().len()) as f32;
        f[0] = 1.0;
        if let Some(odds) = self.odds {
            f[1] = 1.0;
            f[2] = odds.clamp(-10.0, 10.0) / 4.0;
            f[3] = flag(odds > 0.0);
        }
        let (next, p) = self.next;
        f[4] = p;
        f[5] = (p.max(1e-4) / (1.0 - p).max(1e-4)).ln() / 4.0;
        f[6] = flag(self.closes);
        f[7] = (self.n_lines as f32).ln();
        let (first, last) = (self.written.lines().next().unwrap_or_default(), self.written.lines().last());
        let last = last.unwrap_or_default();
        f[8 + fit::end_of(last.trim_end().as_bytes())] = 1.0;
        f[14] = flag(indent(last) > indent(first));
        let behind = self.suffix.split_once('\n').map_or("", |(_, behind)| behind);
        let is_blank = behind.lines().next().is_some_and(|line| line.trim().is_empty());
        f[15] = flag(is_blank);
        let Some(following) = behind.lines().find(|line| !line.trim().is_empty()) else { return f };
        f[16] = 1.0;
        f[17] = flag(following.trim() == next.trim());
        f[18] = flag(following.trim_start().starts_with(['}', ')', ']']));
        f[19] = flag(indent(following) < indent(last));
        f[20] = flag(indent(following) > indent(last));
        f[21] = flag(indent(next) == indent(following));
        f[22] = flag(indent(next) < indent(last));
        f[23] = f[2] * f[5];
        f
    }
}

/// What the example `ends` wrote.
const DEFAULT: &[u8; 4 * 2 * n_weights(N_FEATURES, N_HIDDEN)] = include_bytes!("ends/default.f32");

static ENDS: LazyLock<[Network; 2]> = LazyLock::new(|| Network::pair(N_FEATURES, DEFAULT));

/// The probability that the text ends, beside a model or not.
pub(super) fn p_of_end(has_model: bool, evidence: &Evidence<'_>) -> f32 {
    let score = ENDS[usize::from(!has_model)].score(&evidence.features());
    1.0 / (1.0 + (-score).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "    let x = f(\n        1,\n    );\n";

    fn evidence(next: &'static str, suffix: &'static str) -> Evidence<'static> {
        Evidence { odds: None, next: (next, 0.5), closes: false, written: WRITTEN, n_lines: 3, suffix }
    }

    #[test]
    fn what_was_learned_is_finite() {
        assert!(ENDS.iter().all(Network::is_sound));
    }

    #[test]
    fn what_follows_is_compared_with_what_would_be_next() {
        let f = evidence("    g(x);", "\n\n    g(x);\n}\n").features();
        assert_eq!((f[15], f[16], f[17], f[18], f[19], f[21]), (1.0, 1.0, 1.0, 0.0, 0.0, 1.0));
        let f = evidence("    g(x);", "\n}\n").features();
        assert_eq!((f[15], f[16], f[17], f[18], f[19], f[21]), (0.0, 1.0, 0.0, 1.0, 1.0, 0.0));
        assert_eq!(evidence("    g(x);", "").features()[16], 0.0);
    }

    #[test]
    fn a_line_that_stands_there_already_ends_the_text_and_a_sure_one_does_not() {
        for has_model in [false, true] {
            let p = |next, p, suffix| {
                let odds = has_model.then_some(0.0);
                p_of_end(has_model, &Evidence { odds, next: (next, p), ..evidence("", suffix) })
            };
            let there = p("    g(x);", 0.8, "\n    g(x);\n}\n");
            let sure = p("    g(x);", 0.95, "\n    h(x);\n}\n");
            let doubted = p("    g(x);", 0.05, "\n    h(x);\n}\n");
            assert!(there > 0.5 && sure < doubted, "{there} {sure} {doubted}");
        }
    }
}
