//! The report as an HTML page: one file, no scripts, nothing from the network, light or dark as the reader's system is.

mod plots;
mod svg;

use std::fmt::Write;

use crate::holes::HoleKind;
use crate::report::{Cluster, Difference, Report, SystemScores};
use crate::stats::Value;
use crate::system::PRODUCT;
use plots::{percents, signed};
use svg::{Svg, escaped};

const STYLE: &str = include_str!("html/style.css");
/// The name of a base checkpoint among the systems.
const BASE: &str = "base";

/// Renders the whole page.
pub fn page(report: &Report) -> String {
    let mut out = String::new();
    let title = format!("Does it compile? {} holes of {}", report.holes, report.suite);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<title>{0}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n<h1>{0}</h1>\n<p class=\"soft\">Code was cut out of files that compile; each system filled it \
         in, and the compiler judged. Holes that compile when empty or with garbage are not counted. Brackets and \
         whiskers are 95 % intervals, resampled by {1}.</p>\n",
        escaped(&title),
        clusters(report)
    );
    cards(&mut out, report);
    section(&mut out, "Compile success by kind of hole", "", &[plots::by_kind(report)], Some(legend(report)));
    gains(&mut out, report);
    let has_base = report.names().any(|name| name == BASE) && report.names().any(|name| name == PRODUCT);
    if has_base {
        let note = "What training on this workspace changed.";
        section(&mut out, "Before and after", note, &[plots::before_after(report, BASE, PRODUCT)], None);
    }
    confidence(&mut out, report);
    let curves: Vec<_> =
        report.latency_curves.iter().filter(|curve| plots::shown(report).contains(&curve.system.as_str())).collect();
    if !curves.is_empty() {
        section(&mut out, "Latency", "", &[plots::latency(report, &curves)], Some(legend(report)));
    }
    tables(&mut out, report);
    about(&mut out, report);
    out.push_str("</body>\n</html>\n");
    out
}

fn clusters(report: &Report) -> &'static str {
    match report.clusters {
        Cluster::Crate => "crate",
        Cluster::File => "file",
    }
}

/// The headline figures.
fn cards(out: &mut String, report: &Report) {
    let Some(name) = headline(report) else { return };
    let Some(system) = report.system(name, None) else { return };
    let mut cards = vec![
        (
            percent(&system.compile_success),
            format!("of {name}’s completions compile {}", range(&system.compile_success)),
        ),
        (percent(&system.exact_match), format!("are exactly the truth {}", range(&system.exact_match))),
        (percent(&system.characters_saved), format!("of all characters saved {}", range(&system.characters_saved))),
    ];
    let against =
        report.differences.iter().find(|d| d.kind.is_none() && d.system == name && d.baseline.contains("copy"));
    if let Some(difference) = against {
        let value = difference.compile_success;
        let range = format!("[{:+.1}, {:+.1}]", 100.0 * value.low, 100.0 * value.high);
        cards.push((format!("{:+.1}", 100.0 * value.value), format!("points over copying the longest match {range}")));
    }
    out.push_str("<div class=\"cards\">");
    for (figure, text) in cards {
        let _ = write!(out, "<div class=\"card\"><b>{}</b><span>{}</span></div>", escaped(&figure), escaped(&text));
    }
    out.push_str("</div>\n");
}

fn headline(report: &Report) -> Option<&str> {
    report.names().find(|name| *name == PRODUCT).or_else(|| plots::shown(report).last().copied())
}

fn section(out: &mut String, title: &str, note: &str, plots: &[String], legend: Option<String>) {
    let _ = writeln!(out, "<h2>{title}</h2>");
    if !note.is_empty() {
        let _ = writeln!(out, "<p class=\"soft\">{note}</p>");
    }
    out.push_str(&legend.unwrap_or_default());
    for plot in plots {
        let _ = writeln!(out, "<figure>{plot}</figure>");
    }
}

fn legend(report: &Report) -> String {
    legend_of(report, plots::shown(report).into_iter())
}

fn legend_of<'a>(report: &Report, names: impl Iterator<Item = &'a str>) -> String {
    let entry = |name: &str| {
        let mut mark = Svg::new(14.0, 14.0);
        mark.mark(plots::style(report, name), (7.0, 7.0), name);
        // The name is next to it, so a screen reader skips the mark itself.
        let mark = mark
            .finish("legend", "", "")
            .replace("role=\"img\" aria-labelledby=\"legend-title legend-desc\"", "aria-hidden=\"true\"");
        let mark = mark.replace("<title id=\"legend-title\"></title><desc id=\"legend-desc\"></desc>", "");
        format!("<li>{mark}{}</li>", escaped(name))
    };
    let entries: String = names.map(entry).collect();
    format!("<ul class=\"legend\">{entries}</ul>\n")
}

