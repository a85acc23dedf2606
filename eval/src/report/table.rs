//! The report for a terminal.

use std::fmt::Write;

use super::{Cluster, Difference, Dropped, Report, SystemScores};
use crate::holes::HoleKind;
use crate::stats::Value;

/// Kinds for which the table shows exact matches too: what an editor asks for at each key.
const LINES: [HoleKind; 2] = [HoleKind::NextLine, HoleKind::RestOfLine];
/// A pair that is shown in addition to the product's gains: what counting adds to copying.
const MEMORY_OVER_COPY: (&str, &str) = ("nanochat-without-model", "copy-longest-match");

impl Report {
    /// The report as text for a terminal. Shares are in percent, brackets are 95 % intervals.
    pub fn table(&self) -> String {
        let mut out = self.quality();
        out.push('\n');
        out.push_str(&self.by_kind());
        out.push('\n');
        for kind in self.kinds().into_iter().filter(|kind| LINES.contains(kind)) {
            out.push_str(&self.of_lines(kind));
            out.push('\n');
        }
        out.push_str(&self.speed());
        self.write_coverage(&mut out);
        self.write_differences(&mut out);
        self.write_dropped(&mut out);
        let clusters = match self.clusters {
            Cluster::Crate => "crates",
            Cluster::File => "files",
        };
        let _ = writeln!(
            out,
            "brackets and ± are 95 % intervals, resampled by {clusters}; suite {}, seed {}; known in addition to the file: {}; {}; \
             sandbox: {}",
            self.suite,
            self.seed,
            self.known.words(),
            self.rustc,
            self.sandbox
        );
        out
    }

