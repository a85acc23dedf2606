//! `eval`: compile success on held-out code.

use anyhow::Context as _;
use nanochat_engine::sources::Role;
use nanochat_eval::{Event, Options, evaluate, known_files};

use super::train::HeldOutList;
use crate::cli::Eval;
use crate::completion::completer;
use crate::context::Context;
use crate::interrupt::Interrupt;
use crate::progress::Bar;

pub(crate) fn run(context: &Context, args: &Eval) -> anyhow::Result<()> {
    let output = &context.output;
    let workspace = context.current_workspace()?;
    let root = &workspace.sources.root;
    let checkpoint = context.store.open_checkpoint(&context.store.checkpoint_path(root))?;
    let held_out = HeldOutList::load(&context.store, root, &checkpoint)?;
    let interrupt = Interrupt::install()?;
    output.note("cargo check runs this workspace's build scripts and procedural macros, in a copy");

    let n_threads = args.threads.or(workspace.settings.threads).unwrap_or(0);
    let (files, _) = workspace.sources.collect(&[Role::Member]);
    let (_, known) = known_files(files, &held_out);
    let mut completer = completer(&checkpoint, &known, n_threads);
    let options = Options {
        sources: workspace.sources,
        held_out,
        max_holes: args.holes,
        seed: args.seed,
        timeout_s: args.timeout.as_secs_f64(),
        offline: context.is_offline(),
    };
    let mut bar = Bar::new(output);
    let mut show = |event| match event {
        Event::Cut { n_holes } => {
            bar.say(output, &format!("{n_holes} holes cut from {} files", options.held_out.len()))
        }
        Event::Checked { done, total } => bar.set(output, done, total, "check", "compiler runs"),
    };
    let report = evaluate(&options, &mut completer, &mut show, interrupt.cancel());
    bar.clear();
    let report = report.context("evaluating")?;
    if output.is_json() { output.json(&report) } else { output.data(&report.table()) }
}
