//! The training state on disk: what a killed run goes on from.
//!
//! ```text
//! "NCTRAIN2" · u64 length of header · header (JSON: shapes, progress, hashes) · f32 payload, little-endian
//! ```
//!
//! Written to a temporary file, synced, then renamed: there is always a whole state or none. Reading checks
//! every length against what is left, and the payload's hash.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use nanochat_engine::TokenId;
use serde::{Deserialize, Serialize};

use crate::model::Params;

/// Where a run is, inside the state folder.
pub const FILE_NAME: &str = "state.nct";
/// Where it was at a step that follows from the recipe alone: what a run that runs away goes back to.
pub const EARLIER_NAME: &str = "earlier.nct";

const MAGIC: &[u8; 8] = b"NCTRAIN2";
const MAX_HEADER: u64 = 16 << 20;

/// Masters and momenta at one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Steps done.
    pub step: usize,
    /// Tokens seen.
    pub tokens: usize,
    /// One per parameter.
    pub values: Vec<Vec<f32>>,
    /// One per parameter.
    pub momenta: Vec<Vec<f32>>,
}

/// All that a run needs to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Hash of the recipe without its length.
    pub recipe: String,
    /// Hash of the corpus and its split.
    pub corpus: String,
    /// Hash of the weights it started from; empty for fresh ones.
    pub base: String,
    /// The tokenizer.
    pub merges: Vec<(TokenId, TokenId)>,
    /// Whether the run came to its end and its figures were taken.
    pub finished: bool,
    /// Held-out figures before training, in the order model, memory, blend, unigram.
    pub before: [f64; 4],
    /// What the recipe's rates are multiplied by.
    pub rate: f64,
    /// Where it is.
    pub now: Snapshot,
    /// Where the decay began, once it has: a longer run goes on from there.
    pub stable: Option<Snapshot>,
}

/// Why a state cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file system said no.
    #[error("training state {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are not a state of this version.
    #[error("training state {path} is damaged ({reason}); pass --restart to begin afresh")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// Another process trains there.
    #[error("this workspace is being trained by another process ({folder}); wait for it, or stop it with Ctrl-C")]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// It belongs to another run.
    #[error("training state {path} is of another {what}; pass --restart to begin afresh")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// `recipe`, `corpus` or `base`.
        what: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    recipe: String,
    corpus: String,
    base: String,
    merges: Vec<(TokenId, TokenId)>,
    finished: bool,
    before: [f64; 4],
    rate: f64,
    lengths: Vec<usize>,
    now: (usize, usize),
    stable: Option<(usize, usize)>,
    payload_hash: String,
}

/// Keeps other trainers away from a folder while it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock ends with the file")] std::fs::File);

impl Lock {
    /// Takes the folder, which is made if there is none. The system frees it when the process ends, however it ends.
    pub fn take(folder: &Path) -> Result<Self, StateError> {
        let path = folder.join("lock");
        let open = || {
            std::fs::create_dir_all(folder)?;
            std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path)
        };
        let file = open().map_err(|source| StateError::Io { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(std::fs::TryLockError::WouldBlock) => Err(StateError::Busy { folder: folder.to_owned() }),
            Err(std::fs::TryLockError::Error(source)) => Err(StateError::Io { path, source }),
        }
    }
}

impl State {
    /// Writes `folder/name`, whole or not at all.
    pub fn save(&self, folder: &Path, name: &str) -> Result<(), StateError> {
        let path = folder.join(name);
        self.try_save(folder, &path).map_err(|source| StateError::Io { path, source })
    }

    fn try_save(&self, folder: &Path, path: &Path) -> std::io::Result<()> {
        let mut payload = Vec::new();
        for snapshot in std::iter::once(&self.now).chain(&self.stable) {
            for array in snapshot.values.iter().chain(&snapshot.momenta) {
                payload.extend(array.iter().flat_map(|v| v.to_le_bytes()));
            }
        }
        let header = Header {
            recipe: self.recipe.clone(),
            corpus: self.corpus.clone(),
            base: self.base.clone(),
            merges: self.merges.clone(),
            finished: self.finished,
            before: self.before,
            rate: self.rate,
            lengths: self.now.values.iter().map(Vec::len).collect(),
            now: (self.now.step, self.now.tokens),
            stable: self.stable.as_ref().map(|s| (s.step, s.tokens)),
            payload_hash: blake3::hash(&payload).to_hex().to_string(),
        };
        let header = serde_json::to_vec(&header)?;
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(MAGIC)?;
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        file.write_all(&payload)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        #[cfg(unix)]
        File::open(folder)?.sync_all()?; // the rename itself
        Ok(())
    }

