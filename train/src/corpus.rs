//! A workspace's files: secrets taken out, exact duplicates dropped, whole files split off for validation.
//!
//! The split follows from the contents and the seed alone. Files are taken in the order of a hash until the
//! held-out share is reached; a file that would take it beyond twice the share is passed over. There is always
//! at least one held-out file, and never are all held out. Of a workspace with a single file, the last part (by
//! the share, cut at a line) is held out instead, and no file is reported as held out whole.

use std::collections::HashSet;
use std::path::PathBuf;

use nanochat_engine::sources::{Role, SourceFile};
use nanochat_engine::{Sources, secrets};

use crate::TrainError;
use crate::learned::Forgotten;

/// Files to train on and files to judge by.
#[derive(Clone, Debug, PartialEq)]
pub struct Corpus {
    /// Trained on, by name.
    pub train: Vec<SourceFile>,
    /// Held out, by name.
    pub held_out: Vec<SourceFile>,
    /// Of dependencies, trained on beside the others so that what a base knows is not forgotten.
    pub replay: Vec<SourceFile>,
    /// Of dependencies, held out: whether it is forgotten is judged by them.
    pub general: Vec<SourceFile>,
    /// Whether the held-out text is part of a file that is also trained on.
    pub within_one_file: bool,
    /// What was left out, with a reason.
    pub skipped: Vec<(PathBuf, String)>,
    /// Secrets that stand in no file here, neither in one that is trained on nor in one that is held out.
    pub n_scrubbed: usize,
    /// blake3 of the sorted (path, content hash) list of all files, with the split.
    pub hash: String,
    /// SPDX expressions of the packages, sorted.
    pub licences: Vec<String>,
}

impl Corpus {
    /// Collects the workspace members' files but for those to be forgotten, without the secrets in them, and splits them.
    pub fn collect(
        sources: &Sources,
        forgotten: &Forgotten,
        held_out_share: f64,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let (mut files, skipped) = sources.collect(&[Role::Member]);
        files.retain(|file| !forgotten.contains(&file.name));
        let mut skipped: Vec<(PathBuf, String)> = skipped.into_iter().map(|s| (s.path, s.reason)).collect();
        let mut seen = HashSet::new();
        let mut kept = Vec::with_capacity(files.len());
        let mut n_scrubbed = 0;
        for mut file in files {
            let (text, n_found) = secrets::scrub_counted(&file.text);
            if n_found > 0 {
                file.text = text.into_owned();
                n_scrubbed += n_found;
            }
            if file.text.trim().is_empty() {
                continue;
            }
            if seen.insert(blake3::hash(file.text.as_bytes())) {
                kept.push(file);
            } else {
                skipped.push((file.path, "a copy of another file".to_owned()));
            }
        }
        if kept.is_empty() {
            return Err(TrainError::Empty { root: sources.root.clone() });
        }
        let licences: std::collections::BTreeSet<String> =
            sources.members().filter_map(|package| package.licence.clone()).collect();
        let mut corpus = Self::split(kept, held_out_share, seed)?;
        corpus.skipped = skipped;
        corpus.n_scrubbed = n_scrubbed;
        corpus.licences = licences.into_iter().collect();
        Ok(corpus)
    }

    /// Splits files that are all different. There must be at least one.
    pub fn split(mut files: Vec<SourceFile>, held_out_share: f64, seed: u64) -> Result<Self, TrainError> {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let (train, held_out, within_one_file) = if let [file] = &files[..] {
            let (train, held_out) = cut(file, held_out_share)?;
            (vec![train], vec![held_out], true)
        } else {
            let (train, held_out) = split_whole(files, held_out_share, seed);
            (train, held_out, false)
        };
        let corpus = Self {
            train,
            held_out,
            replay: Vec::new(),
            general: Vec::new(),
            within_one_file,
            skipped: Vec::new(),
            n_scrubbed: 0,
            hash: String::new(),
            licences: Vec::new(),
        };
        Ok(corpus.hashed())
    }

