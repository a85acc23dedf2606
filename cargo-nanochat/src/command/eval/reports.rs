//! Where figures are written (stdout, a page, the committed baseline), and comparisons of runs.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use nanochat_eval::Report;
use nanochat_eval::record::Findings;
use nanochat_eval::report::{Baseline, Comparison, FORMAT, Moved, Verdict, html};
use nanochat_eval::system::PRODUCT;

use crate::exit::{InputError, Worse};
use crate::output::{Output, table};

/// Flags of the report.
#[derive(Debug, Args)]
#[command(next_help_heading = "Report")]
pub(super) struct ReportArgs {
    /// Write the report as a page with plots to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Replace the figures of this suite in a committed table, e.g. eval/baseline.csv
    #[arg(long, value_name = "FILE")]
    write_baseline: Option<PathBuf>,
}

/// `eval compare`.
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// A run: the folder of its records, or its report in JSON
    #[arg(value_name = "A")]
    a: PathBuf,
    /// Another run, which is compared with A
    #[arg(value_name = "B", required_unless_present = "baseline")]
    b: Option<PathBuf>,
    /// The system of A to compare [default: nanochat, or the last system]
    #[arg(long, value_name = "NAME", requires = "b")]
    system_a: Option<String>,
    /// The system of B to compare [default: as for A]
    #[arg(long, value_name = "NAME", requires = "b")]
    system_b: Option<String>,
    /// Show where A differs from this committed table
    #[arg(long, value_name = "FILE", conflicts_with = "b")]
    baseline: Option<PathBuf>,
}

impl ReportArgs {
    /// Prints the report, and writes the page and the baseline if they were asked for.
    pub(super) fn show(&self, output: &Output, report: &Report) -> anyhow::Result<()> {
        if let Some(path) = &self.html {
            std::fs::write(path, html::page(report)).with_context(|| format!("writing {}", path.display()))?;
            output.note(format_args!("the page is in {}", path.display()));
        }
        if let Some(path) = &self.write_baseline {
            let mut baseline = if path.exists() { read_baseline(path)? } else { Baseline::default() };
            baseline.replace(report);
            std::fs::write(path, baseline.text()).with_context(|| format!("writing {}", path.display()))?;
        }
        if output.is_json() { output.json(report) } else { output.data(&report.table()) }
    }
}

/// Compares two runs, or one with the committed table. A run B that is worse is an error of its own.
pub(super) fn compare(output: &Output, args: &CompareArgs) -> anyhow::Result<()> {
    let a = read_report(&args.a)?;
    if let Some(path) = &args.baseline {
        return show_moved(output, &read_baseline(path)?.moved(&a));
    }
    let b = read_report(args.b.as_deref().context("there is a run to compare with")?)?;
    let named = |name: &Option<String>, report: &Report| {
        let product = report.names().find(|name| *name == PRODUCT).or_else(|| report.names().last());
        name.clone().or(product.map(str::to_owned)).unwrap_or_default()
    };
    let (system_a, system_b) = (named(&args.system_a, &a), named(&args.system_b, &b));
    let comparison = Comparison::of(&a, &system_a, &b, &system_b).map_err(|error| InputError(error.to_string()))?;
    if output.is_json() {
        output.json(&comparison)?
    } else {
        output.data(&comparison.table())?
    }
    match comparison.verdict {
        Verdict::Worse => Err(Worse(format!("{system_b} of B compiles less often than {system_a} of A")).into()),
        Verdict::Better | Verdict::NotShown => Ok(()),
    }
}

/// The report of a run's folder, or of a file.
pub(super) fn read_report(path: &Path) -> anyhow::Result<Report> {
    if path.is_dir() {
        return Ok(Report::of(&Findings::load(path)?));
    }
    let bad = |why: String| InputError(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|error| bad(format!("is neither the folder of a run nor its report in JSON ({error})")))?;
    if report.format != FORMAT {
        let why = format!("its format is {}, not {FORMAT}; evaluate again", report.format);
        return Err(bad(why).into());
    }
    Ok(report)
}

fn read_baseline(path: &Path) -> anyhow::Result<Baseline> {
    let bad = |why: String| InputError(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    Ok(Baseline::parse(&text).map_err(|error| bad(error.to_string()))?)
}

fn show_moved(output: &Output, moved: &[Moved]) -> anyhow::Result<()> {
    if output.is_json() {
        return moved.iter().try_for_each(|moved| output.json(moved));
    }
    if moved.is_empty() {
        return output.data("the same as the baseline\n");
    }
    let mut rows = vec![["system, holes", "before %", "now %"].map(str::to_owned).to_vec()];
    for Moved { row: [_, system, kind], before, after } in moved {
        let cell = |value: &Option<nanochat_eval::stats::Value>| {
            let figure = |value: &nanochat_eval::stats::Value| {
                format!("{:.1} [{:.1}, {:.1}]", value.value, value.low, value.high)
            };
            value.as_ref().map_or_else(|| "–".to_owned(), figure)
        };
        rows.push(vec![format!("{system}, {kind}"), cell(before), cell(after)]);
    }
    output.data(&table(&rows))
}
