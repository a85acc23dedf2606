//! The records that the stages hand to each other, one JSON object per line of a run's files.
//!
//! ```text
//! gates.jsonl → generated.jsonl (+ timings.jsonl) → scored.jsonl → Report
//! ```
//!
//! Every record but [`Timing`] is the same in every run with the same plan, byte for byte.

use serde::{Deserialize, Serialize};

use crate::holes::HoleKind;
use crate::known::Knowledge;

/// A place to fill: the bytes `start..end` of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hole {
    /// 16 hex digits that name the hole: of its project, file, place and text.
    pub id: String,
    /// The crate (or workspace) it is cut from: what intervals are clustered by.
    #[serde(rename = "crate")]
    pub project: String,
    /// Relative to the project's root, with `/`.
    pub file: String,
    /// What was cut out.
    pub kind: HoleKind,
    /// Byte offset of the cursor.
    pub start: usize,
    /// Byte offset of what follows.
    pub end: usize,
    /// Line of the cursor, from 1.
    pub line: usize,
    /// Column of the cursor in characters, from 1.
    pub col: usize,
    /// The bytes of the outermost function around it, signature and body: errors there are this hole's.
    pub function: (usize, usize),
    /// blake3 of the file up to the cursor, 16 hex digits.
    pub prefix_hash: String,
    /// Of the file after the hole.
    pub suffix_hash: String,
    /// Of what was cut out.
    pub truth_hash: String,
}

/// What became of a hole at the gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
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
pub enum Gated {
    /// One hole that was tried.
    Hole {
        /// The hole.
        hole: Hole,
        /// Whether it is used, and if not, why.
        gate: Gate,
    },
    /// Closes the holes of a project.
    Project(Project),
}

/// What was found in one project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
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

/// What a contestant says to a hole. Everything but `text` may be absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Text for the hole; `None` where it stays silent.
    pub text: Option<String>,
    /// Tokens generated, shown or not.
    pub tokens: Option<usize>,
    /// How sure it is, 0..=1.
    pub confidence: Option<f64>,
}

/// A line of `generated.jsonl`: one answer of one system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generated {
    /// [`Hole::id`].
    pub hole_id: String,
    /// The contestant's name.
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
    /// The contestant's name.
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
    /// The contestant's name.
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
    /// As the contestant stated it.
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
    /// What contestants knew besides the file at hand.
    pub known: Knowledge,
    /// In the suite's order.
    pub projects: Vec<Project>,
    /// Every hole that was tried, in the suite's order, and what became of it.
    pub gated: Vec<(Hole, Gate)>,
    /// The contestants' names in the order in which they are shown.
    pub systems: Vec<String>,
    /// By project, system and hole.
    pub generated: Vec<Generated>,
    /// In no order.
    pub timings: Vec<Timing>,
    /// As `generated`.
    pub scored: Vec<Scored>,
}

impl From<Option<String>> for Answer {
    fn from(text: Option<String>) -> Self {
        Self { text, ..Self::default() }
    }
}

impl Findings {
    /// The holes that are used.
    pub fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.gated.iter().filter(|(_, gate)| *gate == Gate::Passed).map(|(hole, _)| hole)
    }
}
