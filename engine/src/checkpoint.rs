//! One file, `.ncz`: a signed manifest and the sections it names.
//!
//! ```text
//! bytes → header → signature → trust, revocation → manifest → version mark → sizes → hashes → Checkpoint
//! ```
//!
//! Nothing is parsed before the signature over its raw bytes is verified. `docs/reference/checkpoint.md` has the bytes.

use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::Tokenizer;
use crate::memory::Blend;
use crate::model::config::ConfigError;

mod fingerprint;
mod format;
pub mod manifest;
mod sections;
pub mod sign;
pub mod trust;

pub use fingerprint::Fingerprint;
use format::{Body, Head};
pub use manifest::{FORMAT, Manifest, Record, Section, Training};
use sections::Contents;
pub use sections::{PackedWeights, SectionError, WeightsView};
pub use sign::{KeyId, PublicKey, SecretKey, SignError, Signature};
pub use trust::{Trust, TrustedKey};

/// A verified, decoded checkpoint.
///
/// ```
/// use nanochat_engine::checkpoint::{Manifest, PackedWeights, SecretKey, Training, Trust};
/// use nanochat_engine::memory::Blend;
/// use nanochat_engine::model::weights::random;
/// use nanochat_engine::{Checkpoint, Config, Tokenizer};
///
/// let config: Config = "d64 l1 h4 kv2 ff64 v300 n1 ctx64".parse()?;
/// let checkpoint = Checkpoint {
///     manifest: Manifest::new("my-crate", config.clone(), Training::default()),
///     tokenizer: Tokenizer::bytes().into(),
///     weights: PackedWeights::pack(&random(&config, 1))?.into(),
///     blend: Blend::default(),
/// };
/// let key = SecretKey::generate()?;
/// let mut bytes = Vec::new();
/// checkpoint.write(&mut bytes, &key)?;
///
/// assert!(Checkpoint::open(&bytes[..], &Trust::default()).is_err(), "nobody is trusted");
/// let opened = Checkpoint::open(&bytes[..], &Trust::in_key(key.public(), "me"))?;
/// assert_eq!(opened.manifest.model_id, "my-crate");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its description of itself, which is what the signature covers.
    pub manifest: Manifest,
    /// The tokenizer that the model was trained with.
    pub tokenizer: Arc<Tokenizer>,
    /// The model's weights.
    pub weights: Arc<PackedWeights>,
    /// The mixing weights of the memory.
    pub blend: Blend,
}

/// What a file shows without being opened for use.
#[derive(Debug)]
pub struct Inspection {
    /// The key that the signature names. Proven only if `verdict` is `Ok`.
    pub key_id: KeyId,
    /// Who signed it, or why [`Checkpoint::open`] refuses it.
    pub verdict: Result<TrustedKey, CheckpointError>,
    /// The manifest: a claim by anybody unless `verdict` is `Ok`. `None` if it cannot be read.
    pub claims: Option<Manifest>,
    /// Whether the sections have the sizes and hashes that `claims` names.
    pub is_whole: bool,
}

