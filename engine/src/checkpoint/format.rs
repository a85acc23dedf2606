//! The frame around manifest and sections, reader and writer together.
//!
//! ```text
//! magic [8] · manifest length u32 LE · signature length u32 LE · manifest · signature · sections, no gaps · end
//! ```

use std::io::{Read, Write};

use nanochat_kernels::LargeBytes;

use super::{CheckpointError, Foreign, Manifest, Section};

/// Not text, and broken by every transfer that touches line ends (as PNG's).
pub(super) const MAGIC: [u8; 8] = *b"\x89NCZ\r\n\x1a\n";
/// Longest manifest, in bytes.
pub(super) const MAX_MANIFEST: u32 = 1 << 20;
/// Longest signature, in bytes.
pub(super) const MAX_SIGNATURE: u32 = 4 << 10;
/// Most bytes of all sections: five billion ternary weights, more than a CPU can run while one types.
pub(super) const MAX_SECTIONS: u64 = 1 << 30;

/// The bytes before the sections, none of them verified.
pub(super) struct Head {
    pub(super) manifest: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

impl Head {
    /// Reads up to the first section.
    pub(super) fn read(bytes: &mut impl Read) -> Result<Self, CheckpointError> {
        let start = take(bytes, 8)?;
        if start != MAGIC {
            return Err(match start.as_slice() {
                [] => CheckpointError::Foreign { found: Foreign::Empty },
                part if MAGIC.starts_with(part) => CheckpointError::Truncated { part: "header".to_owned() },
                part => CheckpointError::Foreign { found: Foreign::guess(part) },
            });
        }
        let manifest_len = read_len(bytes, "manifest", MAX_MANIFEST)?;
        let signature_len = read_len(bytes, "signature", MAX_SIGNATURE)?;
        let manifest = take_exactly(bytes, u64::from(manifest_len), "manifest")?;
        let signature = take_exactly(bytes, u64::from(signature_len), "signature")?;
        Ok(Self { manifest, signature })
    }

    /// Writes up to the first section.
    pub(super) fn write(&self, out: &mut impl Write) -> Result<(), CheckpointError> {
        out.write_all(&MAGIC).map_err(CheckpointError::Write)?;
        for (part, bytes, limit) in
            [("manifest", &self.manifest, MAX_MANIFEST), ("signature", &self.signature, MAX_SIGNATURE)]
        {
            let found = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            check_len(part, found, limit)?;
            out.write_all(&found.to_le_bytes()).map_err(CheckpointError::Write)?;
        }
        out.write_all(&self.manifest).map_err(CheckpointError::Write)?;
        out.write_all(&self.signature).map_err(CheckpointError::Write)
    }
}

/// The sections as bytes, in file order.
pub(super) struct Body(pub(super) [LargeBytes; 3]);

impl Body {
    /// Reads exactly the sections that the manifest names, then the end of the file. Sizes only; see
    /// [`Body::check_hashes`].
    pub(super) fn read(bytes: &mut impl Read, manifest: &Manifest) -> Result<Self, CheckpointError> {
        let mut total: u64 = 0;
        for section in &manifest.sections {
            total = total
                .checked_add(section.size)
                .filter(|total| *total <= MAX_SECTIONS)
                .ok_or(CheckpointError::TooLarge { part: "all sections together", limit: MAX_SECTIONS })?;
        }
        let mut read = |section: &Section| {
            let bytes = LargeBytes::read(bytes, usize::try_from(section.size).unwrap_or(usize::MAX))?;
            let is_whole = bytes.as_slice().len() as u64 == section.size;
            if is_whole { Ok(bytes) } else { Err(CheckpointError::Truncated { part: section.name.clone() }) }
        };
        let [tokenizer, weights, blend] = manifest.sections.as_slice() else {
            unreachable!("Manifest::parse found three sections, not {}", manifest.sections.len());
        };
        let body = Self([read(tokenizer)?, read(weights)?, read(blend)?]);
        if !take(bytes, 1)?.is_empty() {
            return Err(CheckpointError::TrailingBytes);
        }
        Ok(body)
    }

    /// Compares each section with its hash in the manifest.
    pub(super) fn check_hashes(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        for (section, bytes) in manifest.sections.iter().zip(&self.0) {
            if blake3::hash(bytes.as_slice()).to_string() != section.hash {
                return Err(CheckpointError::Hash { section: section.name.clone() });
            }
        }
        Ok(())
    }
}

impl Foreign {
    fn guess(start: &[u8]) -> Self {
        match start {
            [b'G', b'G', b'U', b'F', ..] => Self::Gguf,
            text if text.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n')) => Self::Text,
            _ => Self::Other,
        }
    }
}

fn read_len(bytes: &mut impl Read, part: &'static str, limit: u32) -> Result<u32, CheckpointError> {
    let len: [u8; 4] = take_exactly(bytes, 4, "header")?.try_into().expect("four bytes were taken");
    let len = u32::from_le_bytes(len);
    check_len(part, len, limit)?;
    Ok(len)
}

fn check_len(part: &'static str, len: u32, limit: u32) -> Result<(), CheckpointError> {
    if len <= limit { Ok(()) } else { Err(CheckpointError::TooLarge { part, limit: u64::from(limit) }) }
}

fn take_exactly(bytes: &mut impl Read, len: u64, part: &str) -> Result<Vec<u8>, CheckpointError> {
    let taken = take(bytes, len)?;
    if taken.len() as u64 == len { Ok(taken) } else { Err(CheckpointError::Truncated { part: part.to_owned() }) }
}

/// Up to `len` bytes. The buffer grows as they arrive, so a false length costs nothing.
fn take(bytes: &mut impl Read, len: u64) -> Result<Vec<u8>, CheckpointError> {
    let mut taken = Vec::new();
    bytes.by_ref().take(len).read_to_end(&mut taken)?;
    Ok(taken)
}
