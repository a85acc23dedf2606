//! The results of a run: figures by system and kind of hole, and everything that was left out.
//!
//! ```text
//! records → Report → table | JSON | HTML page | rows of the baseline
//! Report A, Report B → Comparison
//! ```
//!
//! A report is a function of the records. Only `timings` and `latency_curves` differ from run to run.

mod build;
mod table;
mod compare;
mod baseline;
pub mod html;

use serde::{Deserialize, Serialize};

use crate::holes::HoleKind;
use crate::stats::{McNemar, Value};
use crate::suite::Knowledge;

pub use baseline::{Baseline, BaselineError, Moved};
pub use compare::{CompareError, Comparison, Contrast, Verdict};

/// Grows when a field changes its meaning.
pub const FORMAT: u32 = 3;

/// The result of `eval`, as text, JSON and HTML. JSON has the fields in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The format of the JSON, [`FORMAT`].
    pub format: u32,
    /// Name of the suite.
    pub suite: String,
    /// Seed of the draw of holes.
    pub seed: u64,
    /// The compiler's version line.
    pub rustc: String,
    /// The layers of the sandbox, in words.
    pub sandbox: String,
    /// What systems knew in addition to the current file.
    pub known: Knowledge,
    /// Number of holes that passed the filters; all figures are about these.
    pub holes: usize,
    /// Number of files that these holes are cut from.
    pub files: usize,
    /// Number of crates that these files belong to.
    pub crates: usize,
    /// The unit that intervals resample.
    pub clusters: Cluster,
    /// Number of holes that were cut, used or not.
    pub cut: usize,
    /// Number of holes that were drawn and went through the filters.
    pub tried: usize,
    /// How many of the tried holes each filter dropped.
    pub dropped: Dropped,
    /// Files that gave no holes, counted by reason.
    pub skipped_files: SkippedFiles,
    /// Crates that gave no holes, with the reason.
    pub skipped_crates: Vec<SkippedCrate>,
    /// Scores in the run's order; within a system all holes first, then by kind.
    pub systems: Vec<SystemScores>,
    /// Paired differences between systems other than the controls on the same holes; those of the product (or, without
    /// it, of the last system) first.
    pub differences: Vec<Difference>,
    /// Coverage curves of the systems that state a confidence.
    pub coverage: Vec<Coverage>,
    /// Reliability of the same systems.
    pub reliability: Vec<Reliability>,
    /// Latencies by system; within a system all holes first, then by kind.
    pub timings: Vec<Timings>,
    /// Distribution of latency by system, all kinds together.
    pub latency_curves: Vec<LatencyCurve>,
    /// Results hole by hole, for paired comparisons with other runs.
    pub pairs: Pairs,
}

/// The unit that is resampled for intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cluster {
    /// Whole crates, where there are several.
    Crate,
    /// Whole files, where there is only one crate.
    File,
}

/// Numbers of holes that the filters dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The truth itself is a degenerate completion, for example a `panic!`.
    pub truth_degenerate: usize,
    /// The file does not compile with the truth in the hole.
    pub truth_fails: usize,
    /// Garbage compiles: the compiler does not check this code.
    pub canary_compiles: usize,
    /// The file compiles with the hole left empty.
    pub empty_compiles: usize,
    /// The checkpoint was trained on this code.
    pub leaks: usize,
}

/// Files that gave no holes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedFiles {
    /// In no library or binary that `cargo check` builds: tests, examples, other platforms, ignored files.
    pub not_compiled: usize,
    /// Not parsed as a Rust file.
    pub not_parsed: usize,
}

/// A crate that gave no holes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedCrate {
    /// The crate's name.
    pub name: String,
    /// The crate's version.
    pub version: String,
    /// Why it gave no holes, in words.
    pub why: String,
}

/// The scores of one system on one kind of hole. Shares are 0..=1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemScores {
    /// The system's name.
    pub name: String,
    /// The kind of hole; absent for all kinds together.
    pub kind: Option<HoleKind>,
    /// Number of holes.
    pub n: usize,
    /// Share of holes where the completion compiles and is not degenerate.
    pub compile_success: Value,
    /// Share of holes where the completion equals the truth, trailing white space aside.
    pub exact_match: Value,
    /// Mean over holes of 1 − edit distance / longer length; no completion counts 0.
    pub edit_similarity: Value,
    /// Bits per byte of the truth given the text before it, for systems that give probabilities.
    pub bits_per_byte: Option<Value>,
    /// Characters of leading whole lines that equal the truth's, as a share of all characters of the truth: what a user
    /// saves who accepts line by line and knows what is right.
    pub characters_saved: Value,
    /// Share of holes for which a completion was shown.
    pub answered: Value,
    /// Share of completions with which the file parses.
    pub parse_rate: Value,
    /// Share of holes with tests where they pass.
    pub tests_pass: Option<Value>,
    /// Completions that scored 0 because they are degenerate.
    pub degenerate: usize,
    /// Completions that the compiler did not finish in time; they scored 0.
    pub timed_out: usize,
}

