//! `train`: workspace → signed, installed checkpoint, and how much better it predicts held-out files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use nanochat_engine::Cancel;
use nanochat_engine::checkpoint::{Manifest, Training};
use nanochat_eval::stats::Value;
use nanochat_train::data::licence::PERMISSIVE;
use nanochat_train::measure::Gain;
use nanochat_train::{HeldOut, Options};
use serde::Serialize;

use super::training::{gains, install, train};
use crate::context::Context;
use crate::interrupt::Interrupt;
use crate::output::{Output, table};
use crate::progress::{TrainProgress, bytes};
use crate::values::{at_least_one, duration};

/// Adapt the model to this workspace
///
/// Reads the .rs files of the workspace's members (not what .gitignore or .nanochatignore names, nor generated files
/// and copies), holds out whole files, trains, and installs a signed checkpoint that `complete`, `lsp` and `eval` then
/// use. The first run makes a signing key without a passphrase, readable by you only.
///
/// Ctrl-C stops after the current step and saves the state; the same command resumes from there. A second
/// Ctrl-C aborts at once. After a finished run, the next one starts from its weights and learns what has changed since;
/// if more than half of the code has changed, it starts from scratch.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  cargo nanochat train
  cargo nanochat train --time 10m
  cargo nanochat train --base team/base.ncz --time 10m
  cargo nanochat train --base team/base.ncz --forget src/keys
  cargo nanochat train --dependencies --time 1h
  cargo nanochat train --manifest-path ../other/Cargo.toml --recipe my.toml --restart
  cargo nanochat train --dependencies --pack corpus.ncs
  cargo nanochat train --packed corpus.ncs --recipe base --device cuda
  cargo nanochat train --message-format json | jq 'select(.event == \"step\") | .bits_per_byte'

stdout: the before/after table; with --forget also what has changed in the manifest.
json: one object per step (step, tokens, loss, bits_per_byte, tokens_per_s), then one with before,
after and checkpoint, with --forget also `forgot`.
With --pack the path on stdout; json: one object with file, files, tokens and bytes.
Writes to the data folder only: the key, the training state and the checkpoint; with --pack that file.")]
pub(crate) struct TrainArgs {
    /// Recipe: a built-in name or a .toml file [default: `default`, with --base `adapt`]
    #[arg(long, value_name = "NAME")]
    recipe: Option<String>,
    /// Start from the weights, the tokenizer and the shape of this checkpoint instead of random weights; `before` then
    /// shows how well it predicts this workspace untrained
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Train on the locked dependencies too whose licences are on this list of SPDX identifiers, separated by commas
    /// [default list: MIT, Apache-2.0, BSD-2-Clause, BSD-3-Clause, ISC, Zlib, Unlicense, 0BSD, CC0-1.0, MIT-0]
    #[arg(long, value_name = "LICENCES", num_args = 0..=1, value_delimiter = ',')]
    dependencies: Option<Vec<String>>,
    /// Optimizer steps, instead of the recipe's number
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    steps: Option<usize>,
    /// Stop by the clock instead, e.g. 90s, 10m, 1h30m; such a run is not repeatable bit for bit
    #[arg(long, value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// Seed of the weights and of the order of the data, instead of the recipe's
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Start from scratch even if an interrupted run could be resumed
    #[arg(long)]
    restart: bool,
    /// First try increasing learning rates for at most 72 steps, undo these, and multiply the recipe's rates by the
    /// best factor
    #[arg(long)]
    find_lr: bool,
    /// Train from scratch without this file or folder and keep it out of every later run; may be repeated
    #[arg(long, value_name = "PATH")]
    forget: Vec<PathBuf>,
    /// Let later runs learn from a forgotten path again; may be repeated
    #[arg(long, value_name = "PATH")]
    remember: Vec<PathBuf>,
    /// Write what would be trained on to this file, as tokens without secrets, and train nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["packed", "forget", "remember"])]
    pack: Option<PathBuf>,
    /// Train on a file that `--pack` wrote, here or elsewhere, in place of the workspace's files. The checkpoint is the
    /// file's own, and its path is printed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dependencies", "forget", "remember"])]
    packed: Option<PathBuf>,
    /// Leave the machine to other programs: one worker at the lowest priority
    #[arg(long, conflicts_with = "threads")]
    background: bool,
    /// Where gradients are computed; `cuda` is the first NVIDIA GPU, in binaries that are built with it
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl TrainArgs {
    /// The licences whose dependencies are trained on; `None` for the members alone.
    fn allowed_licences(&self) -> Option<Vec<String>> {
        let given = self.dependencies.clone()?;
        Some(if given.is_empty() { PERMISSIVE.iter().map(|name| (*name).to_owned()).collect() } else { given })
    }
}

/// `--device`: where the gradients of a step are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    Cpu,
    Cuda,
}