    fn quality(&self) -> String {
        let header =
            ["all holes", "n", "compiles %", "exact %", "similar %", "bits/byte", "saved %", "answered %", "parses %"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        let has_tests = self.systems.iter().any(|system| system.tests_pass.is_some());
        rows[0].extend(has_tests.then(|| "tests %".to_owned()));
        for system in self.systems.iter().filter(|system| system.kind.is_none()) {
            let bits = system.bits_per_byte.map_or_else(dash, |bits| interval(&bits, 1.0, 2));
            let mut row = vec![
                system.name.clone(),
                system.n.to_string(),
                percent(&system.compile_success),
                percent(&system.exact_match),
                percent(&system.edit_similarity),
                bits,
                percent(&system.characters_saved),
                format!("{:.1}", 100.0 * system.answered.value),
                format!("{:.1}", 100.0 * system.parse_rate.value),
            ];
            row.extend(has_tests.then(|| system.tests_pass.as_ref().map_or_else(dash, percent)));
            rows.push(row);
        }
        aligned(&rows)
    }

    fn by_kind(&self) -> String {
        let kinds = self.kinds();
        let n = |kind: HoleKind| {
            let of_kind = self.systems.iter().find(|system| system.kind == Some(kind));
            of_kind.map_or(0, |system| system.n)
        };
        let header = kinds.iter().map(|kind| format!("{} ({})", kind.name(), n(*kind)));
        let mut rows = vec![["compiles %".to_owned()].into_iter().chain(header).collect::<Vec<_>>()];
        for name in self.names() {
            let cell = |kind: &HoleKind| {
                let half = |system: &SystemScores| {
                    let value = system.compile_success;
                    format!("{:.1} ±{:.1}", 100.0 * value.value, 100.0 * value.half_width())
                };
                self.system(name, Some(*kind)).map_or_else(dash, half)
            };
            rows.push([name.to_owned()].into_iter().chain(kinds.iter().map(cell)).collect());
        }
        aligned(&rows)
    }

    /// For one kind of line, what a user sees in addition to whether it compiles.
    fn of_lines(&self, kind: HoleKind) -> String {
        let header = [kind.name(), "exact %", "similar %", "saved %", "bits/byte"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        for system in self.systems.iter().filter(|system| system.kind == Some(kind)) {
            rows.push(vec![
                system.name.clone(),
                percent(&system.exact_match),
                percent(&system.edit_similarity),
                percent(&system.characters_saved),
                system.bits_per_byte.map_or_else(dash, |bits| interval(&bits, 1.0, 2)),
            ]);
        }
        aligned(&rows)
    }

    fn speed(&self) -> String {
        let mut rows = vec![["speed", "p50 ms", "p95 ms", "p99 ms", "tokens/s"].map(str::to_owned).to_vec()];
        for timings in self.timings.iter().filter(|timings| timings.kind.is_none()) {
            let ms = |value: &Value| interval(value, 1.0, 1);
            rows.push(vec![
                timings.system.clone(),
                ms(&timings.p50_ms),
                ms(&timings.p95_ms),
                ms(&timings.p99_ms),
                timings.tokens_per_s.map_or_else(dash, |rate| interval(&rate, 1.0, 0)),
            ]);
        }
        aligned(&rows)
    }

    /// A few points of each curve; JSON and HTML have the others.
    fn write_coverage(&self, out: &mut String) {
        let wanted = [0.3, 0.5, 0.8, 1.0];
        out.push('\n');
        for coverage in &self.coverage {
            let near = |wanted: f64| coverage.points.iter().find(|point| point.coverage >= wanted - 1e-9);
            let mut points: Vec<_> = wanted.into_iter().filter_map(near).collect();
            points.dedup();
            let text: Vec<String> = points
                .iter()
                .map(|point| {
                    let compiles = percent(&point.compile_success);
                    format!(
                        "{:.0} % → {} (confidence ≥ {:.2})",
                        100.0 * point.coverage,
                        compiles.trim(),
                        point.confidence
                    )
                })
                .collect();
            let _ =
                writeln!(out, "{}, most confident completions only, compiles %: {}", coverage.system, text.join("; "));
        }
    }

    fn write_differences(&self, out: &mut String) {
        let points = |value: &Value| {
            format!("{:+.1} [{:+.1}, {:+.1}]", 100.0 * value.value, 100.0 * value.low, 100.0 * value.high)
        };
        let reference = self.differences.first().map(|first| first.system.as_str());
        let is_told = |difference: &&Difference| {
            let pair = (difference.system.as_str(), difference.baseline.as_str());
            let is_line = difference.kind.is_none_or(|kind| LINES.contains(&kind));
            is_line && (Some(pair.0) == reference || pair == MEMORY_OVER_COPY)
        };
        let header = ["same holes, points", "n", "compiles", "only : only", "p", "exact", "saved", "bits/byte"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        for difference in self.differences.iter().filter(is_told) {
            let Difference { system, baseline, kind, n, compile_success, mcnemar, .. } = difference;
            let kind = kind.map_or("all", HoleKind::name);
            rows.push(vec![
                format!("{system} − {baseline}, {kind}"),
                n.to_string(),
                points(compile_success),
                format!("{} : {}", mcnemar.only_a, mcnemar.only_b),
                p_value(mcnemar.p),
                points(&difference.exact_match),
                points(&difference.characters_saved),
                difference
                    .bits_per_byte
                    .map_or_else(dash, |bits| format!("{:+.2} [{:+.2}, {:+.2}]", bits.value, bits.low, bits.high)),
            ]);
        }
        if rows.len() > 1 {
            out.push('\n');
            out.push_str(&aligned(&rows));
        }
    }

    fn write_dropped(&self, out: &mut String) {
        let Dropped { truth_degenerate, truth_fails, canary_compiles, empty_compiles, leaks } = self.dropped;
        let _ = writeln!(
            out,
            "\n{} holes of {} files of {} crates; {} tried, dropped: {empty_compiles} compile when empty, \
             {canary_compiles} with garbage, {truth_fails} not with the truth, {truth_degenerate} with a \
             degenerate truth, {leaks} seen in training",
            self.holes, self.files, self.crates, self.tried
        );
        for skipped in &self.skipped_crates {
            let _ = writeln!(out, "not measured: {} {}: {}", skipped.name, skipped.version, skipped.why);
        }
    }
}

/// A p value as it is printed.
pub(super) fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

fn dash() -> String {
    "–".to_owned()
}

fn percent(value: &Value) -> String {
    interval(value, 100.0, 1)
}

fn interval(Value { value, low, high }: &Value, scale: f64, n_digits: usize) -> String {
    format!("{:.n_digits$} [{:.n_digits$}, {:.n_digits$}]", scale * value, scale * low, scale * high)
}

/// Columns as wide as their widest cell; the first to the left, the others to the right.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}
