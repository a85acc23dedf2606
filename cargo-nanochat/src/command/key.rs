//! `key`: your signing key, and the keys that you trust.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use nanochat_engine::checkpoint::{KeyId, PublicKey, Trust};
use serde::Serialize;

use crate::context::Context;
use crate::exit::InputError;

/// Signing keys: show yours, decide whom to trust
///
/// A checkpoint is loaded only if a trusted key signed it. Your own key is always trusted.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_long_help = "\
Examples:
  cargo nanochat key show > me.pub          give this file to your team
  cargo nanochat key trust colleague.pub
  cargo nanochat key revoke 1A2B3C4D5E6F7081

Public keys are in minisign's form. Writes to the data folder only."
)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    action: KeyAction,
}

#[derive(Debug, Subcommand)]
enum KeyAction {
    /// Print your public key; makes a key if there is none
    Show,
    /// List trusted and revoked keys
    List,
    /// Trust the public key in a file
    Trust {
        /// A minisign public key
        file: PathBuf,
        /// What to call it [default: the file's name]
        #[arg(long)]
        name: Option<String>,
    },
    /// Refuse a key from now on, whatever it signed
    Revoke {
        /// The key's id, as `key list` shows it
        id: String,
    },
}

/// Most bytes of a public key's file, which has two short lines.
const MAX_KEY_FILE: u64 = 4096;

#[derive(Debug, Serialize)]
struct Listed<'a> {
    id: String,
    name: &'a str,
    status: &'a str,
}

pub(crate) fn run(context: &Context, args: &KeyArgs) -> anyhow::Result<()> {
    match &args.action {
        KeyAction::Show => show(context),
        KeyAction::List => list(context, &context.store.load_trust()?),
        KeyAction::Trust { file, name } => trust(context, file, name.as_deref()),
        KeyAction::Revoke { id } => revoke(context, id),
    }
}

fn show(context: &Context) -> anyhow::Result<()> {
    let (key, created) = context.store.load_key_or_create()?;
    if created {
        context.output.note(format_args!("made a signing key at {}", context.store.secret_key_path().display()));
    }
    let key = key.public();
    if context.output.is_json() {
        let text = key.to_base64();
        return context.output.json(&serde_json::json!({ "id": key.id().to_string(), "public": text }));
    }
    let text = key.to_string();
    context.output.data(&format!("{}\n", text.trim_end()))
}

fn list(context: &Context, trust: &Trust) -> anyhow::Result<()> {
    let trusted = trust.keys.iter().filter(|trusted| !trust.is_revoked(&trusted.key));
    let trusted = trusted.map(|trusted| (trusted.key.id(), trusted.name.as_str(), "trusted"));
    let revoked = trust.revoked.iter().map(|key| (key.id(), "", "revoked"));
    for (id, name, status) in trusted.chain(revoked) {
        let id = id.to_string();
        if context.output.is_json() {
            context.output.json(&Listed { id, name, status })?;
        } else {
            context.output.data(&format!("{id}  {status}  {name}\n"))?;
        }
    }
    Ok(())
}

fn trust(context: &Context, file: &Path, name: Option<&str>) -> anyhow::Result<()> {
    let shown = || file.display().to_string();
    let n_bytes = std::fs::metadata(file).map_err(|error| InputError(format!("{}: {error}", file.display())))?.len();
    if n_bytes > MAX_KEY_FILE {
        return Err(InputError(format!("{} is too long for a public key; give a .pub file", file.display())).into());
    }
    let text = std::fs::read_to_string(file).map_err(|error| InputError(format!("{}: {error}", file.display())))?;
    let key: PublicKey = text.parse().with_context(shown)?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let name = name.unwrap_or(&stem);
    let id = key.id();
    context.store.trust_key(name, key)?;
    context.output.note(format_args!("key {id} is trusted from now on, as `{name}`"));
    Ok(())
}

fn revoke(context: &Context, id: &str) -> anyhow::Result<()> {
    let id: KeyId = id.parse()?;
    let trust = context.store.load_trust()?;
    let Some(trusted) = trust.trusted(id) else {
        return Err(InputError(format!("there is no trusted key {id}; `cargo nanochat key list` shows them")).into());
    };
    let (key, name) = (trusted.key.clone(), trusted.name.clone());
    context.store.revoke_key(key)?;
    context.output.note(format_args!("key {id} (`{name}`) is refused from now on"));
    Ok(())
}
