//! The stop classifier: whether a text of several lines ends after one of them, from what the model gives the end, how
//! sure the next line is, and how what was written meets what follows.
//!
//! ```text
//! p = 1 / (1 + e^−score)
//! ```
//!
//! The weights are those under which the ends of texts of the `develop` crates were most likely; an example finds them.

use std::sync::LazyLock;

use super::line::LineEnd;
use super::network::{Feature, Network, file_of, flag, n_bytes};

/// Units of the classifier's hidden layer, for whoever learns its weights.
pub const STOP_UNITS: usize = 8;

/// What is known after a line with which all brackets are closed that the text has opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct StopFeatures<'a> {
    /// ln of how much more probable the end is than a line break, by the model; `None` without one.
    pub(super) log_odds_of_end: Option<f32>,
    /// What would be written next, with its indentation, and its confidence.
    pub(super) next: (&'a str, f32),
    /// Whether the search's next tokens close a bracket that is not the text's own.
    pub(super) closes: bool,
    /// What was written: whole lines, the first from its indentation on.
    pub(super) written: &'a str,
    /// Lines of it.
    pub(super) n_lines: usize,
    /// The text after the cursor.
    pub(super) suffix: &'a str,
}

impl<'a> StopFeatures<'a> {
    /// In the order of [`FEATURES`].
    pub(super) fn values(&self) -> [f32; FEATURES.len()] {
        FEATURES.map(|(_, value)| value(self))
    }

    fn scaled_odds(&self) -> f32 {
        self.log_odds_of_end.map_or(0.0, |odds| odds.clamp(-10.0, 10.0) / 4.0)
    }

    fn scaled_odds_of_next(&self) -> f32 {
        let (_, p) = self.next;
        (p.max(1e-4) / (1.0 - p).max(1e-4)).ln() / 4.0
    }

    fn first(&self) -> &'a str {
        self.written.lines().next().unwrap_or_default()
    }

    fn last(&self) -> &'a str {
        self.written.lines().last().unwrap_or_default()
    }

    fn ends_with(&self, end: LineEnd) -> f32 {
        flag(LineEnd::of(self.last().trim_end().as_bytes()) == end)
    }

    /// The text from the line after the cursor's on.
    fn after(&self) -> &'a str {
        self.suffix.split_once('\n').map_or("", |(_, after)| after)
    }

    /// A feature of the first line with content after the cursor's; 0 where there is none.
    fn following(&self, value: impl Fn(&'a str) -> f32) -> f32 {
        self.after().lines().find(|line| !line.trim().is_empty()).map_or(0.0, value)
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// How one feature is computed.
type Compute = fn(&StopFeatures<'_>) -> f32;

/// The features in the order in which the weights have them. Another order or another name needs new weights.
const FEATURES: [Feature<Compute>; 24] = [
    ("constant", |_| 1.0),
    ("has a model", |of| flag(of.log_odds_of_end.is_some())),
    ("log odds of the end", |of| of.scaled_odds()),
    ("the end is more probable", |of| flag(of.log_odds_of_end.is_some_and(|odds| odds > 0.0))),
    ("confidence of the next line", |of| of.next.1),
    ("log odds of the next line", |of| of.scaled_odds_of_next()),
    ("next tokens close an outer bracket", |of| flag(of.closes)),
    ("ln lines", |of| (of.n_lines as f32).ln()),
    ("last line ends: open", |of| of.ends_with(LineEnd::Open)),
    ("last line ends: semicolon", |of| of.ends_with(LineEnd::Semicolon)),
    ("last line ends: comma", |of| of.ends_with(LineEnd::Comma)),
    ("last line ends: close", |of| of.ends_with(LineEnd::Close)),
    ("last line ends: operator", |of| of.ends_with(LineEnd::Operator)),
    ("last line ends: other", |of| of.ends_with(LineEnd::Other)),
    ("last line deeper than the first", |of| flag(indent(of.last()) > indent(of.first()))),
    ("blank line follows", |of| flag(of.after().lines().next().is_some_and(|line| line.trim().is_empty()))),
    ("something follows", |of| of.following(|_| 1.0)),
    ("what follows is the next line", |of| of.following(|line| flag(line.trim() == of.next.0.trim()))),
    ("what follows closes", |of| of.following(|line| flag(line.trim_start().starts_with(['}', ')', ']'])))),
    ("what follows is less deep than the last line", |of| of.following(|line| flag(indent(line) < indent(of.last())))),
    ("what follows is deeper than the last line", |of| of.following(|line| flag(indent(line) > indent(of.last())))),
    ("next line as deep as what follows", |of| of.following(|line| flag(indent(of.next.0) == indent(line)))),
    ("next line less deep than the last, and something follows", |of| {
        of.following(|_| flag(indent(of.next.0) < indent(of.last())))
    }),
    ("log odds of the end × of the next line, and something follows", |of| {
        of.following(|_| of.scaled_odds() * of.scaled_odds_of_next())
    }),
];

/// What [`stop_weights`] made of the weights that were learned.
const DEFAULT: &[u8; n_bytes(FEATURES.len(), STOP_UNITS)] = include_bytes!("stop/default.f32");

static NETWORKS: LazyLock<[Network; 2]> =
    LazyLock::new(|| Network::pair(&FEATURES, DEFAULT).unwrap_or_else(|error| panic!("stop/default.f32: {error}")));

/// The file of weights of the stop classifier, from those of its two networks.
pub fn stop_weights(with_model: &[f32], memory_only: &[f32]) -> Vec<u8> {
    file_of(&FEATURES, with_model, memory_only)
}

/// The probability that the text ends.
pub(super) fn p_of_end(has_model: bool, features: &StopFeatures<'_>) -> f32 {
    let score = NETWORKS[usize::from(!has_model)].score(&features.values());
    1.0 / (1.0 + (-score).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "    let x = f(\n        1,\n    );\n";

    fn features(next: &'static str, suffix: &'static str) -> StopFeatures<'static> {
        StopFeatures { log_odds_of_end: None, next: (next, 0.5), closes: false, written: WRITTEN, n_lines: 3, suffix }
    }

    #[test]
    fn what_was_learned_is_finite_and_of_these_features() {
        assert!(NETWORKS.iter().all(Network::is_sound));
    }

    #[test]
    fn what_follows_is_compared_with_what_would_be_next() {
        let f = features("    g(x);", "\n\n    g(x);\n}\n").values();
        assert_eq!((f[15], f[16], f[17], f[18], f[19], f[21]), (1.0, 1.0, 1.0, 0.0, 0.0, 1.0));
        let f = features("    g(x);", "\n}\n").values();
        assert_eq!((f[15], f[16], f[17], f[18], f[19], f[21]), (0.0, 1.0, 0.0, 1.0, 1.0, 0.0));
        assert_eq!(features("    g(x);", "").values()[16], 0.0);
    }

    #[test]
    fn a_line_that_is_there_already_ends_the_text_and_a_sure_one_does_not() {
        for has_model in [false, true] {
            let p = |next, p, suffix| {
                let log_odds_of_end = has_model.then_some(0.0);
                p_of_end(has_model, &StopFeatures { log_odds_of_end, next: (next, p), ..features("", suffix) })
            };
            let there = p("    g(x);", 0.8, "\n    g(x);\n}\n");
            let sure = p("    g(x);", 0.95, "\n    h(x);\n}\n");
            let doubted = p("    g(x);", 0.05, "\n    h(x);\n}\n");
            assert!(there > 0.5 && sure < doubted, "{there} {sure} {doubted}");
        }
    }
}
