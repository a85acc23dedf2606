//! The training state on disk: what an interrupted run is resumed from.
//!
//! ```text
//! "NCTRAIN3" · u64 length of header · header (JSON: shapes, progress, hashes) · payload, little-endian
//! ```
//!
//! Written to a temporary file, synced, then renamed: there is always a whole state or none. Reading checks
//! every length against what is left, and the payload's hash.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use nanochat_engine::TokenId;
use serde::{Deserialize, Serialize};

use crate::measure::Figures;
use crate::optim::Moments;
use crate::state_dir::StateError;

/// Name of the present state in the state folder.
pub const FILE_NAME: &str = "state.nct";
/// Name of an earlier state, at a step that follows from the recipe alone: a diverging run goes back to it.
pub const EARLIER_NAME: &str = "earlier.nct";

const MAGIC: &[u8; 8] = b"NCTRAIN3";
const MAX_HEADER: u64 = 16 << 20;

/// Masters and moments at one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Number of steps done.
    pub step: usize,
    /// Number of tokens seen.
    pub tokens: usize,
    /// Masters of each parameter.
    pub values: Vec<Vec<f32>>,
    /// Running average of each parameter's masters; empty where the recipe takes none.
    pub averages: Vec<Vec<f32>>,
    /// Moments of the optimizers.
    pub moments: Moments,
}

/// Shapes of a snapshot of a recipe's model: a file is compared with them before anything is allocated.
#[derive(Clone, Debug, PartialEq)]
pub struct Shapes {
    /// Number of values of each parameter.
    pub lengths: Vec<usize>,
    /// Whether there are running averages of them.
    pub has_averages: bool,
    /// Moments of zeros, of the optimizers' shapes.
    pub moments: Moments,
}

impl Shapes {
    fn n_bytes(&self) -> usize {
        4 * self.lengths.iter().sum::<usize>() * (1 + usize::from(self.has_averages)) + self.moments.n_bytes()
    }
}

/// The best masters that were measured, where the recipe stops early.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    /// Number of steps done at that measurement.
    pub step: usize,
    /// Held-out bits per byte of these masters.
    pub bits_per_byte: f64,
    /// Masters of each parameter.
    pub values: Vec<Vec<f32>>,
}

/// Everything that a run needs to continue.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Hash of the recipe without its length; see [`Recipe::hash`](crate::Recipe::hash).
    pub recipe: String,
    /// Hash of the corpus and its split.
    pub corpus: String,
    /// Hash of the base's manifest; empty for fresh weights.
    pub base: String,
    /// Merges of the tokenizer.
    pub merges: Vec<(TokenId, TokenId)>,
    /// Whether the run reached its end and its final figures were measured.
    pub finished: bool,
    /// Held-out figures before training.
    pub before: Figures,
    /// Factor on the recipe's learning rates.
    pub rate: f64,
    /// Masters and moments at the present step.
    pub now: Snapshot,
    /// The step at which the decay of the learning rate started, once it has: a longer run continues from there.
    pub stable: Option<Snapshot>,
    /// The best masters so far, where the recipe stops early.
    pub best: Option<Best>,
    /// Hash of the corpus of the finished run that this one updates.
    pub since: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    recipe: String,
    corpus: String,
    base: String,
    merges: Vec<(TokenId, TokenId)>,
    finished: bool,
    before: Figures,
    rate: f64,
    lengths: Vec<usize>,
    snapshot_bytes: usize,
    now: (usize, usize),
    stable: Option<(usize, usize)>,
    best: Option<(usize, f64)>,
    since: Option<String>,
    payload_hash: String,
}