/// A paired difference between two systems on the same holes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The system whose gain this is.
    pub system: String,
    /// The system that it is compared with; all figures are `system` minus `baseline`.
    pub baseline: String,
    /// The kind of hole; absent for all kinds together.
    pub kind: Option<HoleKind>,
    /// Number of holes that both systems were asked to fill.
    pub n: usize,
    /// Difference in compile success.
    pub compile_success: Value,
    /// Difference in exact match.
    pub exact_match: Value,
    /// Difference in edit similarity.
    pub edit_similarity: Value,
    /// Difference in bits per byte, where both give probabilities; less is better.
    pub bits_per_byte: Option<Value>,
    /// Difference in characters saved, as a share of all characters of the truth.
    pub characters_saved: Value,
    /// McNemar's test on compile success; `a` is `system`.
    pub mcnemar: McNemar,
}

/// How good a system is if it shows only its most confident completions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Name of the system.
    pub system: String,
    /// Points by rising coverage, up to the share of holes for which a completion was shown.
    pub points: Vec<CoveragePoint>,
}

/// One threshold on the confidence, and the scores above it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoveragePoint {
    /// Share of holes for which a completion is shown.
    pub coverage: f64,
    /// The threshold: the lowest confidence among these completions.
    pub confidence: f64,
    /// Share of these completions that compile.
    pub compile_success: Value,
    /// Share of these completions that equal the truth.
    pub exact_match: Value,
}

/// How well a system's stated confidence agrees with how often it is right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Name of the system.
    pub system: String,
    /// Equally large bins of completions by rising confidence.
    pub bins: Vec<ReliabilityBin>,
}

/// Completions of similar confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Number of completions.
    pub n: usize,
    /// Mean of the stated confidences.
    pub confidence: f64,
    /// Share of these completions that compile.
    pub compile_success: Value,
    /// Share of these completions that equal the truth.
    pub exact_match: Value,
}

/// How long a system took for its completions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Name of the system.
    pub system: String,
    /// The kind of hole; absent for all kinds together.
    pub kind: Option<HoleKind>,
    /// Median of milliseconds from the request to the completion.
    pub p50_ms: Value,
    /// 95th percentile in milliseconds.
    pub p95_ms: Value,
    /// 99th percentile in milliseconds.
    pub p99_ms: Value,
    /// Tokens generated per second, the prompt's time included, for systems that count them.
    pub tokens_per_s: Option<Value>,
}

/// Quantiles of latency at 0, 5, … 100 % of the completions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyCurve {
    /// Name of the system.
    pub system: String,
    /// The quantiles in milliseconds, ascending.
    pub ms: Vec<f64>,
}

/// Results hole by hole, in columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pairs {
    /// [`Hole::id`](crate::holes::Hole::id) of each hole.
    pub ids: Vec<String>,
    /// Cluster of each hole: its crate or its file.
    pub clusters: Vec<String>,
    /// Kind of each hole.
    pub kinds: Vec<HoleKind>,
    /// Length of each hole's truth in characters.
    pub chars: Vec<usize>,
    /// Length of each hole's truth in bytes.
    pub bytes: Vec<usize>,
    /// Results of each system, in the run's order.
    pub systems: Vec<Outcomes>,
}

/// One system's results, in the order of [`Pairs::ids`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Name of the system.
    pub system: String,
    /// `1` where it compiles, `0` where not, `-` where it was not asked.
    pub compile: String,
    /// The same for exact matches.
    pub exact: String,
    /// Edit similarity in thousandths; 0 where it was not asked.
    pub similarity: Vec<u16>,
    /// Characters saved; 0 where it was not asked.
    pub saved: Vec<usize>,
    /// Bits for the truth, rounded to a thousandth, for systems that give probabilities.
    pub bits: Vec<Option<f64>>,
}

impl Report {
    /// Scores of a system on one kind of hole, or on all.
    pub fn system(&self, name: &str, kind: Option<HoleKind>) -> Option<&SystemScores> {
        self.systems.iter().find(|system| system.name == name && system.kind == kind)
    }

    /// Names of the systems, in the run's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.systems.iter().filter(|system| system.kind.is_none()).map(|system| system.name.as_str())
    }

    /// The kinds of holes that occur, in the order of tables.
    pub fn kinds(&self) -> Vec<HoleKind> {
        let mut kinds: Vec<HoleKind> = self.systems.iter().filter_map(|system| system.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

#[cfg(test)]
pub(crate) mod tests;
