//! The plots of a report's page.

use super::svg::{Anchor, Axis, Svg};
use crate::holes::HoleKind;
use crate::report::{Coverage, Difference, LatencyCurve, Reliability, Report, SystemScores};
use crate::stats::Value;
use crate::system::PRODUCT;

const WIDTH: f64 = 860.0;
/// Height of one line of a plot with lines of marks.
const LINE: f64 = 17.0;
/// Room for names at the left, and at the right end of a plot.
const LEFT: f64 = 190.0;
const RIGHT: f64 = 40.0;
/// Size of the nearly square plots, two in a row.
const PANEL: (f64, f64) = (420.0, 330.0);

/// Which style a system has, everywhere on the page.
pub(super) fn style(report: &Report, system: &str) -> usize {
    shown(report).iter().position(|name| *name == system).unwrap_or(0)
}

/// Systems that plots show, the product first. The controls are left out: they would only mark the ends of the scale.
pub(super) fn shown(report: &Report) -> Vec<&str> {
    let mut names: Vec<&str> = report.names().filter(|name| !["truth", "empty"].contains(name)).collect();
    names.sort_by_key(|name| *name != PRODUCT); // stable
    names
}

/// Compile success of each system, by kind of hole.
pub(super) fn by_kind(report: &Report) -> String {
    let systems = shown(report);
    let kinds: Vec<Option<HoleKind>> = [None].into_iter().chain(report.kinds().into_iter().map(Some)).collect();
    let band = LINE * systems.len() as f64 + 16.0;
    let height = band * kinds.len() as f64 + 44.0;
    let mut svg = Svg::new(WIDTH, height);
    let x = Axis { domain: (0.0, 1.0), pixels: (LEFT, WIDTH - RIGHT), is_log: false };
    percent_grid(&mut svg, &x, height - 34.0);
    for (i, kind) in kinds.iter().enumerate() {
        let top = 6.0 + band * i as f64;
        if i > 0 {
            svg.line("rule", (0.0, top - 4.0), (WIDTH - RIGHT, top - 4.0));
        }
        let row = |name: &str| report.system(name, *kind);
        let n = systems.iter().find_map(|name| row(name)).map_or(0, |system| system.n);
        svg.text("name", (0.0, top + 14.0), Anchor::Start, kind.map_or("all holes", HoleKind::name));
        svg.text("label", (0.0, top + 30.0), Anchor::Start, &format!("{n} holes"));
        for (j, name) in systems.iter().enumerate() {
            let y = top + 10.0 + LINE * j as f64;
            if let Some(SystemScores { compile_success, .. }) = row(name) {
                let label = format!("{name}, {}: {}", kind.map_or("all", HoleKind::name), percents(compile_success));
                whisker(&mut svg, &x, y, compile_success, j, &label);
            }
        }
    }
    let title = "Compile success by kind of hole";
    svg.text("label", ((LEFT + WIDTH - RIGHT) / 2.0, height - 2.0), Anchor::Middle, "completions that compile, %");
    svg.finish(
        "by-kind",
        title,
        "For each kind of hole, each system's share of completions that compile, with its interval.",
    )
}

/// What the product gains over each other system.
pub(super) fn gains(differences: &[&Difference], styles: &[usize]) -> String {
    let height = 26.0 * differences.len() as f64 + 54.0;
    let mut svg = Svg::new(WIDTH, height);
    let reach = differences
        .iter()
        .flat_map(|difference| [difference.compile_success.low.abs(), difference.compile_success.high.abs()])
        .fold(0.05, f64::max);
    let step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].into_iter().find(|step| reach / step <= 5.0).unwrap_or(0.5);
    let ends = (reach / step).ceil() * step;
    let x = Axis { domain: (-ends, ends), pixels: (LEFT, WIDTH - RIGHT), is_log: false };
    let n_steps = (ends / step).round() as i32;
    for i in -n_steps..=n_steps {
        let at = x.at(f64::from(i) * step);
        svg.line(if i == 0 { "axis" } else { "grid" }, (at, 4.0), (at, height - 38.0));
        svg.text("tick", (at, height - 24.0), Anchor::Middle, &format!("{:+.0}", 100.0 * f64::from(i) * step));
    }
    for (i, (difference, style)) in differences.iter().zip(styles).enumerate() {
        let y = 18.0 + 26.0 * i as f64;
        svg.text("name", (0.0, y + 4.0), Anchor::Start, &format!("− {}", difference.baseline));
        let value = difference.compile_success;
        let label = format!("{} − {}: {} points", difference.system, difference.baseline, signed(&value));
        whisker(&mut svg, &x, y, &value, *style, &label);
    }
    svg.text(
        "label",
        ((LEFT + WIDTH - RIGHT) / 2.0, height - 4.0),
        Anchor::Middle,
        "points of compile success, same holes",
    );
    svg.finish("gains", "Gain over each other system", "Paired differences of compile success with their intervals.")
}

