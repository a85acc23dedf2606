//! `trust.toml` and `marks.toml` as text; unknown fields are errors.

use serde::{Deserialize, Serialize};

use crate::checkpoint::{KeyId, PublicKey, Trust, TrustedKey};

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    trusted: Vec<Trusted>,
    #[serde(default)]
    revoked: Vec<Revoked>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trusted {
    name: String,
    key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoked {
    key: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marks {
    #[serde(default)]
    mark: Vec<Mark>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    key: KeyId,
    model_id: String,
    version: u64,
}

/// Adds the keys of `trust.toml`.
pub(super) fn read_keys(text: &str, trust: &mut Trust) -> Result<(), String> {
    let keys: Keys = toml::from_str(text).map_err(one_line)?;
    for Trusted { name, key } in keys.trusted {
        let key = parse_key(&key)?;
        if trust.trusted(key.id()).is_some() {
            return Err(format!("key id {} is there twice", key.id()));
        }
        trust.keys.push(TrustedKey { key, name });
    }
    for Revoked { key } in keys.revoked {
        trust.revoked.push(parse_key(&key)?);
    }
    Ok(())
}

/// Adds the marks of `marks.toml`.
pub(super) fn read_marks(text: &str, trust: &mut Trust) -> Result<(), String> {
    let marks: Marks = toml::from_str(text).map_err(one_line)?;
    for Mark { key, model_id, version } in marks.mark {
        if trust.marks.insert((key, model_id.clone()), version).is_some() {
            return Err(format!("the mark of `{}` by key {key} is there twice", model_id.escape_debug()));
        }
    }
    Ok(())
}

/// The text of `trust.toml`.
pub(super) fn keys_text(trust: &Trust) -> String {
    let trusted =
        trust.keys.iter().map(|TrustedKey { key, name }| Trusted { name: name.clone(), key: key.to_base64() });
    let revoked = trust.revoked.iter().map(|key| Revoked { key: key.to_base64() });
    let keys = Keys { trusted: trusted.collect(), revoked: revoked.collect() };
    let text = toml::to_string(&keys).expect("lists of strings have a TOML form");
    format!("# Whose checkpoints nanochat opens, and whose never; written by `cargo nanochat key`.\n\n{text}")
}

/// The text of `marks.toml`.
pub(super) fn marks_text(trust: &Trust) -> String {
    let marks = trust.marks.iter().map(|((key, model_id), version)| Mark {
        key: *key,
        model_id: model_id.clone(),
        // TOML has no larger integers, and no manifest has such a version.
        version: (*version).min(i64::MAX as u64),
    });
    let text = toml::to_string(&Marks { mark: marks.collect() }).expect("strings and small integers have a TOML form");
    format!("# The newest version opened of each model by each key; an older one is refused.\n\n{text}")
}

fn parse_key(line: &str) -> Result<PublicKey, String> {
    line.parse().map_err(|error| format!("`{}`: {error}", line.escape_debug()))
}

/// The message of an error without its position, which toml draws on several lines.
fn one_line(error: toml::de::Error) -> String {
    error.message().replace('\n', " ")
}