/// The last JSON object.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "trained")]
struct Trained<'a> {
    before: HeldOut,
    after: HeldOut,
    gain: Option<Gain>,
    checkpoint: &'a PathBuf,
    version: u64,
    bytes: u64,
    held_out: &'a [PathBuf],
    curve: Option<&'a PathBuf>,
    peak_memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forgot: Option<Forgot<'a>>,
}

/// The `forgot` of the last JSON object: how the training data has changed according to the manifests.
#[derive(Debug, Serialize)]
struct Forgot<'a> {
    paths: &'a [PathBuf],
    before: Option<TrainedOn<'a>>,
    after: TrainedOn<'a>,
}

#[derive(Debug, Serialize)]
struct TrainedOn<'a> {
    version: u64,
    corpus_hash: &'a str,
    n_files: u64,
    n_tokens: u64,
}

impl<'a> TrainedOn<'a> {
    fn of(manifest: &'a Manifest) -> Self {
        let Training { corpus_hash, n_files, n_tokens, .. } = &manifest.training;
        Self { version: manifest.version, corpus_hash, n_files: *n_files, n_tokens: *n_tokens }
    }
}

impl Forgot<'_> {
    fn table(&self) -> String {
        let row = |name: &str, of: &dyn Fn(&TrainedOn<'_>) -> String| {
            vec![name.to_owned(), self.before.as_ref().map_or_else(|| "-".to_owned(), of), of(&self.after)]
        };
        table(&[
            vec!["trained on".to_owned(), "before".to_owned(), "after".to_owned()],
            row("version", &|manifest| manifest.version.to_string()),
            row("files", &|manifest| manifest.n_files.to_string()),
            row("tokens", &|manifest| manifest.n_tokens.to_string()),
            row("corpus", &|manifest| manifest.corpus_hash.chars().take(16).collect()),
        ])
    }
}

