//! The records that the stages of a run write and read, one JSON object per line.
//!
//! ```text
//! gates.jsonl → generated.jsonl (+ timings.jsonl) → scored.jsonl → Report
//! ```
//!
//! Every record but [`Timing`] is byte for byte the same in every run of the same plan.

pub(crate) mod log;

use serde::{Deserialize, Serialize};

use crate::holes::Hole;
use crate::suite::Knowledge;

pub use log::RecordError;

/// Whether a hole passes the hole filters, and if not, the first filter that drops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterOutcome {
    /// The hole is used.
    Passed,
    /// The truth itself is a degenerate completion, which would score 0, for example a `panic!`.
    TruthDegenerate,
    /// The file does not compile with the truth in the hole.
    TruthFails,
    /// Garbage compiles: the compiler does not check this code.
    CanaryCompiles,
    /// The file compiles with the hole left empty.
    EmptyCompiles,
    /// The checkpoint was trained on this code.
    Leaks,
}

/// A line of `gates.jsonl`: a hole that went through the filters, or the end of a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filtered {
    /// One hole that was tried.
    Hole {
        /// The hole as it was cut.
        hole: Hole,
        /// Whether it is used, and if not, why; `gate` in the file.
        #[serde(rename = "gate")]
        outcome: FilterOutcome,
    },
    /// Closes the holes of a project.
    Project(ProjectSummary),
}

/// Counts of one project, written after its holes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectSummary {
    /// The project's name.
    pub name: String,
    /// The project's version, or empty.
    pub version: String,
    /// Why nothing was measured on it; `None` if something was.
    pub skipped: Option<String>,
    /// Number of holes that were cut from its files.
    pub n_cut: usize,
    /// Files that no library or binary is compiled from: tests, examples, other platforms, ignored files.
    pub files_not_compiled: usize,
    /// Files that do not parse.
    pub files_not_parsed: usize,
    /// How often the compiler was run for the filters.
    pub n_runs: usize,
}

/// A line of `generated.jsonl`: one system's completion of one hole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generated {
    /// The hole's [`Hole::id`].
    pub hole_id: String,
    /// Name of the system.
    pub system: String,
    /// The completion, cut to one unit of the hole's kind; `None` where the system showed nothing.
    pub text: Option<String>,
    /// Tokens generated, shown or not.
    pub tokens: Option<usize>,
    /// The system's confidence that the completion is right, 0..=1.
    pub confidence: Option<f64>,
    /// Bits that the system needs to encode the truth.
    pub bits: Option<f64>,
    /// Bytes of the truth that `bits` are about.
    pub bytes: Option<usize>,
}

/// A line of `timings.jsonl`: what differs from run to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// The hole's [`Hole::id`].
    pub hole_id: String,
    /// Name of the system.
    pub system: String,
    /// Milliseconds from the request to the completion.
    pub latency_ms: f64,
}

/// A line of `scored.jsonl`: the scores of one completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scored {
    /// The hole's [`Hole::id`].
    pub hole_id: String,
    /// Name of the system.
    pub system: String,
    /// The system showed a completion at all.
    pub answered: bool,
    /// The file compiles with it, and it is not degenerate.
    pub compile: bool,
    /// It equals the truth, trailing white space aside.
    pub exact: bool,
    /// 1 − edit distance / longer length; 0 without a completion.
    pub edit_similarity: f64,
    /// The file parses with it; `None` without a completion.
    pub parse: Option<bool>,
    /// Characters of the leading whole lines that equal the truth's.
    pub saved_chars: usize,
    /// Length of the truth in characters.
    pub truth_chars: usize,
    /// The tests pass with it; `None` where there are no tests.
    pub tests_pass: Option<bool>,
    /// It may compile and yet helps nobody, see [`FilterOutcome::TruthDegenerate`].
    pub degenerate: bool,
    /// The compiler did not finish in time.
    pub timed_out: bool,
    /// The system's confidence, 0..=1.
    pub confidence: Option<f64>,
}

/// All records of a run, from which a report is computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
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
    /// Counts of each project, in the suite's order.
    pub projects: Vec<ProjectSummary>,
    /// Every hole that was tried, in the suite's order, and whether it is used.
    pub filtered: Vec<(Hole, FilterOutcome)>,
    /// Names of the systems in the order of the tables.
    pub systems: Vec<String>,
    /// Completions, sorted by project, system and hole.
    pub generated: Vec<Generated>,
    /// Latencies, in no particular order.
    pub timings: Vec<Timing>,
    /// Scores, sorted as `generated`.
    pub scored: Vec<Scored>,
}

impl Findings {
    /// The holes that passed the filters.
    pub fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.filtered.iter().filter(|(_, outcome)| *outcome == FilterOutcome::Passed).map(|(hole, _)| hole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_earlier_runs_read_and_are_written_alike() {
        let hole = r#"{"id":"0123456789abcdef","crate":"a","file":"src/lib.rs","kind":"next_line","start":4,"end":9,"line":1,"col":5,"function":[0,12],"prefix_hash":"00","suffix_hash":"11","truth_hash":"22"}"#;
        let project = r#"{"project":{"name":"a","version":"1.0.0","skipped":null,"n_cut":9,"files_not_compiled":0,"files_not_parsed":0,"n_runs":3}}"#;
        for line in [format!(r#"{{"hole":{{"hole":{hole},"gate":"canary_compiles"}}}}"#), project.to_owned()] {
            let read: Filtered = serde_json::from_str(&line).expect("a line of gates.jsonl");
            assert_eq!(serde_json::to_string(&read).expect("it is plain data"), line);
        }
    }
}
