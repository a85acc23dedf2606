//! `tune`: which routines and piece sizes suit this machine, measured and remembered.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use nanochat_engine::Config;
use nanochat_engine::kernels::autotune::Candidate;
use nanochat_engine::tune::{self, Effort, Machine, Measured};
use serde::Serialize;

use crate::context::Context;
use crate::exit::Interrupted;
use crate::interrupt::Interrupt;
use crate::output::table;
use crate::progress::Bar;

/// Measure which routines are fastest here, and use them from now on
///
/// Times the routines that this processor has, in several block sizes, on the shapes of the workspace's checkpoint, in
/// about two seconds. The table is kept for this processor, number of cores and version; `complete`, `eval` and `lsp`
/// use it. It decides how fast suggestions come, not what they are. The server measures by itself while nobody types:
/// once, and again when the table is a month old or the machine's speed has changed by half.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  cargo nanochat tune
  cargo nanochat tune --shape d512l6h8kv2ff1536v12288n1 --dry-run -v
  cargo nanochat tune --message-format json | jq '.candidates[] | select(.picked)'

stdout: what was picked; with -v, all candidates. json: one object with token_us, prompt_batch, was_busy,
candidates and table. stderr: progress.
Writes tune.toml in ~/.cache/nanochat or $NANOCHAT_HOME, whole or not at all.")]
pub(crate) struct TuneArgs {
    /// Measure for this shape, not for the checkpoint's: width, layers, heads, key/value heads, MLP width, vocabulary,
    /// residual streams
    #[arg(long, value_name = "SHAPE")]
    shape: Option<Config>,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Measure and show the table, but do not write it
    #[arg(long)]
    dry_run: bool,
}

/// The object that `--message-format json` prints.
#[derive(Debug, Serialize)]
struct Report {
    shape: String,
    threads: usize,
    cpu: String,
    cores: usize,
    /// Microseconds for all ternary products of one token.
    token_us: f64,
    prompt_batch: usize,
    /// Whether the load by other programs prevented the threads from a parallel speed-up.
    was_busy: bool,
    candidates: Vec<Row>,
    /// The file that was written; `None` with `--dry-run`.
    table: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Row {
    rows: usize,
    cols: usize,
    per_token: usize,
    routine: &'static str,
    superblocks_per_piece: usize,
    gops_one: f64,
    gops_many: f64,
    picked: bool,
}

pub(crate) fn run(context: &Context, args: &TuneArgs) -> anyhow::Result<()> {
    let output = &context.output;
    let (config, n_threads) = match &args.shape {
        Some(shape) => (shape.clone(), args.threads),
        None => {
            let workspace = context.current_workspace()?;
            let checkpoint = context.store.open_checkpoint(&context.store.checkpoint_path(&workspace.sources.root))?;
            (checkpoint.manifest.config, args.threads.or(workspace.settings.threads))
        }
    };
    let interrupt = Interrupt::install()?;
    let workload = tune::workload(&config, n_threads.unwrap_or(0));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let effort = Effort { time: tune::TIME, now };
    let mut bar = Bar::new(output);
    let mut progress = |part: f64| bar.set(output, (part * 100.0) as usize, 100, "measured", "per cent");
    let measured = tune::measure(&workload, effort, &mut progress, interrupt.cancel());
    bar.clear();
    let Measured { tuned, candidates } = measured.map_err(|_| Interrupted("stopped; nothing is written"))?;

    if tuned.was_busy {
        output.note("the machine is busy: block sizes are the defaults; run this again when it is not");
    }
    let path = context.store.tune_path();
    if args.dry_run {
        output.note(format_args!("not written to {}", path.display()));
    } else {
        tune::remember(&path, tuned.clone())?;
        output.note(format_args!("written to {}; a running server uses it from its next load on", path.display()));
    }
    let Machine { cpu, n_cores, .. } = Machine::this();
    let report = Report {
        shape: config.to_string(),
        threads: tuned.n_threads,
        cpu,
        cores: n_cores,
        token_us: tuned.token_us,
        prompt_batch: tuned.prompt_batch,
        was_busy: tuned.was_busy,
        candidates: candidates.iter().map(Row::new).collect(),
        table: (!args.dry_run).then_some(path),
    };
    if output.is_json() { output.json(&report) } else { output.data(&human(&report, output.is_verbose())) }
}

impl Row {
    fn new(candidate: &Candidate) -> Self {
        let Candidate { product, plan, gops_one, gops_many, is_picked } = *candidate;
        Self {
            rows: product.rows,
            cols: product.cols,
            per_token: product.n,
            routine: plan.isa.name(),
            superblocks_per_piece: plan.superblocks_per_piece,
            gops_one,
            gops_many,
            picked: is_picked,
        }
    }
}

/// The candidates that were picked, or all of them with a mark at those.
fn human(report: &Report, is_verbose: bool) -> String {
    let heading = ["product", "routine", "rows a piece", "GOPS, 1 row", "GOPS, 16 rows", ""];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for row in report.candidates.iter().filter(|row| is_verbose || row.picked) {
        rows.push(vec![
            format!("{} × {}, {} times", row.rows, row.cols, row.per_token),
            row.routine.to_owned(),
            (64 * row.superblocks_per_piece).to_string(),
            format!("{:.0}", row.gops_one),
            format!("{:.0}", row.gops_many),
            if is_verbose && row.picked { "picked" } else { "" }.to_owned(),
        ]);
    }
    let Report { shape, threads, cpu, token_us, prompt_batch, .. } = report;
    format!(
        "{shape}, {threads} threads, {cpu}\n{}{token_us:.0} µs for the ternary products of a token; prompts in batches \
         of {prompt_batch} tokens\n",
        table(&rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_what_was_picked_and_verbosely_the_rest() {
        let row = |superblocks_per_piece, picked| Row {
            rows: 768,
            cols: 512,
            per_token: 6,
            routine: "avx2",
            superblocks_per_piece,
            gops_one: 201.4,
            gops_many: 250.6,
            picked,
        };
        let report = Report {
            shape: "d512".to_owned(),
            threads: 2,
            cpu: "Z80".to_owned(),
            cores: 2,
            token_us: 52.3,
            prompt_batch: 96,
            was_busy: false,
            candidates: vec![row(1, false), row(2, true)],
            table: None,
        };
        let text = human(&report, false);
        assert!(text.contains("768 × 512, 6 times") && text.contains("128") && text.contains("201"), "{text}");
        assert_eq!((text.lines().count(), human(&report, true).lines().count()), (4, 5));
        assert!(human(&report, true).lines().nth(3).is_some_and(|line| line.ends_with("picked")));
    }
}
