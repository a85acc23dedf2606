//! The corpus of a run: files read, generated and duplicate ones left out, secrets removed, whole files held out.
//!
//! ```text
//! packages → list → read → filter → scrub → sketch → dedup → split → tokens (shards)
//!            └────── by all workers, results in a fixed order ──────┘
//! ```
//!
//! Members come first: a dependency's file that is a copy of one of theirs, held out or not, is left out. Only members'
//! files are held out, also where dependencies are trained on: the figures are about the code that the user writes, and
//! are those of the same files with dependencies and without.
//!
//! The split follows from the contents and the seed alone. Files are taken in the order of a hash until the
//! held-out share is reached; a file that would take it beyond twice the share is passed over. There is always
//! at least one held-out file, and never are all held out. Of a workspace with a single file, the last part (by
//! the share, cut at a line) is held out instead, and no file is reported as held out whole.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use nanochat_engine::workspace::sources::{Listed, Package, Role, SourceFile};
use nanochat_engine::{Sources, text::secrets};

use super::dedup::{self, Precedence, Sketch, Verdict};
use super::filter;
use super::forgotten::Forgotten;
use super::licence::Allowed;
use crate::pool::Pool;

/// Why the sources give no corpus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CorpusError {
    /// There is no Rust code to train on.
    #[error("no .rs file to train on under {root}, or all are left out; is it a cargo workspace?")]
    Empty {
        /// Root of the workspace.
        root: PathBuf,
    },
    /// There is too little code to hold any of it out.
    #[error("{bytes} bytes of Rust are too few to train on and to judge by; train a larger workspace")]
    TooSmall {
        /// Bytes of code in the workspace.
        bytes: usize,
    },
}

/// Files to train on and files to judge by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Corpus {
    /// Members' files that are trained on, by name.
    pub train: Vec<SourceFile>,
    /// Dependencies' files that are trained on, by name.
    pub dependencies: Vec<SourceFile>,
    /// Members' files that are held out, by name.
    pub held_out: Vec<SourceFile>,
    /// Dependencies' files that are replayed, so that what a base knows is not forgotten.
    pub replay: Vec<SourceFile>,
    /// Dependencies' files that are held out: they show whether what a base knows is forgotten.
    pub general: Vec<SourceFile>,
    /// Whether the held-out text is part of a file that is also trained on.
    pub within_one_file: bool,
    /// Files left out, each with the reason, by path.
    pub skipped: Vec<(PathBuf, String)>,
    /// Number of secrets removed from the files, both training and held-out ones.
    pub n_scrubbed: usize,
    /// blake3 of the sorted (path, content hash) list of all files, with the split.
    pub hash: String,
    /// SPDX expressions of the packages, sorted.
    pub licences: Vec<String>,
}

/// What to collect a corpus from.
#[derive(Clone, Copy, Debug)]
pub struct CollectRequest<'a> {
    /// The packages of a workspace.
    pub sources: &'a Sources,
    /// Licences whose dependencies are trained on too; `None`: members alone.
    pub dependencies: Option<&'a Allowed>,
    /// Paths that are left out.
    pub forgotten: &'a Forgotten,
    /// Share of the members' bytes that is held out, in whole files.
    pub held_out_share: f64,
    /// Seed of the split into training and held-out files.
    pub seed: u64,
}

/// Files that may be trained on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatheredFiles {
    /// Members' files, by name.
    pub members: Vec<SourceFile>,
    /// Dependencies' files, by name.
    pub dependencies: Vec<SourceFile>,
    /// Files left out, each with the reason, by path.
    pub skipped: Vec<(PathBuf, String)>,
    /// Number of secrets removed.
    pub n_scrubbed: usize,
    /// SPDX expressions of the members, and of the dependencies with a file among these, sorted.
    pub licences: Vec<String>,
}

