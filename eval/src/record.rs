//! The records that the stages hand to each other, one JSON object per line of a run's files.
//!
//! ```text
//! gates.jsonl → generated.jsonl (+ timings.jsonl) → scored.jsonl → Report
//! ```
//!
//! Every record but [`Timing`] is the same in every run with the same plan, byte for byte.

pub(crate) mod log;

use serde::{Deserialize, Serialize};

use crate::holes::Hole;
use crate::suite::Knowledge;

pub use log::RecordError;

/// What became of a hole at the gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterOutcome {
    /// It is used.
    Passed,
    /// The truth is itself a filler that scores 0, for example a `panic!`.
    TruthDegenerate,
    /// The truth does not compile in its place.
    TruthFails,
    /// Garbage compiles: the compiler does not look there.
    CanaryCompiles,
    /// Nothing at all compiles.
    EmptyCompiles,
    /// The checkpoint was trained on it, or the memory holds it.
    Leaks,
}

/// A line of `gates.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filtered {
    /// One hole that was tried.
    Hole {
        /// The hole.
        hole: Hole,
        /// Whether it is used, and if not, why.
        #[serde(rename = "gate")]
        outcome: FilterOutcome,
    },
    /// Closes the holes of a project.
    Project(ProjectSummary),
}

/// What was found in one project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectSummary {
    /// Its name.
    pub name: String,
    /// Its version, where it has one.
    pub version: String,
    /// Why nothing was measured on it; `None` if something was.
    pub skipped: Option<String>,
    /// Holes that were cut.
    pub n_cut: usize,
    /// Files that no library or binary is compiled from: tests, examples, other platforms, ignored files.
    pub files_not_compiled: usize,
    /// Files that do not parse.
    pub files_not_parsed: usize,
    /// Times that the compiler was run for the gates.
    pub n_runs: usize,
}

/// A line of `generated.jsonl`: one answer of one system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generated {
    /// [`Hole::id`].
    pub hole_id: String,
    /// The system's name.
    pub system: String,
    /// Its answer, up to the end of one thing of the hole's kind; `None` where it stayed silent.
    pub text: Option<String>,
    /// Tokens generated, shown or not.
    pub tokens: Option<usize>,
    /// How sure it is, 0..=1.
    pub confidence: Option<f64>,
    /// Bits that it needs for the truth.
    pub bits: Option<f64>,
    /// Bytes of the truth that `bits` are about.
    pub bytes: Option<usize>,
}

/// A line of `timings.jsonl`: what differs from run to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// [`Hole::id`].
    pub hole_id: String,
    /// The system's name.
    pub system: String,
    /// From the hole to its answer.
    pub latency_ms: f64,
}

/// A line of `scored.jsonl`: what became of one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scored {
    /// [`Hole::id`].
    pub hole_id: String,
    /// The system's name.
    pub system: String,
    /// It was answered at all.
    pub answered: bool,
    /// The file compiles with it, and it is no degenerate filler.
    pub compile: bool,
    /// It is the truth, white space at its end aside.
    pub exact: bool,
    /// 1 − edit distance / longer length; 0 for silence.
    pub edit_similarity: f64,
    /// The file parses with it; `None` for silence.
    pub parse: Option<bool>,
    /// Characters of whole lines, accepted from the first on, that are those of the truth.
    pub saved_chars: usize,
    /// Characters of the truth.
    pub truth_chars: usize,
    /// The tests pass with it; `None` where there are no tests.
    pub tests_pass: Option<bool>,
    /// It is a filler that helps nobody.
    pub degenerate: bool,
    /// The compiler did not finish in time.
    pub timed_out: bool,
    /// As the system stated it.
    pub confidence: Option<f64>,
}

/// Everything that a report is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// The suite's name.
    pub suite: String,
    /// Which holes were drawn.
    pub seed: u64,
    /// The compiler.
    pub rustc: String,
    /// What the sandbox held off.
    pub sandbox: String,
    /// What systems knew besides the file at hand.
    pub known: Knowledge,
    /// In the suite's order.
    pub projects: Vec<ProjectSummary>,
    /// Every hole that was tried, in the suite's order, and what became of it.
    pub filtered: Vec<(Hole, FilterOutcome)>,
    /// The systems' names in the order in which they are shown.
    pub systems: Vec<String>,
    /// By project, system and hole.
    pub generated: Vec<Generated>,
    /// In no order.
    pub timings: Vec<Timing>,
    /// As `generated`.
    pub scored: Vec<Scored>,
}

impl Findings {
    /// The holes that are used.
    pub fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.filtered.iter().filter(|(_, outcome)| *outcome == FilterOutcome::Passed).map(|(hole, _)| hole)
    }
}