fn gains(out: &mut String, report: &Report) {
    let differences: Vec<&Difference> = report.differences.iter().filter(|d| d.kind.is_none()).collect();
    let Some(first) = differences.first() else { return };
    let differences: Vec<&Difference> = differences.iter().copied().filter(|d| d.system == first.system).collect();
    let styles: Vec<usize> = differences.iter().map(|d| plots::style(report, &d.baseline)).collect();
    let title = format!("What {} gains over each other", escaped(&first.system));
    let note = "Paired on the same holes. Right of the line it compiles more often; a whisker that crosses the line shows nothing.";
    section(out, &title, note, &[plots::gains(&differences, &styles)], None);
    let mut rows = Vec::new();
    for d in differences {
        rows.push(vec![
            format!("{} − {}", escaped(&d.system), escaped(&d.baseline)),
            d.n.to_string(),
            cell(&signed(&d.compile_success)),
            format!("{} : {}", d.mcnemar.only_a, d.mcnemar.only_b),
            if d.mcnemar.p < 0.001 { "&lt; 0.001".to_owned() } else { format!("{:.3}", d.mcnemar.p) },
            cell(&signed(&d.exact_match)),
            d.bits_per_byte
                .map_or_else(dash, |bits| cell(&format!("{:+.2} [{:+.2}, {:+.2}]", bits.value, bits.low, bits.high))),
        ]);
    }
    let header = [
        "difference",
        "holes",
        "compiles, points",
        "only it : only the other",
        "McNemar p",
        "exact, points",
        "bits/byte",
    ];
    table(out, &header, &rows);
}

fn confidence(out: &mut String, report: &Report) {
    if report.coverage.is_empty() && report.reliability.is_empty() {
        return;
    }
    let sure = |name: &str| report.coverage.iter().any(|curve| curve.system == name);
    let legend = legend_of(report, plots::shown(report).into_iter().filter(|name| sure(name)));
    out.push_str("<div class=\"two\">\n<div>");
    let note = "A system may show nothing: here only its most confident completions count.";
    section(out, "Precision at coverage", note, &[plots::coverage(report, &report.coverage)], Some(legend.clone()));
    out.push_str("</div>\n<div>");
    let note = "Solid: compiles. Dotted: exactly the truth. On the diagonal, confidence is as good as its word.";
    section(out, "Reliability", note, &[plots::reliability(report, &report.reliability)], Some(legend));
    out.push_str("</div>\n</div>\n");
}

fn tables(out: &mut String, report: &Report) {
    out.push_str("<h2>All figures</h2>\n");
    let kinds: Vec<Option<HoleKind>> = [None].into_iter().chain(report.kinds().into_iter().map(Some)).collect();
    for kind in kinds {
        let open = if kind.is_none() { " open" } else { "" };
        let _ = writeln!(out, "<details{open}><summary>{}</summary>", kind.map_or("all holes", HoleKind::name));
        let rows: Vec<Vec<String>> =
            report.systems.iter().filter(|system| system.kind == kind).map(|system| row(report, system)).collect();
        let header = [
            "system",
            "holes",
            "compiles %",
            "exact %",
            "similar %",
            "bits/byte",
            "saved %",
            "answered %",
            "parses %",
            "tests %",
            "degenerate",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "tokens/s",
        ];
        table(out, &header, &rows);
        out.push_str("</details>\n");
    }
}

fn row(report: &Report, system: &SystemScores) -> Vec<String> {
    let share = |value: &Value| cell(&percents(value).replace(" %", ""));
    let timings = report.timings.iter().find(|t| t.system == system.name && t.kind == system.kind);
    let ms =
        |value: fn(&crate::report::Timings) -> Value| timings.map_or_else(dash, |t| format!("{:.1}", value(t).value));
    vec![
        escaped(&system.name),
        system.n.to_string(),
        share(&system.compile_success),
        share(&system.exact_match),
        share(&system.edit_similarity),
        system
            .bits_per_byte
            .map_or_else(dash, |bits| cell(&format!("{:.2} [{:.2}, {:.2}]", bits.value, bits.low, bits.high))),
        share(&system.characters_saved),
        format!("{:.1}", 100.0 * system.answered.value),
        format!("{:.1}", 100.0 * system.parse_rate.value),
        system.tests_pass.as_ref().map_or_else(dash, share),
        system.degenerate.to_string(),
        ms(|t| t.p50_ms),
        ms(|t| t.p95_ms),
        ms(|t| t.p99_ms),
        timings.and_then(|t| t.tokens_per_s).map_or_else(dash, |rate| format!("{:.0}", rate.value)),
    ]
}