    /// With files of dependencies to train on beside its own: at most [`MAX_REPLAY`] bytes of them, some held out, and
    /// none that the workspace has too. Fewer than two files are none.
    pub fn with_replay(mut self, mut files: Vec<SourceFile>, seed: u64) -> Self {
        let own: HashSet<_> =
            self.train.iter().chain(&self.held_out).map(|file| blake3::hash(file.text.as_bytes())).collect();
        files.retain(|file| !file.text.trim().is_empty() && !own.contains(&blake3::hash(file.text.as_bytes())));
        files.sort_by_cached_key(|file| order_key(file, seed));
        let mut n_bytes = 0;
        files.retain(|file| {
            n_bytes += file.text.len();
            n_bytes <= MAX_REPLAY
        });
        files.sort_by(|a, b| a.name.cmp(&b.name));
        if files.len() > 1 {
            (self.replay, self.general) = split_whole(files, GENERAL_SHARE, seed);
        }
        self.hashed()
    }

    fn hashed(self) -> Self {
        let Self { train, held_out, replay, general, .. } = &self;
        let hash = hash(&[(b"t", train), (b"h", held_out), (b"r", replay), (b"g", general)]);
        Self { hash, ..self }
    }

    /// The same files, on other sides.
    pub(crate) fn with_sides(self, mut train: Vec<SourceFile>, mut held_out: Vec<SourceFile>) -> Self {
        for side in [&mut train, &mut held_out] {
            side.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Self { train, held_out, ..self }.hashed()
    }

    /// Bytes trained on.
    pub fn train_bytes(&self) -> usize {
        self.train.iter().map(|file| file.text.len()).sum()
    }

    /// Bytes held out.
    pub fn held_out_bytes(&self) -> usize {
        self.held_out.iter().map(|file| file.text.len()).sum()
    }
}

/// Bytes of dependencies that are enough to remind a model of what it knows.
const MAX_REPLAY: usize = 8 << 20;
/// Share of them that is held out.
const GENERAL_SHARE: f64 = 0.02;
/// Smallest text that is worth holding out.
const MIN_PART: usize = 256;

fn cut(file: &SourceFile, share: f64) -> Result<(SourceFile, SourceFile), TrainError> {
    let text = &file.text;
    let from = ((text.len() as f64 * (1.0 - share)) as usize).min(text.len().saturating_sub(MIN_PART));
    let line = text.as_bytes()[..from].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    if line < MIN_PART {
        return Err(TrainError::TooSmall { bytes: text.len() });
    }
    let part = |text: &str| SourceFile { text: text.to_owned(), ..file.clone() };
    Ok((part(&text[..line]), part(&text[line..])))
}

fn split_whole(files: Vec<SourceFile>, share: f64, seed: u64) -> (Vec<SourceFile>, Vec<SourceFile>) {
    let total: usize = files.iter().map(|file| file.text.len()).sum();
    let goal = total as f64 * share;
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_cached_key(|idx| order_key(&files[*idx], seed));
    let (mut chosen, mut bytes) = (HashSet::new(), 0);
    for idx in order {
        let size = files[idx].text.len();
        if bytes as f64 >= goal || chosen.len() + 1 == files.len() {
            break;
        }
        if (bytes + size) as f64 <= 2.0 * goal {
            bytes += size;
            chosen.insert(idx);
        }
    }
    if chosen.is_empty() {
        // All files are large: the smallest comes nearest to the share.
        chosen.extend((0..files.len()).min_by_key(|idx| files[*idx].text.len()));
    }
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    for (idx, file) in files.into_iter().enumerate() {
        if chosen.contains(&idx) { held_out.push(file) } else { train.push(file) }
    }
    (train, held_out)
}

fn order_key(file: &SourceFile, seed: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(file.text.as_bytes());
    *hasher.finalize().as_bytes()
}

fn hash(sides: &[(&[u8; 1], &Vec<SourceFile>)]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (mark, files) in sides {
        for file in *files {
            hasher.update(*mark).update(&(file.name.len() as u64).to_le_bytes()).update(file.name.as_bytes());
            hasher.update(blake3::hash(file.text.as_bytes()).as_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use nanochat_engine::sources::Package;
    use proptest::prelude::*;

    use super::*;

    fn file(name: usize, size: usize) -> SourceFile {
        let text: String = format!("// file {name}\n").chars().cycle().take(size).collect();
        SourceFile { name: format!("src/f{name:03}.rs"), path: PathBuf::from(format!("/w/src/f{name:03}.rs")), text }
    }

    proptest! {
        #[test]
        fn something_is_held_out_and_something_is_left(sizes in proptest::collection::vec(1usize..5000, 2..40), seed: u64) {
            let files: Vec<_> = sizes.iter().enumerate().map(|(i, size)| file(i, *size)).collect();
            let corpus = Corpus::split(files.clone(), 0.1, seed).expect("several files can be split");
            prop_assert!(!corpus.train.is_empty() && !corpus.held_out.is_empty());
            prop_assert_eq!(corpus.train.len() + corpus.held_out.len(), files.len());
            prop_assert!(corpus.held_out.iter().all(|h| corpus.train.iter().all(|t| t.name != h.name)));
            let again = Corpus::split(files.into_iter().rev().collect(), 0.1, seed).expect("as before");
            prop_assert_eq!(corpus, again);
        }
    }

    #[test]
    fn the_held_out_share_of_many_files_is_near_the_goal() {
        for seed in 0..50 {
            let files = (0..60).map(|i| file(i, 500 + 137 * (i % 17))).collect();
            let corpus = Corpus::split(files, 0.1, seed).expect("several files can be split");
            let share = corpus.held_out_bytes() as f64 / (corpus.train_bytes() + corpus.held_out_bytes()) as f64;
            assert!((0.05..=0.2).contains(&share), "seed {seed}: {share}");
        }
    }

    #[test]
    fn the_end_of_a_single_file_is_held_out() {
        let corpus = Corpus::split(vec![file(0, 10_000)], 0.1, 1).expect("the file is long enough");
        assert!(corpus.within_one_file);
        assert!(corpus.train[0].text.ends_with('\n'));
        assert_eq!(corpus.train_bytes() + corpus.held_out_bytes(), 10_000);
        assert!((0.05..=0.2).contains(&(corpus.held_out_bytes() as f64 / 10_000.0)));
    }

    #[test]
    fn a_planted_secret_is_in_neither_half() {
        let scratch = tempfile::tempdir().expect("a folder can be made");
        let folder = scratch.path().join("w");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let key = format!("sk_{}_{}", "live", "Zq81RkT0vWmB5yXc7NdJ2pLe");
        for i in 0..10 {
            let text = format!("//! Part {i}.\n\npub fn client_{i}() -> Client {{\n    Client::new(\"{key}\")\n}}\n");
            std::fs::write(folder.join(format!("part{i}.rs")), text).expect("writable");
        }
        let package = Package {
            name: "x".into(),
            version: "0.1.0".into(),
            edition: "2024".into(),
            licence: None,
            folder: folder.clone(),
            role: Role::Member,
        };
        let sources = Sources { root: folder, packages: vec![package] };
        let corpus = Corpus::collect(&sources, &Forgotten::default(), 0.3, 1).expect("ten files");
        assert_eq!((corpus.n_scrubbed, corpus.train.len() + corpus.held_out.len()), (10, 10));
        for file in corpus.train.iter().chain(&corpus.held_out) {
            assert!(!file.text.contains(&key) && file.text.contains("Client::new(\"xxxxxxxx\")"), "{}", file.text);
        }
    }

    #[test]
    fn a_single_file_that_is_too_small_is_refused() {
        assert!(matches!(Corpus::split(vec![file(0, 300)], 0.1, 1), Err(TrainError::TooSmall { bytes: 300 })));
    }
}