impl GatheredFiles {
    /// Reads, filters, scrubs and compares: the members' files and, with a list of licences, those of the dependencies
    /// that it allows.
    pub fn gather(sources: &Sources, dependencies: Option<&Allowed>, forgotten: &Forgotten, pool: &Pool) -> Self {
        let mut skipped = Vec::new();
        let packages: Vec<usize> = (0..sources.packages.len())
            .filter(|idx| match whether(&sources.packages[*idx], dependencies) {
                Ok(is_wanted) => is_wanted,
                Err(reason) => {
                    skipped.push((sources.packages[*idx].folder.clone(), reason));
                    false
                }
            })
            .collect();
        let lists = pool.map(packages.len(), |i| sources.list(packages[i]));
        let (lists, left_out): (Vec<_>, Vec<_>) = lists.into_iter().unzip();
        skipped.extend(left_out.into_iter().flatten().map(|skip| (skip.path, skip.reason)));
        let mut listed = Listed::joined(lists);
        listed.retain(|listed| !forgotten.contains(&listed.name));
        let prepared = pool.map(listed.len(), |i| CleanFile::of(listed[i].clone(), sources));
        let (mut files, mut sketches, mut n_scrubbed) = (Vec::new(), Vec::new(), 0);
        for prepared in prepared {
            match prepared {
                Ok(Some(CleanFile { file, package, rank, sketch, n_secrets })) => {
                    files.push((file, package));
                    sketches.push((rank, sketch));
                    n_scrubbed += n_secrets;
                }
                Ok(None) => {}
                Err(skip) => skipped.push(skip),
            }
        }
        let reason = |verdict: Verdict| match verdict {
            Verdict::Kept => None,
            Verdict::Copy(kept) => Some(format!("a copy of {}", files[kept].0.name)),
            Verdict::NearCopy(kept) => Some(format!("nearly a copy of {}", files[kept].0.name)),
        };
        let reasons: Vec<Option<String>> = dedup::verdicts(&sketches).into_iter().map(reason).collect();
        drop(sketches);
        let mut gathered = Self { n_scrubbed, ..Self::default() };
        let is_member = |idx: usize| sources.packages[idx].role == Role::Member;
        let mut with_files: BTreeSet<usize> = packages.iter().copied().filter(|idx| is_member(*idx)).collect();
        for ((file, package), reason) in files.into_iter().zip(reasons) {
            if let Some(reason) = reason {
                skipped.push((file.path, reason));
                continue;
            }
            with_files.insert(package);
            let files = if is_member(package) { &mut gathered.members } else { &mut gathered.dependencies };
            files.push(file);
        }
        let licences = with_files.into_iter().filter_map(|idx| sources.packages[idx].licence.clone());
        gathered.licences = licences.collect::<BTreeSet<_>>().into_iter().collect();
        skipped.sort();
        skipped.dedup_by(|a, b| a.0 == b.0);
        gathered.skipped = skipped;
        gathered
    }
}

/// Whether a package's files are wanted; the reason where its licence forbids it.
fn whether(package: &Package, dependencies: Option<&Allowed>) -> Result<bool, String> {
    let Some(allowed) = dependencies.filter(|_| package.role == Role::Dependency) else {
        return Ok(package.role == Role::Member);
    };
    match &package.licence {
        Some(licence) if allowed.has(licence) => Ok(true),
        Some(licence) => Err(format!("its licence is not on the list: {licence}")),
        None => Err("it states no licence".to_owned()),
    }
}

/// A file that is read, filtered and scrubbed.
struct CleanFile {
    file: SourceFile,
    package: usize,
    rank: Precedence,
    sketch: Sketch,
    n_secrets: usize,
}

impl CleanFile {
    /// `None` for a file without text; the reason for one that is left out.
    fn of(listed: Listed, sources: &Sources) -> Result<Option<Self>, (PathBuf, String)> {
        let package_idx = listed.package;
        let package = &sources.packages[package_idx];
        let mut file = listed.read().map_err(|skip| (skip.path, skip.reason))?;
        if file.text.trim().is_empty() {
            return Ok(None);
        }
        if let Some(reason) = filter::reason(&file.text) {
            return Err((file.path, reason.to_owned()));
        }
        let (text, n_secrets) = secrets::scrub_counted(&file.text);
        if n_secrets > 0 {
            file.text = text.into_owned();
        }
        // What is listed has no other file of its name.
        let rank = Precedence::new(package.role == Role::Dependency, &package.name, &package.version, &file.name);
        let sketch = Sketch::new(&file.text);
        Ok(Some(Self { file, package: package_idx, rank, sketch, n_secrets }))
    }
}

impl Corpus {
    /// Gathers files and splits the members' ones.
    pub fn collect(wanted: &CollectRequest<'_>, pool: &Pool) -> Result<Self, CorpusError> {
        let files = GatheredFiles::gather(wanted.sources, wanted.dependencies, wanted.forgotten, pool);
        if files.members.is_empty() {
            return Err(CorpusError::Empty { root: wanted.sources.root.clone() });
        }
        let mut corpus = Self::split(files.members, wanted.held_out_share, wanted.seed)?;
        corpus.dependencies = files.dependencies;
        corpus.skipped = files.skipped;
        corpus.n_scrubbed = files.n_scrubbed;
        corpus.licences = files.licences;
        corpus.hash = corpus.hashed();
        Ok(corpus)
    }