pub(crate) fn run(context: &Context, args: &TrainArgs) -> anyhow::Result<()> {
    let workspace = match &args.packed {
        Some(file) => context.file_as_workspace(file)?,
        None => context.current_workspace()?,
    };
    let settings = workspace.settings;
    let root = workspace.sources.root.clone();
    let base = args.base.as_ref().map(|file| context.store.open_checkpoint(file)).transpose()?;
    let default_recipe = if base.is_some() { BASE_RECIPE } else { DEFAULT_RECIPE };
    let options = Options {
        sources: workspace.sources,
        recipe: args.recipe.clone().or(settings.recipe).unwrap_or_else(|| default_recipe.to_owned()),
        state_dir: context.store.state_dir(&root),
        restart: args.restart,
        seed: args.seed.or(settings.seed),
        steps: args.steps,
        time_budget_s: args.time.map(|time| time.as_secs_f64()),
        threads: if args.background { 1 } else { args.threads.or(settings.threads).unwrap_or(0) },
        base,
        dependencies: args.allowed_licences(),
        find_lr: args.find_lr,
        forget: args.forget.clone(),
        remember: args.remember.clone(),
        device: args.device.into(),
        packed: args.packed.clone(),
    };
    if args.background {
        lower_priority();
    }
    if let Some(file) = &args.pack {
        return pack(&context.output, &options, file);
    }
    // The installed checkpoint may be signed by a key that is no longer trusted; then there is nothing to compare with.
    let before = context.store.open_checkpoint(&context.store.checkpoint_path(&root)).ok();
    let stopped = "stopped; the state is saved and the same command resumes from there";
    let outcome = train(&context.output, &options, Interrupt::install()?, stopped)?;
    let installed = install(&context.output, &context.store, &options, &outcome)?;
    let forgot = (!options.forget.is_empty()).then(|| Forgot {
        paths: &options.forget,
        before: before.as_ref().map(|before| TrainedOn::of(&before.manifest)),
        after: TrainedOn::of(&installed.manifest),
    });

    if context.output.is_json() {
        return context.output.json(&Trained {
            before: outcome.before,
            after: outcome.after,
            gain: outcome.gain,
            checkpoint: &installed.path,
            version: installed.manifest.version,
            bytes: installed.n_bytes,
            held_out: &outcome.held_out,
            curve: outcome.curve.as_ref(),
            peak_memory_bytes: nanochat_train::peak_memory(),
            forgot,
        });
    }
    context.output.data(&gains(&outcome.before, &outcome.after))?;
    if let Some(Gain { model, blend }) = outcome.gain {
        let interval = |gain: Value| format!("{:.3} [{:.3}, {:.3}]", gain.value, gain.low, gain.high);
        context.output.note(format_args!(
            "gained on the held-out files, in bits/byte with 95 % intervals: {} by the model, {} by the blend",
            interval(model),
            interval(blend)
        ));
    }
    if let Some(forgot) = forgot {
        context.output.data(&format!("\n{}", forgot.table()))?;
    }
    let (path, size) = (installed.path.display(), bytes(installed.n_bytes as usize));
    context.output.note(format_args!("checkpoint version {}, {size}: {path}", installed.manifest.version));
    if let Some(peak) = nanochat_train::peak_memory() {
        context.output.note(format_args!("peak memory: {}", bytes(peak as usize)));
    }
    if let Some(curve) = &outcome.curve {
        context.output.note(format_args!("loss curve: {}", curve.display()));
    }
    Ok(())
}

/// The last JSON object of `--pack`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "packed")]
struct Packed<'a> {
    file: &'a Path,
    files: usize,
    tokens: usize,
    bytes: u64,
}

fn pack(output: &Output, options: &Options, file: &Path) -> anyhow::Result<()> {
    // Ctrl-C ends it at once: the file is written whole or not at all.
    let never = Cancel::new();
    let mut progress = TrainProgress::new(output, &never);
    let packed = nanochat_train::pack(options, file, &mut |event| progress.event(event));
    progress.finish()?;
    let nanochat_train::PackedCorpus { n_files: files, n_tokens: tokens } = packed?;
    let n_bytes = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
    if output.is_json() {
        return output.json(&Packed { file, files, tokens, bytes: n_bytes });
    }
    output.note(format_args!("{files} files, {tokens} tokens to learn from, {}", bytes(n_bytes as usize)));
    output.data(&format!("{}\n", file.display()))
}

impl From<Device> for nanochat_train::Device {
    fn from(device: Device) -> Self {
        match device {
            Device::Cpu => Self::Cpu,
            Device::Cuda => Self::Cuda,
        }
    }
}

/// The recipe of `train` where no other is given.
const DEFAULT_RECIPE: &str = "default";
/// The recipe of `train --base` where no other is given.
const BASE_RECIPE: &str = "adapt";

/// Lowers the priority of this process as far as possible. Where the system has none, or refuses, the run continues.
fn lower_priority() {
    #[cfg(unix)]
    let _ = rustix::process::nice(19);
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        args: TrainArgs,
    }

    #[test]
    fn dependencies_are_trained_on_by_the_list_or_the_default_one() {
        let allowed = |line: &str| CommandLine::try_parse_from(line.split(' ')).expect(line).args.allowed_licences();
        assert_eq!(allowed("train"), None);
        assert_eq!(allowed("train --dependencies --steps 3").expect("it was asked for"), PERMISSIVE);
        assert_eq!(allowed("train --dependencies MIT,MPL-2.0").expect("it was asked for"), ["MIT", "MPL-2.0"]);
        // The help states the list.
        let help = CommandLine::command().render_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(&format!("[default list: {}]", PERMISSIVE.join(", "))), "{help}");
    }
}
