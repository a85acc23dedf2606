//! `key`: your key, and whom you trust.

use std::path::Path;

use anyhow::Context as _;
use nanochat_engine::checkpoint::{KeyId, PublicKey, Trust};
use serde::Serialize;

use crate::cli::{Key, KeyAction};
use crate::context::Context;
use crate::exit::InputError;

/// A public key is two short lines.
const MAX_KEY_FILE: u64 = 4096;

#[derive(Debug, Serialize)]
struct Listed<'a> {
    id: String,
    name: &'a str,
    status: &'a str,
}

pub(crate) fn run(context: &Context, args: &Key) -> anyhow::Result<()> {
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