    /// Splits files that are all different. There must be at least one.
    pub fn split(mut files: Vec<SourceFile>, held_out_share: f64, seed: u64) -> Result<Self, CorpusError> {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let (train, held_out, within_one_file) = if let [file] = &files[..] {
            let (train, held_out) = cut(file, held_out_share)?;
            (vec![train], vec![held_out], true)
        } else {
            let (train, held_out) = split_whole(files, held_out_share, seed);
            (train, held_out, false)
        };
        let mut corpus = Self { train, held_out, within_one_file, ..Self::default() };
        corpus.hash = corpus.hashed();
        Ok(corpus)
    }

    /// Takes the dependencies' files for what reminds a base of what it knows: at most 8 MiB of them, some
    /// held out. Fewer than two files are none.
    pub fn replayed(mut self, sources: &Sources, seed: u64) -> Self {
        // Few of the dependencies' files are taken, and the user did not ask for them: why others are not is no news.
        self.skipped.retain(|(path, _)| sources.members().any(|package| path.starts_with(&package.folder)));
        let mut files = std::mem::take(&mut self.dependencies);
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
        Self { hash: self.hashed(), ..self }
    }

    /// The same files with another split.
    pub(crate) fn with_sides(self, mut train: Vec<SourceFile>, mut held_out: Vec<SourceFile>) -> Self {
        for side in [&mut train, &mut held_out] {
            side.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let corpus = Self { train, held_out, ..self };
        Self { hash: corpus.hashed(), ..corpus }
    }

    /// All files that are trained on: members' first.
    pub fn trained(&self) -> impl Iterator<Item = &SourceFile> {
        self.train.iter().chain(&self.dependencies).chain(&self.replay)
    }

    /// Lets go of the texts that are trained on, once they are tokens.
    pub fn release_texts(&mut self) {
        (self.train, self.dependencies, self.replay) = (Vec::new(), Vec::new(), Vec::new());
    }

    pub(super) fn hashed(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let Self { train, dependencies, held_out, replay, general, .. } = self;
        for (mark, files) in [(b"t", train), (b"d", dependencies), (b"h", held_out), (b"r", replay), (b"g", general)] {
            for file in files {
                hasher.update(mark).update(&(file.name.len() as u64).to_le_bytes()).update(file.name.as_bytes());
                hasher.update(blake3::hash(file.text.as_bytes()).as_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Number of bytes of all training files.
    pub fn train_bytes(&self) -> usize {
        self.trained().map(|file| file.text.len()).sum()
    }

    /// Number of bytes of all held-out files.
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

fn cut(file: &SourceFile, share: f64) -> Result<(SourceFile, SourceFile), CorpusError> {
    let text = &file.text;
    let from = ((text.len() as f64 * (1.0 - share)) as usize).min(text.len().saturating_sub(MIN_PART));
    let line = text.as_bytes()[..from].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    if line < MIN_PART {
        return Err(CorpusError::TooSmall { bytes: text.len() });
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::licence::PERMISSIVE;

    fn file(name: usize, size: usize) -> SourceFile {
        let text: String = format!("// file {name}\n").chars().cycle().take(size).collect();
        SourceFile { name: format!("src/f{name:03}.rs"), path: PathBuf::from(format!("/w/src/f{name:03}.rs")), text }
    }

    fn collect(sources: &Sources, dependencies: Option<&Allowed>, held_out_share: f64) -> Result<Corpus, CorpusError> {
        let pool = Pool::new(2).expect("threads start");
        Corpus::collect(
            &CollectRequest { sources, dependencies, forgotten: &Forgotten::default(), held_out_share, seed: 1 },
            &pool,
        )
    }

    /// Name, version, licence, files with their text.
    type Described<'a> = (&'a str, &'a str, Option<&'a str>, &'a [(&'a str, String)]);

    /// Packages in folders of their own, the first of them a member.
    fn sources(folder: &std::path::Path, packages: &[Described<'_>]) -> Sources {
        let mut made = Vec::new();
        for (name, version, licence, files) in packages {
            let folder = folder.join(format!("{name}-{version}"));
            for (path, text) in *files {
                let path = folder.join(path);
                std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
                std::fs::write(path, text).expect("writable");
            }
            made.push(Package {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
                edition: "2024".into(),
                licence: licence.map(str::to_owned),
                folder,
                role: if made.is_empty() { Role::Member } else { Role::Dependency },
            });
        }
        Sources { root: made[0].folder.clone(), packages: made }
    }

    fn code(name: &str, range: std::ops::Range<usize>) -> String {
        range
            .map(|i| format!("pub fn {name}_{i}(input: u32) -> u32 {{\n    input + {name}::OFFSET_{i}\n}}\n\n"))
            .collect()
    }

    fn names(files: &[SourceFile]) -> Vec<&str> {
        files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn dependencies_are_there_on_request_by_their_licence_and_without_copies() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let key = format!("sk_{}_{}", "live", "Zq81RkT0vWmB5yXc7NdJ2pLe");
        let sources = sources(
            folder.path(),
            &[
                ("ours", "0.1.0", Some("MPL-2.0"), &[("src/a.rs", code("a", 0..30)), ("src/b.rs", code("b", 0..30))]),
                (
                    "copied",
                    "1.0.0",
                    Some("MIT"),
                    &[("src/lib.rs", code("b", 0..30)), ("src/near.rs", code("a", 0..29))],
                ),
                ("free", "1.0.0", Some("MIT OR GPL-3.0-only"), &[("src/lib.rs", code("old", 0..40))]),
                ("free", "1.2.0", Some("MIT OR GPL-3.0-only"), &[("src/lib.rs", code("old", 0..45) + &key)]),
                ("made", "1.0.0", Some("ISC"), &[("src/lib.rs", "// @generated\nfn f() {}\n".to_owned())]),
                ("closed", "1.0.0", Some("GPL-3.0-only"), &[("src/lib.rs", code("closed", 0..30))]),
                ("silent", "1.0.0", None, &[("src/lib.rs", code("silent", 0..30))]),
            ],
        );
        let allowed = Allowed::new(PERMISSIVE).expect("they are SPDX identifiers");
        let alone = collect(&sources, None, 0.5).expect("two files");
        let corpus = collect(&sources, Some(&allowed), 0.5).expect("two files");
        assert_eq!((names(&corpus.train), names(&corpus.held_out)), (names(&alone.train), names(&alone.held_out)));
        assert_eq!(names(&corpus.dependencies), ["free-1.2.0/src/lib.rs"]);
        assert!(!corpus.dependencies[0].text.contains(&key));
        assert_eq!((corpus.n_scrubbed, alone.n_scrubbed), (1, 0));
        assert_eq!(corpus.licences, ["MIT OR GPL-3.0-only", "MPL-2.0"]);
        assert_eq!(alone.licences, ["MPL-2.0"]);
        assert_ne!(corpus.hash, alone.hash);
        assert_eq!((names(&alone.dependencies).len(), alone.skipped.len()), (0, 0));
        let reasons: Vec<(String, &str)> = corpus
            .skipped
            .iter()
            .map(|(path, reason)| {
                let path = path.strip_prefix(folder.path()).expect("inside");
                (path.to_string_lossy().replace('\\', "/"), reason.as_str())
            })
            .collect();
        let reasons: Vec<(&str, &str)> = reasons.iter().map(|(path, reason)| (path.as_str(), *reason)).collect();
        assert_eq!(
            reasons,
            [
                ("closed-1.0.0", "its licence is not on the list: GPL-3.0-only"),
                ("copied-1.0.0/src/lib.rs", "a copy of src/b.rs"),
                ("copied-1.0.0/src/near.rs", "nearly a copy of src/a.rs"),
                ("free-1.0.0/src/lib.rs", "nearly a copy of free-1.2.0/src/lib.rs"),
                ("made-1.0.0/src/lib.rs", "generated: its first comments say so"),
                ("silent-1.0.0", "it states no licence"),
            ]
        );
        let mut turned = sources.clone();
        turned.packages.reverse();
        assert_eq!(collect(&turned, Some(&allowed), 0.5).expect("two files"), corpus, "whatever the order");
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
        let corpus = collect(&sources, None, 0.3).expect("ten files");
        assert_eq!((corpus.n_scrubbed, corpus.train.len() + corpus.held_out.len()), (10, 10));
        for file in corpus.train.iter().chain(&corpus.held_out) {
            assert!(!file.text.contains(&key) && file.text.contains("Client::new(\"xxxxxxxx\")"), "{}", file.text);
        }
    }

    #[test]
    fn a_single_file_that_is_too_small_is_refused() {
        assert!(matches!(Corpus::split(vec![file(0, 300)], 0.1, 1), Err(CorpusError::TooSmall { bytes: 300 })));
    }
}