/// Why a checkpoint cannot be used. Each message ends with a way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file could not be read.
    #[error("the checkpoint cannot be read ({0}); check its path and permissions")]
    Io(#[from] io::Error),
    /// The file could not be written.
    #[error("the checkpoint cannot be written ({0}); check the folder's permissions and free space")]
    Write(#[source] io::Error),
    /// The file is of another kind.
    #[error("this is {found}, not a nanochat checkpoint; give a `.ncz` file or run `cargo nanochat train`")]
    Foreign {
        /// The kind that it looks like.
        found: Foreign,
    },
    /// The file ends early.
    #[error("the checkpoint ends within its {part}; copy it again from its source or run `cargo nanochat train`")]
    Truncated {
        /// The part within which it ends.
        part: String,
    },
    /// There are bytes after the last section.
    #[error("the checkpoint has bytes after its end; copy it again from its source or run `cargo nanochat train`")]
    TrailingBytes,
    /// A length is beyond that of any checkpoint.
    #[error("the checkpoint says that {part} is longer than {limit} bytes; get it again from its source")]
    TooLarge {
        /// What is too long: manifest, signature or sections.
        part: &'static str,
        /// The largest length that is read, in bytes.
        limit: u64,
    },
    /// The signature is malformed.
    #[error("the checkpoint's signature cannot be read ({reason}); get it again from its source")]
    Signature {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The key is neither trusted nor revoked here.
    #[error(
        "the checkpoint is signed by key {key}, which is not trusted; run `cargo nanochat key trust FILE.pub` if you know its owner"
    )]
    UnknownKey {
        /// The id of the key.
        key: KeyId,
    },
    /// The manifest is not what the key signed.
    #[error("the checkpoint was altered: its manifest is not what key {key} signed; get it again from its source")]
    BadSignature {
        /// The id of the key.
        key: KeyId,
    },
    /// The key was revoked.
    #[error("the checkpoint is signed by key {key}, which is revoked; get one that is signed by another key")]
    RevokedKey {
        /// The id of the key.
        key: KeyId,
    },
    /// The file was written by a newer program.
    #[error("the checkpoint needs a reader of format {min_reader}, and this one knows {newest}; update nanochat")]
    NewerFormat {
        /// The oldest reader format that can read the file.
        min_reader: u32,
        /// The newest format that this program knows.
        newest: u32,
    },
    /// The manifest, signed or about to be, is malformed.
    #[error("the checkpoint's manifest cannot be used ({reason}); ask its signer for another checkpoint")]
    Manifest {
        /// What is wrong with it.
        reason: String,
    },
    /// The architecture is not one that a model can have.
    #[error("the checkpoint's architecture cannot be used ({0}); ask its signer for another checkpoint")]
    Config(#[from] ConfigError),
    /// The checkpoint is older than one that was opened before.
    #[error(
        "the checkpoint of `{model_id}` has version {found}, but version {mark} by key {key} was opened before; get the newer file, or delete this model's entry in `marks.toml` to go back"
    )]
    Rollback {
        /// The id of the signer's key.
        key: KeyId,
        /// The name of the model line.
        model_id: String,
        /// The version of the file.
        found: u64,
        /// The highest version that was opened.
        mark: u64,
    },
    /// The bytes of a section are not those that were signed.
    #[error("the checkpoint was altered or damaged in section `{section}`; copy it again from its source")]
    Hash {
        /// The name of the section.
        section: String,
    },
    /// The content of a section is not valid.
    #[error("the checkpoint's section `{section}` cannot be used ({source}); ask its signer for another checkpoint")]
    Section {
        /// The name of the section.
        section: &'static str,
        /// What is wrong with it.
        source: SectionError,
    },
    /// The evaluation record is about other weights.
    #[error("the checkpoint's record is about other weights; run `cargo nanochat eval` and pack it again")]
    Record,
    /// The checkpoint in memory has a manifest and weights of different architectures.
    #[error("the manifest's architecture is not that of the weights; take the manifest's from the weights")]
    ConfigMismatch,
}

/// The kind of a file that is not a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// The file has no bytes.
    Empty,
    /// A model in the format of llama.cpp.
    Gguf,
    /// It starts with readable characters.
    Text,
    /// A kind that is not recognised.
    Other,
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "an empty file",
            Self::Gguf => "a GGUF model",
            Self::Text => "a text file",
            Self::Other => "another kind of file",
        })
    }
}

impl Checkpoint {
    /// Reads once, then verifies in this order: bounded header → signature over the raw manifest bytes → trust
    /// and revocation → version mark → sizes → hashes → decode.
    ///
    /// `trust` is not changed: the caller remembers the version, or opens the file with
    /// [`crate::workspace::store::Store`], which does.
    pub fn open(bytes: impl Read, trust: &Trust) -> Result<Self, CheckpointError> {
        Self::open_signed(bytes, trust).map(|(checkpoint, _)| checkpoint)
    }

    /// As [`Checkpoint::open`], and returns the id of the signer's key.
    pub fn open_signed(mut bytes: impl Read, trust: &Trust) -> Result<(Self, KeyId), CheckpointError> {
        let head = Head::read(&mut bytes)?;
        let key = check_signer(&head, parse_signature(&head)?, trust)?;
        let manifest = Manifest::parse(&head.manifest)?;
        trust.check_version(key.id(), &manifest)?;
        let body = read_body(&mut bytes, &manifest)?;
        body.check_hashes(&manifest)?;
        let Contents { tokenizer, weights, blend } = sections::decode(&manifest.config, body.0)?;
        let (tokenizer, weights) = (Arc::new(tokenizer), Arc::new(weights));
        Ok((Self { manifest, tokenizer, weights, blend }, key.id()))
    }