fn about(out: &mut String, report: &Report) {
    let d = report.dropped;
    let dropped = format!(
        "{} tried; dropped: {} compile when empty, {} with garbage, {} not with the truth, {} with a degenerate truth, {} seen in training",
        report.tried, d.empty_compiles, d.canary_compiles, d.truth_fails, d.truth_degenerate, d.leaks
    );
    let mut entries = vec![
        ("suite", format!("{}, seed {}", report.suite, report.seed)),
        ("holes", format!("{} of {} files of {} crates", report.holes, report.files, report.crates)),
        ("hole filters", dropped),
        ("compiler", report.rustc.clone()),
        ("sandbox", report.sandbox.clone()),
    ];
    let skipped =
        report.skipped_crates.iter().map(|skipped| format!("{} {}: {}", skipped.name, skipped.version, skipped.why));
    let skipped: Vec<String> = skipped.collect();
    if !skipped.is_empty() {
        entries.push(("not measured", skipped.join("; ")));
    }
    out.push_str("<h2>About this run</h2>\n<dl>");
    for (term, text) in entries {
        let _ = write!(out, "<dt>{term}</dt><dd>{}</dd>", escaped(&text));
    }
    out.push_str("</dl>\n");
}

/// Writes a table; `rows` hold HTML already, `header` holds text.
fn table(out: &mut String, header: &[&str], rows: &[Vec<String>]) {
    out.push_str("<div class=\"scroll\"><table><thead><tr>");
    for name in header {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escaped(name));
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{cell}</td>");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>\n");
}

/// A figure with its interval in small.
fn cell(text: &str) -> String {
    match text.split_once(" [") {
        Some((figure, range)) => format!("{} <small>[{}</small>", escaped(figure), escaped(range)),
        None => escaped(text),
    }
}

fn percent(value: &Value) -> String {
    format!("{:.1} %", 100.0 * value.value)
}

fn range(value: &Value) -> String {
    format!("[{:.1}, {:.1}]", 100.0 * value.low, 100.0 * value.high)
}

fn dash() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::findings;

    #[test]
    fn a_page_needs_nothing_from_elsewhere() {
        let page = page(&Report::of(&findings(1)));
        for foreign in ["<script", "http:", "https:", "url(", "@import", "<link", "<img", "<iframe"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn every_plot_has_a_name_and_words_for_it() {
        let page = page(&Report::of(&findings(1)));
        let plots: Vec<&str> = page.split("<svg ").skip(1).filter(|plot| plot.contains("role=\"img\"")).collect();
        assert_eq!(plots.len(), 5);
        for plot in plots {
            let id = plot.split_once("aria-labelledby=\"").expect("a label").1.split('-').next().expect("an id");
            assert!(plot.contains(&format!("<title id=\"{id}")) && plot.contains("<desc id="), "{id}");
        }
    }

    #[test]
    fn a_page_is_well_formed() {
        let mut findings = findings(1);
        findings.rustc = "rustc <1.95> & \"co\"".to_owned();
        let page = page(&Report::of(&findings));
        let mut open: Vec<&str> = Vec::new();
        for tag in page.split('<').skip(1) {
            let tag = tag.split('>').next().expect("a tag ends");
            let name = tag.trim_start_matches('/').split([' ', '/']).next().expect("a name");
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') && !["!doctype", "meta"].contains(&name) {
                open.push(name);
            }
        }
        assert_eq!(open, [""; 0]);
        assert!(page.contains("rustc &lt;1.95&gt; &amp; &quot;co&quot;"));
    }

    #[test]
    fn names_of_systems_cannot_carry_markup() {
        let mut findings = findings(1);
        let evil = "<script>alert(1)</script>";
        findings.systems.push(evil.to_owned());
        let mut copies = findings.scored.clone();
        copies.retain(|scored| scored.system == "nanochat");
        copies.iter_mut().for_each(|scored| scored.system = evil.to_owned());
        findings.scored.extend(copies);
        assert!(!page(&Report::of(&findings)).contains("<script"));
    }

    #[test]
    fn a_base_checkpoint_is_shown_before_and_after() {
        let mut findings = findings(1);
        let rename = |system: &mut String| {
            if system == "nanochat-without-memory" {
                *system = BASE.to_owned();
            }
        };
        findings.systems.iter_mut().for_each(rename);
        findings.scored.iter_mut().for_each(|scored| rename(&mut scored.system));
        assert!(page(&Report::of(&findings)).contains("Before and after"));
    }

    #[test]
    fn a_run_without_a_hole_has_a_page() {
        let report = Report::of(&crate::record::Findings { systems: vec!["truth".to_owned()], ..Default::default() });
        assert!(page(&report).contains("0 holes"));
    }

    #[test]
    fn the_same_records_give_the_same_page() {
        assert_eq!(page(&Report::of(&findings(3))), page(&Report::of(&findings(3))));
    }
}
