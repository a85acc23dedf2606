//! `pack`: the workspace's checkpoint as a file for others.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use nanochat_engine::Checkpoint;
use nanochat_engine::workspace::store::{StoreError, write_durably};
use serde::Serialize;

use crate::context::Context;
use crate::progress::bytes;

/// Write this workspace's checkpoint to a file that others can use
///
/// Verifies the installed checkpoint and writes it to a file, signed by your key. Whoever receives it runs
/// `cargo nanochat key trust` on your public key once.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  cargo nanochat pack
  cargo nanochat pack -o team/model.ncz

stdout: the path. Writes that one file, whole or not at all.")]
pub(crate) struct PackArgs {
    /// Where to write it [default: NAME-vVERSION.ncz in the current folder]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Packed {
    path: PathBuf,
    bytes: usize,
    model_id: String,
    version: u64,
    key: String,
}

pub(crate) fn run(context: &Context, args: &PackArgs) -> anyhow::Result<()> {
    let workspace = context.current_workspace()?;
    let installed = context.store.checkpoint_path(&workspace.sources.root);
    let buffer = match std::fs::read(&installed) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(StoreError::Missing { path: installed }.into());
        }
        other => other.with_context(|| installed.display().to_string())?,
    };
    // Verified and written from one buffer: what others get is what was checked.
    let (checkpoint, key) = Checkpoint::open_signed(&buffer[..], &context.store.load_trust()?)
        .with_context(|| installed.display().to_string())?;
    let manifest = &checkpoint.manifest;
    let path = args.output.clone().unwrap_or_else(|| format!("{}-v{}.ncz", manifest.model_id, manifest.version).into());
    write_durably(&path, |out| out.write_all(&buffer)).with_context(|| path.display().to_string())?;

    if context.output.is_json() {
        let (model_id, version) = (manifest.model_id.clone(), manifest.version);
        return context.output.json(&Packed { path, bytes: buffer.len(), model_id, version, key: key.to_string() });
    }
    context.output.note(format_args!(
        "{}, signed by key {key}; others run `cargo nanochat key trust` on what `cargo nanochat key show` prints",
        bytes(buffer.len())
    ));
    context.output.data(&format!("{}\n", path.display()))
}