/// From one system to another, by kind of hole.
pub(super) fn before_after(report: &Report, before: &str, after: &str) -> String {
    let kinds: Vec<Option<HoleKind>> = [None].into_iter().chain(report.kinds().into_iter().map(Some)).collect();
    let height = 28.0 * kinds.len() as f64 + 46.0;
    let mut svg = Svg::new(WIDTH, height);
    let x = Axis { domain: (0.0, 1.0), pixels: (LEFT, WIDTH - RIGHT), is_log: false };
    percent_grid(&mut svg, &x, height - 34.0);
    for (i, kind) in kinds.iter().enumerate() {
        let y = 18.0 + 28.0 * i as f64;
        svg.text("name", (0.0, y + 4.0), Anchor::Start, kind.map_or("all holes", HoleKind::name));
        let (Some(a), Some(b)) = (report.system(before, *kind), report.system(after, *kind)) else { continue };
        let (from, to) = (a.compile_success.value, b.compile_success.value);
        svg.line(if to >= from { "up" } else { "down" }, (x.at(from), y), (x.at(to), y));
        svg.mark(style(report, before), (x.at(from), y), &format!("{before}: {}", percents(&a.compile_success)));
        svg.mark(style(report, after), (x.at(to), y), &format!("{after}: {}", percents(&b.compile_success)));
    }
    svg.text("label", ((LEFT + WIDTH - RIGHT) / 2.0, height - 2.0), Anchor::Middle, "completions that compile, %");
    svg.finish("before-after", "Before and after", "Compile success by kind of hole, before and after training.")
}

/// Share of completions that compile, if only the most confident are shown.
pub(super) fn coverage(report: &Report, curves: &[Coverage]) -> String {
    let mut svg = Svg::new(PANEL.0, PANEL.1);
    let (x, y) = panel(&mut svg, "holes that are answered, %", "of these compile, %");
    for curve in curves {
        let style = style(report, &curve.system);
        let at = |figure: fn(&Value) -> f64| -> Vec<(f64, f64)> {
            curve.points.iter().map(|point| (x.at(point.coverage), y.at(figure(&point.compile_success)))).collect()
        };
        if curves.len() <= 3 {
            svg.band(
                &format!("band f{}", style % super::svg::N_STYLES),
                &at(|value| value.low),
                &at(|value| value.high),
            );
        }
        svg.path(&stroke(style), &at(|value| value.value), &curve.system);
        for (point, position) in curve.points.iter().zip(at(|value| value.value)) {
            let (share, compiles) = (100.0 * point.coverage, percents(&point.compile_success));
            svg.mark(style, position, &format!("{}: {share:.0} % answered, {compiles} compile", curve.system));
        }
    }
    svg.finish(
        "coverage",
        "Precision at coverage",
        "If only the most confident completions are shown, fewer holes are filled and more of the completions compile.",
    )
}

/// Reliability diagram: stated confidence against the share that is right.
pub(super) fn reliability(report: &Report, curves: &[Reliability]) -> String {
    let mut svg = Svg::new(PANEL.0, PANEL.1);
    let (x, y) = panel(&mut svg, "stated confidence, %", "right, %");
    svg.line("diagonal", (x.at(0.0), y.at(0.0)), (x.at(1.0), y.at(1.0)));
    for curve in curves {
        let style = style(report, &curve.system);
        for (is_exact, value) in [
            (false, (|bin| bin.compile_success) as fn(&crate::report::ReliabilityBin) -> Value),
            (true, |bin| bin.exact_match),
        ] {
            let positions: Vec<_> =
                curve.bins.iter().map(|bin| (x.at(bin.confidence), y.at(value(bin).value))).collect();
            let what = if is_exact { "exact" } else { "compiles" };
            let class = if is_exact { format!("line s{} faint", style % super::svg::N_STYLES) } else { stroke(style) };
            svg.path(&class, &positions, &format!("{}, {what}", curve.system));
            for (bin, position) in curve.bins.iter().zip(positions) {
                let value = value(bin);
                if !is_exact {
                    svg.line(
                        &format!("whisker s{}", style % super::svg::N_STYLES),
                        (position.0, y.at(value.low)),
                        (position.0, y.at(value.high)),
                    );
                    let label = format!(
                        "{}: stated {:.0} %, {} compile",
                        curve.system,
                        100.0 * bin.confidence,
                        percents(&value)
                    );
                    svg.mark(style, position, &label);
                }
            }
        }
    }
    svg.finish("reliability", "Reliability", "Confidence that systems state, against the share that compiles and that is exact; on the diagonal they are right as often as they say.")
}

