//! Compares two runs on the holes that they share.

use std::collections::HashMap;
use std::fmt::Write;

use super::table::p_value;
use super::{Outcomes, Report};
use crate::holes::HoleKind;
use crate::stats::{self, McNemar, Value};

/// The paired difference of one system of run B and one of run A.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Comparison {
    /// Name of the system from run A.
    pub system_a: String,
    /// Name of the system from run B.
    pub system_b: String,
    /// Number of holes that A's system was asked to fill.
    pub holes_a: usize,
    /// Number of holes that B's system was asked to fill.
    pub holes_b: usize,
    /// Differences on the shared holes: all kinds together first, then each kind.
    pub contrasts: Vec<Contrast>,
    /// Whether a difference in compile success is shown, all kinds together.
    pub verdict: Verdict,
}

/// The differences on one kind of hole, all B minus A.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Contrast {
    /// The kind; absent for all together.
    pub kind: Option<HoleKind>,
    /// Number of shared holes.
    pub n: usize,
    /// Difference in the share that compiles.
    pub compile_success: Value,
    /// Difference in the share of exact matches.
    pub exact_match: Value,
    /// Difference in edit similarity, from values rounded to a thousandth.
    pub edit_similarity: Value,
    /// Difference in characters saved, as a share of all characters of the truth.
    pub characters_saved: Value,
    /// Difference in bits per byte, where both give probabilities; less is better.
    pub bits_per_byte: Option<Value>,
    /// McNemar's test on compile success; `a` is A.
    pub mcnemar: McNemar,
}

/// The conclusion. A difference is shown if the clustered interval excludes 0 and McNemar's p is below 0.05.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// B's completions compile more often.
    Better,
    /// B's completions compile less often.
    Worse,
    /// The figures show no difference.
    NotShown,
}

/// Why two runs cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// A run has no system of that name.
    #[error("{run} has no system {name:?}; it has {systems}")]
    System {
        /// Which run, `A` or `B`.
        run: char,
        /// The name as the user gave it.
        name: String,
        /// Names of the systems that the run has.
        systems: String,
    },
    /// The columns of a report have different lengths.
    #[error("the holes of {run} do not line up with its outcomes; was the report written by another program?")]
    Columns {
        /// Which run, `A` or `B`.
        run: char,
    },
    /// The two runs have no hole in common.
    #[error("the two runs share no hole; evaluate both with the same suite and seed")]
    NothingShared,
}

impl Comparison {
    /// `system_b` of `b` minus `system_a` of `a`.
    pub fn of(a: &Report, system_a: &str, b: &Report, system_b: &str) -> Result<Self, CompareError> {
        let (outcomes_a, outcomes_b) = (outcomes('A', a, system_a)?, outcomes('B', b, system_b)?);
        let place_in_b: HashMap<&str, usize> =
            b.pairs.ids.iter().enumerate().map(|(at, id)| (id.as_str(), at)).collect();
        let asked = |outcomes: &Outcomes, at: usize| outcomes.compile.as_bytes()[at] != b'-';
        let shared: Vec<(usize, usize)> = a
            .pairs
            .ids
            .iter()
            .enumerate()
            .filter_map(|(at, id)| Some((at, *place_in_b.get(id.as_str())?)))
            .filter(|&(at_a, at_b)| asked(outcomes_a, at_a) && asked(outcomes_b, at_b))
            .collect();
        if shared.is_empty() {
            return Err(CompareError::NothingShared);
        }
        let mut kinds: Vec<Option<HoleKind>> =
            shared.iter().map(|(at, _)| Some(a.pairs.kinds[*at])).chain([None]).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let contrast = |kind: &Option<HoleKind>| {
            let chosen: Vec<(usize, usize)> =
                shared.iter().copied().filter(|(at, _)| kind.is_none_or(|kind| a.pairs.kinds[*at] == kind)).collect();
            let paired = |figure: &dyn Fn(&Outcomes, usize) -> f64| {
                let differences: Vec<_> = chosen
                    .iter()
                    .map(|&(at_a, at_b)| {
                        (a.pairs.clusters[at_a].as_str(), figure(outcomes_b, at_b) - figure(outcomes_a, at_a))
                    })
                    .collect();
                stats::difference(&differences, a.seed)
            };
            let saved: Vec<_> = chosen
                .iter()
                .map(|&(at_a, at_b)| {
                    let gained = outcomes_b.saved[at_b] as f64 - outcomes_a.saved[at_a] as f64;
                    (a.pairs.clusters[at_a].as_str(), gained, a.pairs.chars[at_a] as f64)
                })
                .collect();
            let bits: Vec<_> = chosen
                .iter()
                .filter_map(|&(at_a, at_b)| {
                    let more = outcomes_b.bits[at_b]? - outcomes_a.bits[at_a]?;
                    Some((a.pairs.clusters[at_a].as_str(), more, a.pairs.bytes[at_a] as f64))
                })
                .collect();
            let is = |column: &str, at: usize| column.as_bytes()[at] == b'1';
            Contrast {
                kind: *kind,
                n: chosen.len(),
                compile_success: paired(&|outcomes, at| f64::from(u8::from(is(&outcomes.compile, at)))),
                exact_match: paired(&|outcomes, at| f64::from(u8::from(is(&outcomes.exact, at)))),
                edit_similarity: paired(&|outcomes, at| f64::from(outcomes.similarity[at]) / 1000.0),
                characters_saved: stats::ratio(&saved, a.seed),
                bits_per_byte: (!bits.is_empty()).then(|| stats::ratio(&bits, a.seed)),
                mcnemar: McNemar::of(
                    chosen.iter().map(|&(at_a, at_b)| (is(&outcomes_a.compile, at_a), is(&outcomes_b.compile, at_b))),
                ),
            }
        };
        let contrasts: Vec<Contrast> = kinds.iter().map(contrast).collect();
        let verdict = Verdict::of(&contrasts[0]);
        let n_asked = |outcomes: &Outcomes| outcomes.compile.bytes().filter(|&byte| byte != b'-').count();
        Ok(Self {
            system_a: system_a.to_owned(),
            system_b: system_b.to_owned(),
            holes_a: n_asked(outcomes_a),
            holes_b: n_asked(outcomes_b),
            contrasts,
            verdict,
        })
    }

