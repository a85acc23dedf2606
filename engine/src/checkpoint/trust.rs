//! Which keys are trusted: plain data, loaded by [`crate::workspace::store`].

use std::collections::BTreeMap;

use super::sign::{KeyId, PublicKey};
use super::{CheckpointError, Manifest};

/// Trusted and revoked keys, and the versions seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Keys whose checkpoints may be opened. One key per id: [`crate::workspace::store::Store::trust_key`] refuses a
    /// second.
    pub keys: Vec<TrustedKey>,
    /// Keys whose checkpoints are refused, trusted or not.
    pub revoked: Vec<PublicKey>,
    /// Highest version opened so far, per key and model. A lower one is refused.
    pub marks: BTreeMap<(KeyId, String), u64>,
}

/// A key and the name that this user gave its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// The public key.
    pub key: PublicKey,
    /// The name of its owner, for people to read.
    pub name: String,
}

impl Trust {
    /// Trusts one key, under this name.
    pub fn in_key(key: PublicKey, name: impl Into<String>) -> Self {
        Self { keys: vec![TrustedKey { key, name: name.into() }], ..Self::default() }
    }

    /// The trusted key with this id, revoked or not.
    pub fn trusted(&self, id: KeyId) -> Option<&TrustedKey> {
        self.keys.iter().find(|trusted| trusted.key.id() == id)
    }

    /// Whether this key is revoked, whatever its id.
    pub fn is_revoked(&self, key: &PublicKey) -> bool {
        self.revoked.iter().any(|revoked| revoked.is_same_key(key))
    }

    /// The lowest version of this model by this key that is still accepted.
    pub fn mark(&self, key: KeyId, model_id: &str) -> u64 {
        self.marks.get(&(key, model_id.to_owned())).copied().unwrap_or(0)
    }

    /// The key to verify a signature by `id` with: trusted, or known because it was revoked.
    pub(super) fn key_to_verify(&self, id: KeyId) -> Result<&PublicKey, CheckpointError> {
        let trusted = self.trusted(id).map(|trusted| &trusted.key);
        let revoked = || self.revoked.iter().find(|key| key.id() == id);
        trusted.or_else(revoked).ok_or(CheckpointError::UnknownKey { key: id })
    }

    /// Refuses a key that is revoked.
    pub(super) fn check_key(&self, key: &PublicKey) -> Result<(), CheckpointError> {
        if self.is_revoked(key) { Err(CheckpointError::RevokedKey { key: key.id() }) } else { Ok(()) }
    }

    /// Refuses a version below the mark.
    pub(super) fn check_version(&self, key: KeyId, manifest: &Manifest) -> Result<(), CheckpointError> {
        let Manifest { model_id, version, .. } = manifest;
        let mark = self.mark(key, model_id);
        if *version < mark {
            return Err(CheckpointError::Rollback { key, model_id: model_id.clone(), found: *version, mark });
        }
        Ok(())
    }
}