    /// Describes a file, whether or not its signer is known. Decodes no section.
    ///
    /// # Errors
    /// Only if the file is not a checkpoint at all: its header or its signature cannot be read.
    pub fn inspect(mut bytes: impl Read, trust: &Trust) -> Result<Inspection, CheckpointError> {
        let head = Head::read(&mut bytes)?;
        let signature = parse_signature(&head)?;
        let key_id = signature.key_id;
        let signer = check_signer(&head, signature, trust);
        // The only place where a manifest is parsed without a verified signature: hence `claims`.
        let (claims, manifest_error) = match Manifest::parse(&head.manifest) {
            Ok(claims) => (Some(claims), None),
            Err(error) => (None, Some(error)),
        };
        let contents = claims.as_ref().map(|claims| {
            let body = read_body(&mut bytes, claims)?;
            body.check_hashes(claims)
        });
        let is_whole = matches!(contents, Some(Ok(())));
        let verdict = signer.and_then(|key| {
            manifest_error.map_or(Ok(()), Err)?;
            claims.as_ref().map_or(Ok(()), |claims| trust.check_version(key.id(), claims))?;
            contents.unwrap_or(Ok(()))?;
            trust.trusted(key.id()).cloned().ok_or(CheckpointError::UnknownKey { key: key.id() })
        });
        Ok(Inspection { key_id, verdict, claims, is_whole })
    }

    /// Writes the file and returns its manifest: `format`, `min_reader`, `sections` and an empty
    /// `record.weights_hash` are filled in. Nothing is written that [`Checkpoint::open`] would refuse.
    pub fn write(&self, mut out: impl Write, key: &SecretKey) -> Result<Manifest, CheckpointError> {
        if self.manifest.config != *self.weights.config() {
            return Err(CheckpointError::ConfigMismatch);
        }
        self.manifest.config.validate()?;
        let [tokenizer, blend] = sections::encode(&self.tokenizer, &self.blend);
        let body = [&tokenizer, self.weights.as_bytes(), &blend];
        let described = sections::NAMES.iter().zip(body).map(|(name, bytes)| Section {
            name: (*name).to_owned(),
            size: bytes.len() as u64,
            hash: blake3::hash(bytes).to_string(),
        });
        let mut manifest =
            Manifest { format: FORMAT, min_reader: FORMAT, sections: described.collect(), ..self.manifest.clone() };
        if let Some(record) = manifest.record.as_mut().filter(|record| record.weights_hash.is_empty()) {
            record.weights_hash = manifest.sections[1].hash.clone();
        }
        let raw = manifest.to_bytes();
        check_contents(&Manifest::parse(&raw)?)?;
        sections::check(&manifest.config, &tokenizer, &blend)?;
        let signature = key
            .sign(&raw, &format!("nanochat checkpoint of {}, version {}", manifest.model_id, manifest.version))
            .expect("Manifest::parse refused control characters");
        Head { manifest: raw, signature: signature.into_bytes() }.write(&mut out)?;
        body.iter().try_for_each(|section| out.write_all(section)).map_err(CheckpointError::Write)?;
        out.flush().map_err(CheckpointError::Write)?;
        Ok(manifest)
    }

    /// blake3 of the weights section that [`Checkpoint::write`] makes, in hex: what a [`Record`] is bound to.
    pub fn weights_hash(&self) -> String {
        blake3::hash(self.weights.as_bytes()).to_string()
    }
}

fn parse_signature(head: &Head) -> Result<Signature, CheckpointError> {
    let text =
        std::str::from_utf8(&head.signature).map_err(|_| CheckpointError::Signature { reason: "it is not text" })?;
    let signature: Signature = text.parse().map_err(|error| match error {
        SignError::Signature { reason } => CheckpointError::Signature { reason },
        _ => CheckpointError::Signature { reason: "it is not a minisign signature" },
    })?;
    // Nobody signs this line. It has one form, so that no byte of a checkpoint can change unnoticed.
    if signature.untrusted_comment != sign::UNTRUSTED_COMMENT {
        return Err(CheckpointError::Signature { reason: "its first line is not ours" });
    }
    Ok(signature)
}

/// The key that signed these manifest bytes, known and not revoked.
fn check_signer<'a>(head: &Head, signature: Signature, trust: &'a Trust) -> Result<&'a PublicKey, CheckpointError> {
    let key = trust.key_to_verify(signature.key_id)?;
    key.verify(&head.manifest, &signature).map_err(|_| CheckpointError::BadSignature { key: key.id() })?;
    trust.check_key(key)?;
    Ok(key)
}

fn read_body(bytes: &mut impl Read, manifest: &Manifest) -> Result<Body, CheckpointError> {
    check_contents(manifest)?;
    Body::read(bytes, manifest)
}

/// Refuses a manifest whose sections do not fit its configuration or its record.
fn check_contents(manifest: &Manifest) -> Result<(), CheckpointError> {
    let [tokenizer, weights, blend] = manifest.sections.as_slice() else {
        unreachable!("Manifest::parse found three sections, not {}", manifest.sections.len());
    };
    sections::check_sizes(&manifest.config, [tokenizer.size, weights.size, blend.size])?;
    if manifest.record.as_ref().is_some_and(|record| record.weights_hash != weights.hash) {
        return Err(CheckpointError::Record);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
