//! `eval`: compile success on held-out code. Each group of flags is in a file with the code that reads it.

mod reports;
mod sandbox;
mod suite;
mod systems;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use nanochat_eval::run::Audit;
use nanochat_eval::system::System;
use nanochat_eval::{Event, Plan, Report, evaluate_and_audit, merge};

use crate::context::Context;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::Bar;
use reports::{CompareArgs, ReportArgs, compare, read_report};
use sandbox::SandboxArgs;
use suite::SuiteArgs;
use systems::SystemArgs;

/// Measure compile success on held-out code
///
/// Cuts holes into code that training has not seen, fills them with the model, the model without its memory, the
/// memory without the model, and baselines (the truth, nothing, a random line of the file, a copy of the longest match,
/// an n-gram model), and lets the compiler judge each in a copy of the suite.
///
/// This runs `cargo check`, which runs the suite's build scripts and procedural macros: evaluate only code that you
/// would build.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_long_help = "\
Examples:
  cargo nanochat eval --quick
  cargo nanochat eval --holes 200 --seed 1 --message-format json > report.json
  cargo nanochat eval --suite crates --fetch --out run
  cargo nanochat eval --suite crates --checkpoint base.ncz --known files
  cargo nanochat eval --suite crates --out part-1 --shard 1/4
  cargo nanochat eval --system http://localhost:8080 --html report.html
  cargo nanochat eval compare run-before run-after

With --system, the code around each hole is sent to that server, at temperature 0; servers of other machines are
refused without --allow-remote.

stdout: the table. json: the whole report. stderr: progress.
Writes no file in the workspace; compiles in a temporary copy. With --out, an interrupted run resumes where it
stopped, and ends with the same records."
)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    suite: SuiteArgs,
    #[command(flatten)]
    systems: SystemArgs,
    #[command(flatten)]
    report: ReportArgs,
    #[command(flatten)]
    sandbox: SandboxArgs,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Merge the parts of a run into the same report as of the whole
    Merge {
        /// The folders of all parts
        #[arg(required = true, value_name = "DIR")]
        parts: Vec<PathBuf>,
        /// Where to write the records of the whole
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        report: ReportArgs,
    },
    /// Show the report of a finished run again
    Report {
        /// The folder of its records, or its report in JSON
        run: PathBuf,
        #[command(flatten)]
        report: ReportArgs,
    },
    /// Compare two runs hole by hole, or one with the committed table
    ///
    /// Prints B minus A on the holes that both runs filled, with 95 % intervals and McNemar's test. The exit code is 7
    /// where B is shown to compile less often than A, and 0 where it is better or no difference is shown.
    Compare(CompareArgs),
}

pub(crate) fn run(context: &Context, args: &EvalArgs) -> anyhow::Result<()> {
    match &args.action {
        Some(Action::Merge { parts, out, report }) => report.show(&context.output, &Report::of(&merge(parts, out)?)),
        Some(Action::Report { run, report }) => report.show(&context.output, &read_report(run)?),
        Some(Action::Compare(args)) => compare(&context.output, args),
        None => measure(context, args),
    }
}

fn measure(context: &Context, args: &EvalArgs) -> anyhow::Result<()> {
    let output = &context.output;
    for folder in args.suite.folders()? {
        args.sandbox.consent(context, &folder)?;
    }
    let workspace = if args.suite.needs_workspace() { Some(context.current_workspace()?) } else { None };
    let checkpoint = match (&args.suite.checkpoint, &workspace) {
        (Some(path), _) => Some(context.store.open_checkpoint(path)?),
        (None, Some(workspace)) if !args.suite.without_model => {
            let path = context.store.checkpoint_path(&workspace.sources.root);
            Some(context.store.open_checkpoint(&path)?)
        }
        _ => None,
    };
    let suite =
        args.suite.suite(context, workspace.as_ref().map(|workspace| &workspace.sources), checkpoint.as_ref())?;
    let interrupt = Interrupt::install()?;
    output.note("cargo check runs the suite's build scripts and procedural macros, in a copy");

    let n_threads = args.threads.or(workspace.and_then(|workspace| workspace.settings.threads)).unwrap_or(0);
    let mut completers = args.systems.completers(context, checkpoint.as_ref(), n_threads)?;
    let label = completers.label();
    let mut systems = args.systems.systems(&mut completers, interrupt.cancel())?;
    let mut systems: Vec<&mut dyn System> = systems.iter_mut().map(|system| &mut **system as &mut dyn System).collect();

    let cache = context.store.eval_cache_path();
    let temporary = tempfile::tempdir().context("a temporary folder")?;
    interrupt.remove_at_exit(temporary.path());
    let plan = Plan {
        suite: &suite,
        folder: args.suite.out.as_deref().unwrap_or(temporary.path()),
        seed: args.suite.seed,
        shard: args.suite.shard,
        n_workers: args.suite.jobs,
        timeout_s: args.suite.timeout.as_secs_f64(),
        build_timeout_s: args.suite.build_timeout.as_secs_f64(),
        offline: args.suite.is_offline(context),
        with_ignored: args.suite.with_ignored,
        sandbox: args.sandbox.mode(),
        label: &label,
        trained_on: checkpoint.as_ref().map(|checkpoint| &checkpoint.manifest.training.fingerprint),
        cache: (!args.suite.fresh).then_some(cache.as_path()),
    };
    let mut bar = Bar::new(output);
    let mut progress = |event| match event {
        Event::Building { packages } => bar.say(output, &format!("building {packages} packages as they are")),
        Event::Filtered { done, total } => bar.set(output, done, total, "filter", "crates"),
        Event::Filled { system, done, total } => bar.set(output, done, total, "fill", &system),
        Event::Scored { system, done, total } => bar.set(output, done, total, "score", &system),
        Event::Audited { done, total } => bar.set(output, done, total, "audit", "alone"),
    };
    let n = args.suite.audit.unwrap_or(0);
    let findings = evaluate_and_audit(&plan, &mut systems, n, &mut progress, interrupt.cancel());
    bar.clear();
    let (findings, audit) = findings.context("evaluating")?;
    args.report.show(output, &Report::of(&findings))?;
    if n > 0 { show_audit(output, &audit) } else { Ok(()) }
}

fn show_audit(output: &Output, audit: &Audit) -> anyhow::Result<()> {
    if output.is_json() {
        return output.json(audit);
    }
    let Audit { audited, agree, false_ok, false_fail, timed_out, differing } = audit;
    let mut text = format!(
        "\naudit: {agree} of {audited} verdicts are the same when compiled alone; {false_ok} compiled only with others, \
         {false_fail} only alone\n"
    );
    if *timed_out > 0 {
        text.push_str(&format!(
            "  {timed_out} more were killed at the timeout alone, which is inconclusive; see --timeout\n"
        ));
    }
    for differing in differing {
        text.push_str(&format!("  {} at {}\n", differing.system, differing.place));
    }
    output.data(&text)
}