    /// Reads `folder/name`; `None` if there is none. `expected_lengths` gives the lengths of
    /// the parameters that a model with so many tokens has.
    pub fn load(
        folder: &Path,
        name: &str,
        expected_lengths: impl Fn(usize) -> Vec<usize>,
    ) -> Result<Option<Self>, StateError> {
        let path = folder.join(name);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Io { path, source }),
        }
        match Self::decode(&bytes, expected_lengths) {
            Ok(state) => Ok(Some(state)),
            Err(reason) => Err(StateError::Damaged { path, reason }),
        }
    }

    fn decode(bytes: &[u8], expected_lengths: impl Fn(usize) -> Vec<usize>) -> Result<Self, &'static str> {
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or("too short")?;
        if magic != MAGIC {
            return Err("not a training state of this version");
        }
        let (len, rest) = rest.split_first_chunk::<8>().ok_or("too short")?;
        let len = u64::from_le_bytes(*len);
        if len > MAX_HEADER || len > rest.len() as u64 {
            return Err("header longer than the file");
        }
        let (header, payload) = rest.split_at(len as usize);
        let header: Header = serde_json::from_slice(header).map_err(|_| "header is not valid")?;
        if !(header.rate.is_finite() && header.rate > 0.0) {
            return Err("header is not valid");
        }
        let vocab_size = usize::from(nanochat_engine::tokenizer::FIRST_MERGE) + header.merges.len();
        if header.lengths != expected_lengths(vocab_size) {
            return Err("shapes are not those of the recipe");
        }
        // The lengths are our own now, so these sums cannot overflow.
        let per_snapshot = 2 * header.lengths.iter().sum::<usize>();
        let n_snapshots = 1 + usize::from(header.stable.is_some());
        if payload.len() != 4 * per_snapshot * n_snapshots {
            return Err("payload has another length");
        }
        if blake3::hash(payload).to_hex().as_str() != header.payload_hash {
            return Err("payload does not have its hash");
        }
        let mut numbers = payload.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        let mut snapshot = |(step, tokens): (usize, usize)| {
            let mut arrays = || header.lengths.iter().map(|len| numbers.by_ref().take(*len).collect()).collect();
            Snapshot { step, tokens, values: arrays(), momenta: arrays() }
        };
        let now = snapshot(header.now);
        let stable = header.stable.map(snapshot);
        Ok(Self {
            recipe: header.recipe,
            corpus: header.corpus,
            base: header.base,
            merges: header.merges,
            finished: header.finished,
            before: header.before,
            rate: header.rate,
            now,
            stable,
        })
    }

    /// Refuses a state of another run.
    pub fn check(&self, folder: &Path, recipe: &str, corpus: &str, base: &str) -> Result<(), StateError> {
        let pairs = [("recipe", &self.recipe, recipe), ("corpus", &self.corpus, corpus), ("base", &self.base, base)];
        match pairs.into_iter().find(|(_, ours, theirs)| ours != theirs) {
            Some((what, ..)) => Err(StateError::Foreign { path: folder.join(FILE_NAME), what }),
            None => Ok(()),
        }
    }
}

impl Snapshot {
    /// Puts a run back to where it was.
    pub fn restore(self, params: &mut Params, momenta: &mut Vec<Vec<f32>>) {
        for (param, values) in params.list.iter_mut().zip(self.values) {
            param.values = values;
        }
        *momenta = self.momenta;
    }

    /// A copy of where a run is.
    pub fn of(params: &Params, momenta: &[Vec<f32>], step: usize, tokens: usize) -> Self {
        let values = params.list.iter().map(|param| param.values.clone()).collect();
        Self { step, tokens, values, momenta: momenta.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let snapshot = |step| Snapshot {
            step,
            tokens: 7,
            values: vec![vec![1.5, -2.0], vec![3.0]],
            momenta: vec![vec![0.0; 2], vec![0.5]],
        };
        State {
            recipe: "r".into(),
            corpus: "c".into(),
            base: String::new(),
            merges: vec![(8, 9)],
            finished: false,
            before: [1.0, 2.0, 3.0, 4.0],
            rate: 0.5,
            now: snapshot(9),
            stable: Some(snapshot(5)),
        }
    }

    fn lengths(_: usize) -> Vec<usize> {
        vec![2, 1]
    }

    fn saved() -> (tempfile::TempDir, Vec<u8>) {
        let folder = tempfile::tempdir().expect("a folder can be made");
        state().save(folder.path(), FILE_NAME).expect("it can be written");
        let bytes = std::fs::read(folder.path().join(FILE_NAME)).expect("it was written");
        (folder, bytes)
    }

    #[test]
    fn a_state_reads_back_as_it_was() {
        let (folder, _) = saved();
        assert_eq!(State::load(folder.path(), FILE_NAME, lengths).expect("it is whole"), Some(state()));
    }

    #[test]
    fn no_state_is_none() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        assert_eq!(State::load(folder.path(), FILE_NAME, lengths).expect("absence is no error"), None);
    }

    #[test]
    fn every_truncation_is_damage() {
        let (_folder, bytes) = saved();
        for len in 0..bytes.len() {
            assert!(State::decode(&bytes[..len], lengths).is_err(), "{len} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn every_flipped_payload_byte_is_damage() {
        let (_folder, bytes) = saved();
        for idx in bytes.len() - 48..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[idx] ^= 1;
            assert!(State::decode(&bytes, lengths).is_err(), "byte {idx}");
        }
    }

    #[test]
    fn a_header_that_claims_too_much_is_damage() {
        let (_folder, mut bytes) = saved();
        bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(State::decode(&bytes, lengths), Err("header longer than the file"));
    }

    #[test]
    fn other_shapes_are_refused() {
        let (_folder, bytes) = saved();
        assert_eq!(State::decode(&bytes, |_| vec![usize::MAX, 2]), Err("shapes are not those of the recipe"));
    }

    #[test]
    fn a_state_of_another_corpus_is_refused_with_a_way_out() {
        let error = state().check(Path::new("x"), "r", "other", "").expect_err("the corpus differs").to_string();
        assert!(error.contains("another corpus") && error.contains("--restart"), "{error}");
    }
}
