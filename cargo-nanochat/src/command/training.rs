//! What `train` and `try` share: a run with progress, its checkpoint signed and installed, and which files it held out.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nanochat_engine::Checkpoint;
use nanochat_engine::checkpoint::Manifest;
use nanochat_engine::workspace::store::{Store, write_durably};
use nanochat_train::{HeldOut, Options, Outcome};
use serde::{Deserialize, Serialize};

use crate::exit::{InputError, Interrupted};
use crate::interrupt::Interrupt;
use crate::output::{Output, StdoutClosed, table};
use crate::progress::TrainProgress;

/// Trains with progress. An interrupted run is an error with the message `stopped`: there is no checkpoint to use.
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
        // A reader that closes stdout early interrupts the work, which the exit code must tell.
        let error = anyhow::Error::new(Interrupted(stopped));
        return Err(if has_reader_left { error.context("stdout is closed") } else { error });
    }
    Ok(outcome)
}

/// A checkpoint that was installed for its workspace.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) path: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) n_bytes: u64,
}

/// Signs the checkpoint with the store's key, which is made if there is none, and installs it for the workspace.
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
    // Two workspaces may have the same name, and version marks are kept by model id: the checkpoint's folder is unique.
    if let Some(name) = path.parent().and_then(Path::file_name) {
        checkpoint.manifest.model_id = name.to_string_lossy().into_owned();
    }
    let manifest = store.install(&checkpoint, &key, &path)?;
    HeldOutList::save(store, root, &manifest, &outcome.held_out)?;
    let n_bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    Ok(Installed { path, n_bytes, manifest })
}

/// The files that training held out, listed next to its checkpoint: what `eval` may use.
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
            return Err(unusable("it belongs to another checkpoint").into());
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
        row("blend", before.blend, after.blend),
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
