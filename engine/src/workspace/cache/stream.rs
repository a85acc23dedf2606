//! The tokens of one package.
//!
//! ```text
//! magic, version, number of files, key, hash of all that follows
//! per file: bytes of its name, number of its tokens;   the names;   the tokens, two bytes each
//! ```

use super::files::{HASH, Hash};
use crate::text::SourceFile;
use crate::text::tokenizer::Tokenizer;
use crate::workspace::sources::{Package, Sources};

const MAGIC: [u8; 8] = *b"ncstream";
/// Changes with the layout and with which files are left out.
const VERSION: u32 = 1;
const HEADER: usize = 16 + 2 * HASH;
/// Lines that are longer on average are not written by hand.
const MOST_LINE_BYTES: usize = 400;
/// Shorter files may have long lines.
const LEAST_BYTES: usize = 16 << 10;
/// Bytes of a file that are searched for a generator's mark.
const HEAD: usize = 1 << 10;

/// The files of a package as tokens.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) key: Hash,
    /// Name and tokens, two bytes each; in name order.
    pub(super) files: Vec<(String, Vec<u8>)>,
}

/// A path that was left out, and why.
pub(super) type Skipped = (String, String);

/// The text of a package and its key.
pub(super) struct PackageText {
    pub(super) key: Hash,
    files: Vec<SourceFile>,
    pub(super) skipped: Vec<Skipped>,
}

impl PackageText {
    pub(super) fn read(package: &Package, tokenizer: &Tokenizer) -> Self {
        let (files, skipped) = read_files(package);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&VERSION.to_le_bytes()).update(&tokenizer.hash());
        for file in &files {
            for part in [&file.name, &file.text] {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
            }
        }
        Self { key: *hasher.finalize().as_bytes(), files, skipped }
    }

    pub(super) fn encode(&self, tokenizer: &Tokenizer) -> Stream {
        let mut tokens = Vec::new();
        let encode = |file: &SourceFile| {
            tokens.clear();
            tokenizer.encode_into(file.text.as_bytes(), &mut tokens, |_, _| ());
            (file.name.clone(), tokens.iter().flat_map(|token| token.to_le_bytes()).collect())
        };
        Stream { key: self.key, files: self.files.iter().map(encode).collect() }
    }
}

/// The files of a package that are worth indexing.
pub(super) fn read_files(package: &Package) -> (Vec<SourceFile>, Vec<Skipped>) {
    let sources = Sources { root: package.folder.clone(), packages: vec![package.clone()] };
    let (mut files, skipped) = sources.collect(&[package.role]);
    let mut skipped: Vec<Skipped> =
        skipped.into_iter().map(|file| (file.path.display().to_string(), file.reason)).collect();
    files.retain(|file| match generated(&file.text) {
        Some(reason) => {
            skipped.push((file.path.display().to_string(), reason.to_owned()));
            false
        }
        None => true,
    });
    (files, skipped)
}

/// Why a file is not worth indexing, if it is not.
fn generated(text: &str) -> Option<&'static str> {
    let head = &text.as_bytes()[..text.len().min(HEAD)];
    let has = |mark: &str| head.windows(mark.len()).any(|bytes| bytes.eq_ignore_ascii_case(mark.as_bytes()));
    if has("@generated") || has("automatically generated") {
        return Some("it is marked as generated");
    }
    let n_lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
    (text.len() >= LEAST_BYTES && text.len() / n_lines > MOST_LINE_BYTES)
        .then_some("its lines are too long to be written by hand")
}

impl Stream {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, tokens) in &self.files {
            body.extend((name.len() as u32).to_le_bytes());
            body.extend((tokens.len() as u32 / 2).to_le_bytes());
        }
        self.files.iter().for_each(|(name, _)| body.extend(name.as_bytes()));
        self.files.iter().for_each(|(_, tokens)| body.extend(tokens));
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((self.files.len() as u32).to_le_bytes());
        bytes.extend(self.key);
        bytes.extend(Self::hash(&bytes, &body));
        bytes.extend(body);
        bytes
    }

    /// The stream in `bytes`, if it is that of `key` and intact.
    pub(super) fn from_bytes(bytes: &[u8], key: &Hash) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEADER - HASH)?;
        let (hash, body) = rest.split_at_checked(HASH)?;
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes are given")) as usize;
        let (magic, counts) = head.split_at(8);
        if magic != MAGIC || counts[..4] != VERSION.to_le_bytes() || counts[8..] != *key {
            return None;
        }
        if Self::hash(head, body) != hash {
            return None;
        }
        let (lens, rest) = body.split_at_checked(number(&counts[4..8]).checked_mul(8)?)?;
        let lens: Vec<(usize, usize)> =
            lens.chunks_exact(8).map(|pair| (number(&pair[..4]), number(&pair[4..]))).collect();
        let n_names = lens.iter().try_fold(0usize, |sum, (len, _)| sum.checked_add(*len))?;
        let (mut names, mut tokens) = rest.split_at_checked(n_names)?;
        let mut files = Vec::with_capacity(lens.len());
        for (name_len, n_tokens) in lens {
            let name = names.split_off(..name_len)?;
            let tokens = tokens.split_off(..n_tokens.checked_mul(2)?)?;
            files.push((String::from_utf8(name.to_vec()).ok()?, tokens.to_vec()));
        }
        (names.is_empty() && tokens.is_empty()).then_some(Self { key: *key, files })
    }

    fn hash(head: &[u8], body: &[u8]) -> Hash {
        *blake3::Hasher::new().update(head).update(body).finalize().as_bytes()
    }
}