/// Removes the states of `folder`, as far as there are any.
pub fn remove(folder: &Path) -> Result<(), StateError> {
    for name in [FILE_NAME, EARLIER_NAME] {
        let path = folder.join(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(StateError::Io { path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

impl State {
    /// Writes `folder/name`, whole or not at all.
    pub fn save(&self, folder: &Path, name: &str) -> Result<(), StateError> {
        let path = folder.join(name);
        self.try_save(folder, &path).map_err(|source| StateError::Io { path, source })
    }

    fn try_save(&self, folder: &Path, path: &Path) -> std::io::Result<()> {
        let mut payload = Vec::new();
        let floats = |payload: &mut Vec<u8>, arrays: &[Vec<f32>]| {
            payload.extend(arrays.iter().flatten().flat_map(|v| v.to_le_bytes()));
        };
        for snapshot in std::iter::once(&self.now).chain(&self.stable) {
            floats(&mut payload, &snapshot.values);
            floats(&mut payload, &snapshot.averages);
            snapshot.moments.write(&mut payload);
        }
        if let Some(best) = &self.best {
            floats(&mut payload, &best.values);
        }
        let header = Header {
            recipe: self.recipe.clone(),
            corpus: self.corpus.clone(),
            base: self.base.clone(),
            merges: self.merges.clone(),
            finished: self.finished,
            before: self.before.clone(),
            rate: self.rate,
            lengths: self.now.values.iter().map(Vec::len).collect(),
            snapshot_bytes: self.now.n_bytes(),
            now: (self.now.step, self.now.tokens),
            stable: self.stable.as_ref().map(|s| (s.step, s.tokens)),
            best: self.best.as_ref().map(|best| (best.step, best.bits_per_byte)),
            since: self.since.clone(),
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

    /// Reads `folder/name`; `None` if there is none. `shapes` gives those of a model with so many tokens, `None` where
    /// there is no such model.
    pub fn load(
        folder: &Path,
        name: &str,
        shapes: impl Fn(usize) -> Option<Shapes>,
    ) -> Result<Option<Self>, StateError> {
        let path = folder.join(name);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Io { path, source }),
        }
        match Self::decode(&bytes, shapes) {
            Ok(state) => Ok(Some(state)),
            Err(reason) => Err(StateError::Damaged { path, reason }),
        }
    }

    fn decode(bytes: &[u8], shapes: impl Fn(usize) -> Option<Shapes>) -> Result<Self, &'static str> {
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
        let vocab_size = usize::from(nanochat_engine::text::tokenizer::FIRST_MERGE) + header.merges.len();
        let own = |shapes: &Shapes| header.lengths == shapes.lengths && header.snapshot_bytes == shapes.n_bytes();
        let shapes = shapes(vocab_size).filter(own).ok_or("shapes are not those of the recipe")?;
        // The lengths are our own now, so these sums cannot overflow.
        let n_snapshots = 1 + usize::from(header.stable.is_some());
        let of_best = if header.best.is_some() { 4 * shapes.lengths.iter().sum::<usize>() } else { 0 };
        if payload.len() != shapes.n_bytes() * n_snapshots + of_best {
            return Err("payload has another length");
        }
        if blake3::hash(payload).to_hex().as_str() != header.payload_hash {
            return Err("payload does not have its hash");
        }
        let mut rest = payload;
        let arrays = |rest: &mut &[u8]| -> Option<Vec<Vec<f32>>> {
            let array = |len: &usize| {
                let (own, after) = rest.split_at_checked(4 * len)?;
                *rest = after;
                Some(own.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
            };
            shapes.lengths.iter().map(array).collect()
        };
        let snapshot = |rest: &mut &[u8], (step, tokens): (usize, usize)| {
            let values = arrays(rest)?;
            let averages = if shapes.has_averages { arrays(rest)? } else { Vec::new() };
            let mut moments = shapes.moments.clone();
            moments.read(rest).then_some(Snapshot { step, tokens, values, averages, moments })
        };
        let too_short = "payload has another length";
        let now = snapshot(&mut rest, header.now).ok_or(too_short)?;
        let stable = header.stable.map(|at| snapshot(&mut rest, at).ok_or(too_short)).transpose()?;
        let mut best = |(step, bits_per_byte)| Some(Best { step, bits_per_byte, values: arrays(&mut rest)? });
        let best = header.best.map(|at| best(at).ok_or(too_short)).transpose()?;
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
            best,
            since: header.since,
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
    fn n_bytes(&self) -> usize {
        4 * self.values.iter().chain(&self.averages).map(Vec::len).sum::<usize>() + self.moments.n_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::FileBits;
    use crate::model::Params;
    use crate::{HeldOut, Recipe};

    fn shapes(_: usize) -> Option<Shapes> {
        let optimizer = Recipe::load("test").expect("it is built in").optimizer;
        let config = "d8 l1 h1 kv1 ff8 v264 n1".parse().expect("a valid shape");
        let mut params = Params::init(&config, 1);
        params.list.truncate(2);
        let lengths = params.list.iter().map(|param| param.values.len()).collect();
        Some(Shapes { lengths, has_averages: true, moments: optimizer.moments(&params) })
    }

    fn state() -> State {
        let Shapes { lengths, moments, .. } = shapes(0).expect("there are some");
        let arrays = |value: f32| lengths.iter().map(|len| vec![value; *len]).collect::<Vec<_>>();
        let snapshot =
            |step| Snapshot { step, tokens: 7, values: arrays(1.5), averages: arrays(1.25), moments: moments.clone() };
        State {
            recipe: "r".into(),
            corpus: "c".into(),
            base: String::new(),
            merges: vec![(8, 9)],
            finished: false,
            before: Figures {
                total: HeldOut { model: 1.0, memory: 2.0, blend: 3.0, unigram: 4.0, general: Some(5.0) },
                files: vec![FileBits { name: "a.rs".into(), n_bytes: 10, model: 10.0, blend: 30.0 }],
            },
            rate: 0.5,
            now: snapshot(9),
            stable: Some(snapshot(5)),
            best: Some(Best { step: 6, bits_per_byte: 1.5, values: arrays(-1.0) }),
            since: Some("d".into()),
        }
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
        assert_eq!(State::load(folder.path(), FILE_NAME, shapes).expect("it is whole"), Some(state()));
    }

    #[test]
    fn no_state_is_none() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        assert_eq!(State::load(folder.path(), FILE_NAME, shapes).expect("absence is no error"), None);
    }

    #[test]
    fn every_truncation_is_damage() {
        let (_folder, bytes) = saved();
        for len in 0..bytes.len() {
            assert!(State::decode(&bytes[..len], shapes).is_err(), "{len} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn every_flipped_payload_byte_is_damage() {
        let (_folder, bytes) = saved();
        for idx in bytes.len() - 48..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[idx] ^= 1;
            assert!(State::decode(&bytes, shapes).is_err(), "byte {idx}");
        }
    }

    #[test]
    fn a_header_that_claims_too_much_is_damage() {
        let (_folder, mut bytes) = saved();
        bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(State::decode(&bytes, shapes), Err("header longer than the file"));
    }

    #[test]
    fn other_shapes_are_refused() {
        let (_folder, bytes) = saved();
        let others = |vocab_size| {
            let mut others = shapes(vocab_size)?;
            others.lengths[0] = usize::MAX;
            Some(others)
        };
        assert_eq!(State::decode(&bytes, others), Err("shapes are not those of the recipe"));
        assert_eq!(State::decode(&bytes, |_| None), Err("shapes are not those of the recipe"));
    }

    #[test]
    fn a_state_of_another_corpus_is_refused_with_a_way_out() {
        let error = state().check(Path::new("x"), "r", "other", "").expect_err("the corpus differs").to_string();
        assert!(error.contains("another corpus") && error.contains("--restart"), "{error}");
    }
}
