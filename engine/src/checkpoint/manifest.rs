//! A checkpoint's description of itself, in one canonical form: JSON without spaces, fields in the order below.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, Serializer};

use super::CheckpointError;
use super::fingerprint::Fingerprint;
use super::sections::NAMES;
use crate::Config;

/// The format that this code writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The description of a checkpoint: the part that is signed, which names the hashes of all others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// File format of the writer; filled in when written.
    pub format: u32,
    /// Oldest reader format that can read this file; older ones refuse it. Filled in when written.
    pub min_reader: u32,
    /// Name of the model line, e.g. the workspace's name. Not empty, at most 128 characters, no control characters.
    pub model_id: String,
    /// Grows by one each time this key signs a checkpoint of this model.
    pub version: u64,
    /// blake3 of the manifest this one was trained from, oldest first.
    pub lineage: Vec<String>,
    /// The architecture of the model.
    pub config: Config,
    /// What it was trained on.
    pub training: Training,
    /// SPDX expressions of the training data, sorted.
    pub licences: Vec<String>,
    /// Evaluation record, bound to the weights' hash.
    pub record: Option<Record>,
    /// The sections in file order; filled in when written.
    pub sections: Vec<Section>,
}

/// What a checkpoint was trained on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// blake3 of the sorted (path, content hash) list.
    pub corpus_hash: String,
    /// How many files were trained on.
    pub n_files: u64,
    /// How many tokens those files have.
    pub n_tokens: u64,
    /// How many optimizer steps were taken.
    pub n_steps: u64,
    /// A sample of the texts, so that an evaluation can leave them out. Absent where it is empty.
    #[serde(default, skip_serializing_if = "Fingerprint::is_empty")]
    pub fingerprint: Fingerprint,
}

/// Held-out figures of exactly these weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// blake3 of the weights section it is about; an empty one is filled in when written.
    pub weights_hash: String,
    /// Held-out bits per byte of the model alone.
    pub model_bits_per_byte: f64,
    /// Held-out bits per byte of the memory alone.
    pub memory_bits_per_byte: f64,
    /// Held-out bits per byte of the blend of the two.
    pub blend_bits_per_byte: f64,
}

/// A run of bytes after the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// `tokenizer`, `weights` or `blend`.
    pub name: String,
    /// The length in bytes.
    pub size: u64,
    /// blake3 of the bytes, in hex.
    pub hash: String,
}

/// The fields that the manifest of every format has, so that a newer file is distinguished from a broken one.
#[derive(Deserialize)]
struct Formats {
    format: u32,
    min_reader: u32,
}

impl Manifest {
    /// A manifest of a model that is not signed yet: version 0, no lineage, no record, no sections.
    pub fn new(model_id: impl Into<String>, config: Config, training: Training) -> Self {
        Self {
            format: FORMAT,
            min_reader: FORMAT,
            model_id: model_id.into(),
            version: 0,
            lineage: Vec::new(),
            config,
            training,
            licences: Vec::new(),
            record: None,
            sections: Vec::new(),
        }
    }

    /// blake3 of the bytes that are signed, in hex: what a successor's `lineage` ends with.
    pub fn hash(&self) -> String {
        blake3::hash(&self.to_bytes()).to_string()
    }

    /// The bytes that are signed.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.serialize(&mut Serializer::with_formatter(&mut bytes, Canonical))
            .expect("strings, numbers and lists have a JSON form, and a Vec takes every byte");
        bytes
    }

    /// Reads the one form that [`Manifest::to_bytes`] writes, and checks all that does not need the sections.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let invalid = |error: serde_json::Error| CheckpointError::Manifest { reason: error.to_string() };
        let Formats { format, min_reader } = serde_json::from_slice(bytes).map_err(invalid)?;
        if min_reader > FORMAT {
            return Err(CheckpointError::NewerFormat { min_reader, newest: FORMAT });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(invalid)?;
        if manifest.to_bytes() != bytes {
            return Err(CheckpointError::Manifest { reason: "it is not in canonical form".to_owned() });
        }
        if format == 0 || min_reader == 0 || min_reader > format {
            return Err(CheckpointError::Manifest { reason: "its format numbers contradict each other".to_owned() });
        }
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), CheckpointError> {
        let invalid = |reason: &str| Err(CheckpointError::Manifest { reason: reason.to_owned() });
        if self.model_id.is_empty() || self.model_id.chars().count() > 128 {
            return invalid("model_id is empty or longer than 128 characters");
        }
        // These texts reach terminals.
        let texts = self.lineage.iter().chain(&self.licences).chain([&self.model_id, &self.training.corpus_hash]);
        if texts.into_iter().any(|text| text.contains(char::is_control)) {
            return invalid("a text holds a control character");
        }
        if self.version > MAX_VERSION {
            return invalid("its version is beyond what a signer can count to");
        }
        if let Some(record) = &self.record {
            let figures = [record.model_bits_per_byte, record.memory_bits_per_byte, record.blend_bits_per_byte];
            if !figures.iter().all(|figure| figure.is_finite() && *figure >= 0.0) {
                return invalid("a figure of its record is not a finite number of at least 0");
            }
        }
        if !self.training.fingerprint.is_valid() {
            return invalid("its fingerprint of the training data is not in order");
        }
        self.config.validate()?;
        if !self.sections.iter().map(|section| section.name.as_str()).eq(NAMES) {
            return invalid("its sections are not `tokenizer`, `weights`, `blend`, in this order");
        }
        Ok(())
    }
}

/// JSON without spaces, in which a real number is the shortest decimal that reads back as itself, never with an
/// exponent. serde_json's own form of numbers has changed between its versions; a signature outlives them.
struct Canonical;

impl Formatter for Canonical {
    fn write_f32<W: Write + ?Sized>(&mut self, out: &mut W, number: f32) -> io::Result<()> {
        write!(out, "{number}")
    }

    fn write_f64<W: Write + ?Sized>(&mut self, out: &mut W, number: f64) -> io::Result<()> {
        write!(out, "{number}")
    }
}

/// Every JSON reader has integers up to here, and a version mark can always be one higher.
const MAX_VERSION: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests;
