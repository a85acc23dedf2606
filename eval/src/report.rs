//! What a run found: figures by system and kind of hole, and all that was dropped on the way.

use std::fmt::Write;

use crate::holes::HoleKind;
use crate::metrics::Value;

/// What `eval` ends with. Fields are written in this order.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// Grows when a field changes its meaning.
    pub format: u32,
    /// Holes that passed the gates: what every figure below is about.
    pub holes: usize,
    /// Files that these holes lie in.
    pub files: usize,
    /// Holes that were cut.
    pub cut: usize,
    /// Holes that were drawn and went through the gates.
    pub tried: usize,
    /// Of those tried, how many each gate dropped.
    pub dropped: Dropped,
    /// Held-out files without a figure.
    pub skipped_files: SkippedFiles,
    /// In the order truth, empty, copy, then the others; within a system all holes first, then by kind.
    pub systems: Vec<System>,
    /// What a system gains over `copy-longest-match` on the same holes, all kinds together.
    pub differences: Vec<Difference>,
    /// Which holes were drawn.
    pub seed: u64,
    /// The compiler.
    pub rustc: String,
    /// What the sandbox held off.
    pub sandbox: String,
}

/// Holes that are no use for measuring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Dropped {
    /// The truth is itself a filler that scores 0, for example a `panic!`.
    pub truth_degenerate: usize,
    /// The truth does not compile in its place.
    pub truth_fails: usize,
    /// Garbage compiles: the compiler does not look there.
    pub canary_compiles: usize,
    /// Nothing at all compiles.
    pub empty_compiles: usize,
}

/// Held-out files that gave no holes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SkippedFiles {
    /// In no library or binary that `cargo check` builds: tests, examples, other platforms, ignored files.
    pub not_compiled: usize,
    /// Not parsed as a Rust file.
    pub not_parsed: usize,
}

/// One contestant on one kind of hole.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct System {
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
    /// Share of holes that were answered at all.
    pub answered: Value,
    /// Share of answers with which the file parses.
    pub parse_rate: Value,
    /// Milliseconds.
    pub latency_p50_ms: Value,
    /// Milliseconds.
    pub latency_p95_ms: Value,
    /// Answers that scored 0 for being a filler.
    pub degenerate: usize,
    /// Answers that the compiler did not finish in time; they scored 0.
    pub timed_out: usize,
}

/// A paired difference.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Difference {
    /// This system …
    pub system: String,
    /// … minus this one.
    pub baseline: String,
    /// In compile success.
    pub compile_success: Value,
    /// In exact match.
    pub exact_match: Value,
    /// In edit similarity.
    pub edit_similarity: Value,
}

impl Report {
    /// The report for a terminal: one line per system and kind, shares in percent with their 95 % intervals.
    pub fn table(&self) -> String {
        let percent = |value: &Value| {
            format!("{:5.1} [{:.1}, {:.1}]", 100.0 * value.value, 100.0 * value.low, 100.0 * value.high)
        };
        let header = [
            "system",
            "holes",
            "n",
            "compiles %",
            "exact %",
            "similar %",
            "answered %",
            "parses %",
            "p50 ms",
            "p95 ms",
        ];
        let mut rows = vec![header.map(str::to_owned)];
        for system in &self.systems {
            rows.push([
                system.name.clone(),
                system.kind.map_or("all", kind_name).to_owned(),
                system.n.to_string(),
                percent(&system.compile_success),
                percent(&system.exact_match),
                percent(&system.edit_similarity),
                format!("{:.1}", 100.0 * system.answered.value),
                format!("{:.1}", 100.0 * system.parse_rate.value),
                format!("{:.1}", system.latency_p50_ms.value),
                format!("{:.1}", system.latency_p95_ms.value),
            ]);
        }
        let mut out = aligned(&rows);
        let points = |value: &Value| {
            format!("{:+.1} [{:+.1}, {:+.1}]", 100.0 * value.value, 100.0 * value.low, 100.0 * value.high)
        };
        for Difference { system, baseline, compile_success, exact_match, .. } in &self.differences {
            let _ = writeln!(
                out,
                "\n{system} − {baseline}, same holes: compiles {} points, exact {} points",
                points(compile_success),
                points(exact_match)
            );
        }
        let Dropped { truth_degenerate, truth_fails, canary_compiles, empty_compiles } = self.dropped;
        let _ = writeln!(
            out,
            "\n{} holes of {} files; {} tried, dropped: {empty_compiles} compile when empty, {canary_compiles} with \
             garbage, {truth_fails} not with the truth, {truth_degenerate} are fillers themselves",
            self.holes, self.files, self.tried
        );
        let _ =
            writeln!(out, "brackets are 95 % intervals; seed {}; {}; sandbox: {}", self.seed, self.rustc, self.sandbox);
        out
    }
}

fn kind_name(kind: HoleKind) -> &'static str {
    match kind {
        HoleKind::Statement => "statement",
        HoleKind::LineTail => "line tail",
    }
}

/// Columns as wide as their widest cell; words to the left, figures to the right.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0 | 1 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}
