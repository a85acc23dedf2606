//! What a run found: figures by system and kind of hole, and all that was dropped on the way.
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

/// What `eval` ends with. Fields are written in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// What was evaluated on.
    pub suite: String,
    /// Which holes were drawn.
    pub seed: u64,
    /// The compiler.
    pub rustc: String,
    /// What the sandbox held off.
    pub sandbox: String,
    /// What systems knew besides the file at hand.
    pub known: Knowledge,
    /// Holes that passed the gates: what every figure below is about.
    pub holes: usize,
    /// Files that these holes lie in.
    pub files: usize,
    /// Crates that these files belong to.
    pub crates: usize,
    /// What intervals are clustered by.
    pub clusters: Cluster,
    /// Holes that were cut.
    pub cut: usize,
    /// Holes that were drawn and went through the gates.
    pub tried: usize,
    /// Of those tried, how many each gate dropped.
    pub dropped: Dropped,
    /// Files without a figure.
    pub skipped_files: SkippedFiles,
    /// Crates without a figure.
    pub skipped_crates: Vec<SkippedCrate>,
    /// In the run's order; within a system all holes first, then by kind.
    pub systems: Vec<SystemScores>,
    /// What each system but the controls gains over each other on the same holes; the product's (or, without one, the last
    /// system's) gains first.
    pub differences: Vec<Difference>,
    /// Of the systems that say how sure they are.
    pub coverage: Vec<Coverage>,
    /// Of the same.
    pub reliability: Vec<Reliability>,
    /// By system; within a system all holes first, then by kind.
    pub timings: Vec<Timings>,
    /// By system, all kinds together.
    pub latency_curves: Vec<LatencyCurve>,
    /// Hole by hole, for paired comparisons with other runs.
    pub pairs: Pairs,
}

/// What is taken as a unit when figures are resampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cluster {
    /// Where there are several.
    Crate,
    /// Of the only crate.
    File,
}

/// Holes that are no use for measuring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The truth is itself a filler that scores 0, for example a `panic!`.
    pub truth_degenerate: usize,
    /// The truth does not compile in its place.
    pub truth_fails: usize,
    /// Garbage compiles: the compiler does not look there.
    pub canary_compiles: usize,
    /// Nothing at all compiles.
    pub empty_compiles: usize,
    /// The checkpoint was trained on it, or the memory holds it.
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
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Why.
    pub why: String,
}

/// One system on one kind of hole. Shares are 0..=1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemScores {
    /// Its name.
    pub name: String,
    /// The kind of hole; absent for all kinds together.
    pub kind: Option<HoleKind>,
    /// Holes.
    pub n: usize,
    /// Share of holes where the answer compiles and is not degenerate.
    pub compile_success: Value,
    /// Share of holes where the answer is the truth, white space at its end aside.
    pub exact_match: Value,
    /// Mean over holes of 1 − edit distance / longer length; silence counts 0.
    pub edit_similarity: Value,
    /// Bits that the truth costs, given what stands before it, per byte; of systems that give probabilities.
    pub bits_per_byte: Option<Value>,
    /// Characters of leading whole lines that are the truth's, of all characters of the truth: what a user saves who
    /// accepts line by line and knows what is right.
    pub characters_saved: Value,
    /// Share of holes that were answered at all.
    pub answered: Value,
    /// Share of answers with which the file parses.
    pub parse_rate: Value,
    /// Share of holes with tests where they pass.
    pub tests_pass: Option<Value>,
    /// Answers that scored 0 for being a filler.
    pub degenerate: usize,
    /// Answers that the compiler did not finish in time; they scored 0.
    pub timed_out: usize,
}

/// A paired difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// This system …
    pub system: String,
    /// … minus this one.
    pub baseline: String,
    /// The kind of hole; absent for all kinds together.
    pub kind: Option<HoleKind>,
    /// Holes that both filled.
    pub n: usize,
    /// In compile success.
    pub compile_success: Value,
    /// In exact match.
    pub exact_match: Value,
    /// In edit similarity.
    pub edit_similarity: Value,
    /// In bits per byte, where both give probabilities; less is better.
    pub bits_per_byte: Option<Value>,
    /// In characters saved, of all characters of the truth.
    pub characters_saved: Value,
    /// On compile success; `a` is `system`.
    pub mcnemar: McNemar,
}

/// How good the surest answers of a system are, where it stays silent on the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Whose.
    pub system: String,
    /// By rising coverage, up to the share of holes that were answered.
    pub points: Vec<CoveragePoint>,
}

/// A threshold on the confidence, and what it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoveragePoint {
    /// Share of holes that are answered.
    pub coverage: f64,
    /// Of the least sure of these answers.
    pub confidence: f64,
    /// Share of these answers that compile.
    pub compile_success: Value,
    /// Share of these answers that are the truth.
    pub exact_match: Value,
}

/// Whether a system is right as often as it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Whose.
    pub system: String,
    /// Answers by rising confidence, as many in each.
    pub bins: Vec<ReliabilityBin>,
}

/// Answers of like confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Answers.
    pub n: usize,
    /// Their mean confidence.
    pub confidence: f64,
    /// Share that compiles.
    pub compile_success: Value,
    /// Share that is the truth.
    pub exact_match: Value,
}

/// How long answers took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Whose.
    pub system: String,
    /// The kind of hole; absent for all kinds together.
    pub kind: Option<HoleKind>,
    /// Milliseconds from the hole to its answer.
    pub p50_ms: Value,
    /// Milliseconds.
    pub p95_ms: Value,
    /// Milliseconds.
    pub p99_ms: Value,
    /// Tokens generated per second, the prompt's time included; of systems that count them.
    pub tokens_per_s: Option<Value>,
}

/// Latencies at 0, 5, … 100 % of the answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyCurve {
    /// Whose.
    pub system: String,
    /// Milliseconds.
    pub ms: Vec<f64>,
}

/// Outcomes hole by hole, in columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pairs {
    /// The holes' names.
    pub ids: Vec<String>,
    /// The cluster of each.
    pub clusters: Vec<String>,
    /// The kind of each.
    pub kinds: Vec<HoleKind>,
    /// Characters of each one's truth.
    pub chars: Vec<usize>,
    /// Bytes of each one's truth.
    pub bytes: Vec<usize>,
    /// One entry per system.
    pub systems: Vec<Outcomes>,
}

/// One system's outcomes, in the order of [`Pairs::ids`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Whose.
    pub system: String,
    /// `1` where it compiles, `0` where not, `-` where it was not asked.
    pub compile: String,
    /// The same of exact matches.
    pub exact: String,
    /// Edit similarity in thousandths; 0 where it was not asked.
    pub similarity: Vec<u16>,
    /// Characters saved; 0 where it was not asked.
    pub saved: Vec<usize>,
    /// Bits that the truth costs, to a thousandth; of systems that give probabilities.
    pub bits: Vec<Option<f64>>,
}

impl Report {
    /// The row of a system and kind.
    pub fn system(&self, name: &str, kind: Option<HoleKind>) -> Option<&SystemScores> {
        self.systems.iter().find(|system| system.name == name && system.kind == kind)
    }

    /// Names of the systems, in the run's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.systems.iter().filter(|system| system.kind.is_none()).map(|system| system.name.as_str())
    }

    /// Kinds of holes that occur.
    pub fn kinds(&self) -> Vec<HoleKind> {
        let mut kinds: Vec<HoleKind> = self.systems.iter().filter_map(|system| system.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

#[cfg(test)]
pub(crate) mod tests;