/// Cumulative share of completions by latency.
pub(super) fn latency(report: &Report, curves: &[&LatencyCurve]) -> String {
    let mut svg = Svg::new(WIDTH, 300.0);
    let all = || curves.iter().flat_map(|curve| curve.ms.iter().copied()).filter(|ms| *ms > 0.0);
    let low = 10f64.powf(all().fold(f64::INFINITY, f64::min).max(1e-3).log10().floor());
    let high = 10f64.powf(all().fold(low * 10.0, f64::max).log10().ceil());
    let x = Axis { domain: (low, high), pixels: (60.0, WIDTH - RIGHT), is_log: true };
    let y = Axis { domain: (0.0, 1.0), pixels: (250.0, 10.0), is_log: false };
    let mut decade = low;
    while decade <= high * 1.0001 {
        svg.line("grid", (x.at(decade), 10.0), (x.at(decade), 250.0));
        let text = if decade >= 1000.0 { format!("{} s", decade / 1000.0) } else { format!("{decade} ms") };
        svg.text("tick", (x.at(decade), 266.0), Anchor::Middle, &text);
        decade *= 10.0;
    }
    for share in [0.0, 0.25, 0.5, 0.75, 0.95] {
        svg.line("grid", (60.0, y.at(share)), (WIDTH - RIGHT, y.at(share)));
        svg.text("tick", (52.0, y.at(share) + 4.0), Anchor::End, &format!("{:.0}", 100.0 * share));
    }
    for curve in curves {
        let last = curve.ms.len().saturating_sub(1).max(1) as f64;
        let points: Vec<_> = curve.ms.iter().enumerate().map(|(i, ms)| (x.at(*ms), y.at(i as f64 / last))).collect();
        svg.path(&stroke(style(report, &curve.system)), &points, &curve.system);
        if let Some(middle) = points.get(points.len() / 2) {
            let label = format!("{}: median {:.1} ms", curve.system, curve.ms[curve.ms.len() / 2]);
            svg.mark(style(report, &curve.system), *middle, &label);
        }
    }
    svg.text("label", ((60.0 + WIDTH - RIGHT) / 2.0, 290.0), Anchor::Middle, "time until the completion");
    svg.upright((14.0, 130.0), "completions that have arrived, %");
    svg.finish(
        "latency",
        "Latency",
        "Cumulative share of completions by the time they took, on a logarithmic scale; marks are at the medians.",
    )
}

/// Axes of a square-ish plot, both 0 to 100 %.
fn panel(svg: &mut Svg, horizontal: &str, vertical: &str) -> (Axis, Axis) {
    let x = Axis { domain: (0.0, 1.0), pixels: (56.0, PANEL.0 - 12.0), is_log: false };
    let y = Axis { domain: (0.0, 1.0), pixels: (PANEL.1 - 50.0, 10.0), is_log: false };
    for i in 0..=5 {
        let share = f64::from(i) / 5.0;
        let text = format!("{:.0}", 100.0 * share);
        svg.line("grid", (x.at(share), y.at(0.0)), (x.at(share), y.at(1.0)));
        svg.line("grid", (x.at(0.0), y.at(share)), (x.at(1.0), y.at(share)));
        svg.text("tick", (x.at(share), y.at(0.0) + 16.0), Anchor::Middle, &text);
        svg.text("tick", (x.at(0.0) - 7.0, y.at(share) + 4.0), Anchor::End, &text);
    }
    svg.text("label", ((x.at(0.0) + x.at(1.0)) / 2.0, PANEL.1 - 10.0), Anchor::Middle, horizontal);
    svg.upright((14.0, (y.at(0.0) + y.at(1.0)) / 2.0), vertical);
    (x, y)
}

fn percent_grid(svg: &mut Svg, x: &Axis, bottom: f64) {
    for i in 0..=5 {
        let at = x.at(f64::from(i) / 5.0);
        svg.line("grid", (at, 2.0), (at, bottom));
        svg.text("tick", (at, bottom + 15.0), Anchor::Middle, &format!("{}", 20 * i));
    }
}

fn whisker(svg: &mut Svg, x: &Axis, y: f64, value: &Value, style: usize, label: &str) {
    svg.line(&format!("whisker s{}", style % super::svg::N_STYLES), (x.at(value.low), y), (x.at(value.high), y));
    svg.mark(style, (x.at(value.value), y), label);
}

fn stroke(style: usize) -> String {
    format!("line s{}", style % super::svg::N_STYLES)
}

pub(super) fn percents(value: &Value) -> String {
    format!("{:.1} % [{:.1}, {:.1}]", 100.0 * value.value, 100.0 * value.low, 100.0 * value.high)
}

pub(super) fn signed(value: &Value) -> String {
    format!("{:+.1} [{:+.1}, {:+.1}]", 100.0 * value.value, 100.0 * value.low, 100.0 * value.high)
}