    /// The comparison as text for a terminal.
    pub fn table(&self) -> String {
        let points = |value: &Value| {
            format!("{:+.1} [{:+.1}, {:+.1}]", 100.0 * value.value, 100.0 * value.low, 100.0 * value.high)
        };
        let header = [
            "B − A, points",
            "n",
            "compiles",
            "only B : only A",
            "McNemar p",
            "exact",
            "similar",
            "saved",
            "bits/byte",
        ];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        for contrast in &self.contrasts {
            rows.push(vec![
                contrast.kind.map_or("all", HoleKind::name).to_owned(),
                contrast.n.to_string(),
                points(&contrast.compile_success),
                format!("{} : {}", contrast.mcnemar.only_b, contrast.mcnemar.only_a),
                p_value(contrast.mcnemar.p),
                points(&contrast.exact_match),
                points(&contrast.edit_similarity),
                points(&contrast.characters_saved),
                contrast.bits_per_byte.map_or_else(
                    || "–".to_owned(),
                    |bits| format!("{:+.2} [{:+.2}, {:+.2}]", bits.value, bits.low, bits.high),
                ),
            ]);
        }
        let mut out =
            format!("A: {}, {} holes\nB: {}, {} holes\n\n", self.system_a, self.holes_a, self.system_b, self.holes_b);
        out.push_str(&super::table::aligned(&rows));
        let verdict = match self.verdict {
            Verdict::Better => "B compiles more often than A",
            Verdict::Worse => "B compiles less often than A",
            Verdict::NotShown => "no difference is shown",
        };
        let _ = writeln!(out, "\n{verdict} (brackets are 95 % intervals, resampled by crate or file)");
        out
    }
}

impl Verdict {
    fn of(contrast: &Contrast) -> Self {
        let is_shown = contrast.compile_success.excludes_zero() && contrast.mcnemar.p < 0.05;
        match contrast.compile_success.value {
            value if is_shown && value > 0.0 => Self::Better,
            value if is_shown && value < 0.0 => Self::Worse,
            _ => Self::NotShown,
        }
    }
}

/// A report may come from any file: its columns are checked before they are indexed.
fn outcomes<'a>(run: char, report: &'a Report, name: &str) -> Result<&'a Outcomes, CompareError> {
    let pairs = &report.pairs;
    let n = pairs.ids.len();
    let outcomes = pairs.systems.iter().find(|outcomes| outcomes.system == name).ok_or_else(|| {
        let systems: Vec<&str> = pairs.systems.iter().map(|outcomes| outcomes.system.as_str()).collect();
        CompareError::System { run, name: name.to_owned(), systems: systems.join(", ") }
    })?;
    let lengths = [
        pairs.clusters.len(),
        pairs.kinds.len(),
        pairs.chars.len(),
        pairs.bytes.len(),
        outcomes.saved.len(),
        outcomes.bits.len(),
        outcomes.compile.len(),
        outcomes.exact.len(),
        outcomes.similarity.len(),
    ];
    if lengths.iter().any(|&length| length != n) {
        return Err(CompareError::Columns { run });
    }
    Ok(outcomes)
}
