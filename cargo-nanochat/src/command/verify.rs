//! `verify`: every check that loading makes, and what the checkpoint says about itself.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use nanochat_engine::Checkpoint;
use nanochat_engine::checkpoint::{CheckpointError, Inspection, Manifest};
use serde::Serialize;

use crate::context::Context;
use crate::output::Output;
use crate::progress::bytes;

/// Check a checkpoint's signature, trust and contents
///
/// Makes every check that loading makes: bounded header, signature, trust and revocation, version mark, sizes,
/// hashes, decoding. Exit code 4 if anything is wrong. What a file by an unknown signer says about itself is shown
/// as a claim.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  cargo nanochat verify team/model.ncz && cp team/model.ncz /srv/models/

stdout: what the checkpoint says about itself. json: its manifest; by an unknown signer `{\"verified\":false,..}`
with the manifest in `claims`.
Writes no file.")]
pub(crate) struct VerifyArgs {
    /// The checkpoint's file
    file: PathBuf,
}

/// The JSON object for a file by an unknown signer. The manifest is one level down, so that no script takes it for a
/// verified one.
#[derive(Debug, Serialize)]
struct Claims {
    verified: bool,
    key: String,
    is_whole: bool,
    claims: Manifest,
}

pub(crate) fn run(context: &Context, args: &VerifyArgs) -> anyhow::Result<()> {
    let output = &context.output;
    let name = || args.file.display().to_string();
    let open = || File::open(&args.file).map(BufReader::new).map_err(CheckpointError::Io);
    let trust = context.store.load_trust()?;
    let opened = open().and_then(|file| Checkpoint::open_signed(file, &trust));
    if let Err(CheckpointError::UnknownKey { .. }) = opened
        && let Ok(inspection) = open().and_then(|file| Checkpoint::inspect(file, &trust))
    {
        show_claims(output, inspection)?;
    }
    let (Checkpoint { manifest, .. }, key) = opened.with_context(name)?;
    if output.is_json() {
        return output.json(&manifest);
    }
    let signer = trust.trusted(key).map_or_else(String::new, |trusted| format!(" ({})", trusted.name));
    let mut rows = described(&manifest);
    rows.insert(1, ("signed by", format!("{key}{signer}")));
    output.data(&lines("", &rows))
}

/// Each line is marked as a claim, since people copy single lines.
fn show_claims(output: &Output, inspection: Inspection) -> anyhow::Result<()> {
    let Inspection { key_id, claims: Some(claims), is_whole, .. } = inspection else { return Ok(()) };
    if output.is_json() {
        return output.json(&Claims { verified: false, key: key_id.to_string(), is_whole, claims });
    }
    let mut rows = described(&claims);
    rows.insert(1, ("signed by", key_id.to_string()));
    let whole = if is_whole { "are those that the file names" } else { "are NOT those that the file names" };
    rows.push(("contents", whole.to_owned()));
    output.data("not verified; anybody can have written this:\n")?;
    output.data(&lines("claimed ", &rows))
}

fn described(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let training = &manifest.training;
    let mut rows = vec![
        ("model", format!("{} version {}", manifest.model_id, manifest.version)),
        ("shape", format!("{}, {:.1}M parameters", manifest.config, manifest.config.n_params() as f64 / 1e6)),
        ("trained on", format!("{} files, {} tokens, {} steps", training.n_files, training.n_tokens, training.n_steps)),
        ("licences", manifest.licences.join(", ")),
    ];
    if let Some(record) = &manifest.record {
        let figures = [record.model_bits_per_byte, record.memory_bits_per_byte, record.blend_bits_per_byte];
        let [model, memory, blend] = figures.map(|figure| format!("{figure:.3}"));
        rows.push(("held out", format!("model {model}, memory {memory}, blend {blend} bits/byte")));
    }
    let sections = manifest.sections.iter().map(|section| format!("{} {}", section.name, bytes(section.size as usize)));
    rows.push(("sections", sections.collect::<Vec<_>>().join(", ")));
    rows
}

fn lines(prefix: &str, rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{prefix}{name:<width$}  {value}\n")).collect()
}
