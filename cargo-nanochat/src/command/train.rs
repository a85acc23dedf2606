//! `train`: workspace → signed, installed checkpoint, and what it gained.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nanochat_engine::checkpoint::{Manifest, Training};
use nanochat_engine::workspace::store::{Store, write_durably};
use nanochat_engine::{Cancel, Checkpoint};
use nanochat_eval::stats::Value;
use nanochat_train::measure::Gain;
use nanochat_train::{HeldOut, Options, Outcome};
use serde::{Deserialize, Serialize};

use crate::cli::{Device, Train};
use crate::context::Context;
use crate::exit::{InputError, Interrupted};
use crate::interrupt::Interrupt;
use crate::output::{Output, StdoutClosed, table};
use crate::progress::{TrainProgress, bytes};

/// The last json object.
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

/// How the manifest of what was trained on has changed.
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

pub(crate) fn run(context: &Context, args: &Train) -> anyhow::Result<()> {
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
    // What is there may be by a key that is trusted no more; then there is nothing to compare with.
    let before = context.store.open_checkpoint(&context.store.checkpoint_path(&root)).ok();
    let stopped = "stopped; the state is saved and the same command goes on from there";
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
            "saved on the files held out, in bits/byte with 95 % intervals: {} by the model, {} with the memory",
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
        context.output.note(format_args!("most memory held: {}", bytes(peak as usize)));
    }
    if let Some(curve) = &outcome.curve {
        context.output.note(format_args!("loss curve: {}", curve.display()));
    }
    Ok(())
}

/// The last json object of `--pack`.
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

/// What `train` uses where nothing else is said.
const DEFAULT_RECIPE: &str = "default";
/// And what it uses with a base.
const BASE_RECIPE: &str = "adapt";

/// Trains with progress. An interrupted run is an error, `stopped`: there is no checkpoint to go on with.
pub(super) fn train(
    output: &Output,
    options: &Options,
    interrupt: &Interrupt,
    stopped: &'static str,
) -> anyhow::Result<Outcome> {
    let mut progress = TrainProgress::new(output, interrupt.cancel());
    let outcome = nanochat_train::train(options, &mut |event| progress.event(event), interrupt.cancel());
    let shown = progress.finish();
    let has_reader_left = shown.as_ref().is_err_and(anyhow::Error::is::<StdoutClosed>);
    if !has_reader_left {
        shown?;
    }
    let outcome = outcome?;
    if !outcome.finished {
        // A reader that leaves early cuts the work short, which its own exit code must say.
        let error = anyhow::Error::new(Interrupted(stopped));
        return Err(if has_reader_left { error.context("stdout is closed") } else { error });
    }
    Ok(outcome)
}

/// A checkpoint in its place.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) path: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) n_bytes: u64,
}

/// As far down as it goes; where the system has no such thing, or refuses, the run is as it would be without.
fn lower_priority() {
    #[cfg(unix)]
    let _ = rustix::process::nice(19);
}

/// Signs with the store's key, which is made if there is none, and installs for the workspace.
pub(super) fn install(
    output: &Output,
    store: &Store,
    options: &Options,
    outcome: &Outcome,
) -> anyhow::Result<Installed> {
    let (key, created) = store.load_key_or_create()?;
    if created {
        let path = store.secret_key_path();
        output.note(format_args!("made a signing key without a passphrase, readable by you only: {}", path.display()));
    }
    let root = &options.sources.root;
    let path = store.checkpoint_path(root);
    let mut checkpoint = outcome.checkpoint.clone();
    // Two workspaces may have one name, and version marks are kept by model: its folder's name is nobody else's.
    if let Some(name) = path.parent().and_then(Path::file_name) {
        checkpoint.manifest.model_id = name.to_string_lossy().into_owned();
    }
    let manifest = store.install(&checkpoint, &key, &path)?;
    HeldOutList::save(store, root, &manifest, &outcome.held_out)?;
    let n_bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    Ok(Installed { path, n_bytes, manifest })
}

/// The files that training held out, beside the checkpoint that it made: what `eval` may use.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeldOutList {
    /// Hash of the checkpoint's manifest.
    manifest: String,
    /// Relative to the workspace's root.
    files: Vec<PathBuf>,
}

impl HeldOutList {
    fn save(store: &Store, root: &Path, manifest: &Manifest, files: &[PathBuf]) -> anyhow::Result<()> {
        let list = Self { manifest: manifest.hash(), files: files.to_vec() };
        let path = Self::path(store, root);
        write_durably(&path, |out| serde_json::to_writer(out, &list).map_err(std::io::Error::from))
            .with_context(|| path.display().to_string())
    }

    /// The files held out from `checkpoint`, if the list is about it.
    pub(super) fn load(store: &Store, root: &Path, checkpoint: &Checkpoint) -> anyhow::Result<Vec<PathBuf>> {
        let path = Self::path(store, root);
        let unusable = |why: &str| {
            InputError(format!("{}: {why}; run `cargo nanochat train` to know what is held out", path.display()))
        };
        let text = std::fs::read_to_string(&path).map_err(|error| unusable(&error.to_string()))?;
        let list: Self = serde_json::from_str(&text).map_err(|error| unusable(&error.to_string()))?;
        if list.manifest != checkpoint.manifest.hash() {
            return Err(unusable("this is about another checkpoint").into());
        }
        Ok(list.files)
    }

    fn path(store: &Store, root: &Path) -> PathBuf {
        store.checkpoint_path(root).with_file_name("held_out.json")
    }
}

/// The before/after table, in bits per byte of the held-out files.
pub(super) fn gains(before: &HeldOut, after: &HeldOut) -> String {
    let row = |name: &str, before: f64, after: f64| vec![name.to_owned(), figure(before), figure(after)];
    let mut rows = vec![
        vec!["held-out bits/byte".to_owned(), "before".to_owned(), "after".to_owned()],
        row("model", before.model, after.model),
        row("memory", before.memory, after.memory),
        row("model and memory", before.blend, after.blend),
        row("unigram, for scale", before.unigram, after.unigram),
    ];
    if let (Some(before), Some(after)) = (before.general, after.general) {
        rows.push(row("model, on dependencies", before, after));
    }
    table(&rows)
}

fn figure(bits: f64) -> String {
    if bits.is_finite() { format!("{bits:.3}") } else { "-".to_owned() }
}
