//! What systems may know: the workspace without its held-out files, by name and by text, and the sources of its
//! dependencies.
//!
//! ```text
//! packages → Library (texts and tokens, read once) → Known, for one project → memory | n-gram model | copies
//! ```

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use nanochat_engine::memory::{self, Symbols, Tier};
use nanochat_engine::symbols::{Records, extract_each};
use nanochat_engine::text::tokenizer::TokenId;
use nanochat_engine::workspace::sources::{Package, Role, SourceFile};
use nanochat_engine::{Memory, Sources, Tokenizer};

/// What systems may know in addition to the current file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Knowledge {
    /// Only the project's other files.
    Files,
    /// Only the sources of its locked dependencies.
    Dependencies,
    /// Files and dependencies, as the project's author has them.
    #[default]
    Both,
    /// Neither files nor dependencies.
    Nothing,
}

impl Knowledge {
    /// The wording in a report.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Files => "the project's other files",
            Self::Dependencies => "the sources of dependencies",
            Self::Both => "the project's other files and the sources of dependencies",
            Self::Nothing => "nothing else",
        }
    }
}

/// The texts that systems may know of one project in addition to the current file. Tokens, symbols and the memory are
/// built from them once and shared by all systems.
#[derive(Debug, Default)]
pub struct Known {
    /// The project's own files first, and then each dependency's.
    sets: Vec<Rc<SourceSet>>,
    /// Names of dependencies' files that are in the project too: they would contain the truth.
    hidden: HashSet<String>,
    memory: RefCell<Option<([u8; 32], Arc<Memory>)>>,
}

/// The texts of dependencies, kept from project to project.
#[derive(Debug, Default)]
pub(crate) struct Library {
    sets: HashMap<PathBuf, Rc<SourceSet>>,
}

/// A set of files with what is derived from them: tokens and symbols.
#[derive(Debug, Default)]
struct SourceSet {
    files: Vec<SourceFile>,
    /// Tokens of each file, by the tokenizer's hash.
    streams: RefCell<BTreeMap<[u8; 32], Rc<Streams>>>,
    /// Fields and methods of each file's types; for a dependency only public ones.
    records: OnceCell<Rc<Vec<Records>>>,
    is_dependency: bool,
}

/// The tokens of each file of a set.
type Streams = Vec<Vec<TokenId>>;

impl Known {
    /// Makes these files known, and no dependencies.
    pub fn of(files: Vec<SourceFile>) -> Self {
        Self { sets: vec![Rc::new(SourceSet::of(files))], ..Self::default() }
    }

    /// All known files, in no particular order.
    pub fn files(&self) -> impl Iterator<Item = &SourceFile> {
        self.sets.iter().flat_map(|set| &set.files).filter(|file| !self.hidden.contains(&file.name))
    }

    /// Names and tokens of all known files.
    pub fn streams(&self, tokenizer: &Tokenizer) -> Vec<(String, Vec<TokenId>)> {
        self.streams_of(&self.sets, tokenizer)
    }

    fn streams_of(&self, sets: &[Rc<SourceSet>], tokenizer: &Tokenizer) -> Vec<(String, Vec<TokenId>)> {
        let mut all = Vec::new();
        for set in sets {
            let streams = set.streams(tokenizer);
            let named = set.files.iter().map(|file| &file.name).zip(&*streams);
            let shown = named.filter(|(name, _)| !self.hidden.contains(*name));
            all.extend(shown.map(|(name, stream)| (name.clone(), stream.clone())));
        }
        all
    }

    fn symbols_of(&self, sets: &[Rc<SourceSet>]) -> Symbols {
        let mut all = Vec::new();
        for set in sets {
            let records = set.records.get_or_init(|| Rc::new(extract_each(&set.files, set.is_dependency)));
            let named = set.files.iter().map(|file| &file.name).zip(&**records);
            let shown = named.filter(|(name, _)| !self.hidden.contains(*name));
            all.extend(shown.map(|(name, records)| (name.clone(), records.clone())));
        }
        Symbols::of(all)
    }

    /// The engine's memory of these files, built on the first call for each tokenizer.
    pub fn memory(&self, tokenizer: &Tokenizer) -> Arc<Memory> {
        let hash = tokenizer.hash();
        let mut kept = self.memory.borrow_mut();
        match &*kept {
            Some((of, memory)) if *of == hash => Arc::clone(memory),
            _ => {
                let (own, others) = self.sets.split_at(self.sets.len().min(1));
                let dependencies = memory::Library::index(self.streams_of(others, tokenizer));
                let built = Memory::build(self.streams_of(own, tokenizer)).with_tier(Tier::Dependencies, dependencies);
                let built = built.with_symbols(Tier::Workspace, self.symbols_of(own));
                let built = Arc::new(built.with_symbols(Tier::Dependencies, self.symbols_of(others)));
                *kept = Some((hash, Arc::clone(&built)));
                built
            }
        }
    }
}

impl Library {
    /// What is known of a project that has these files and dependencies, and whose holes are cut from `texts`.
    pub(crate) fn known(
        &mut self,
        files: &[SourceFile],
        dependencies: &[Package],
        texts: &BTreeMap<String, String>,
    ) -> Known {
        let secret: HashSet<&str> = texts.values().map(String::as_str).collect();
        let mut sets = vec![Rc::new(SourceSet::of(files.to_vec()))];
        let mut hidden = HashSet::new();
        for package in dependencies {
            let set =
                self.sets.entry(package.folder.clone()).or_insert_with(|| Rc::new(SourceSet::of_package(package)));
            let twins = set.files.iter().filter(|file| secret.contains(file.text.as_str()));
            hidden.extend(twins.map(|file| file.name.clone()));
            sets.push(Rc::clone(set));
        }
        Known { sets, hidden, ..Known::default() }
    }
}

impl SourceSet {
    fn of(files: Vec<SourceFile>) -> Self {
        Self { files, ..Self::default() }
    }

    fn of_package(package: &Package) -> Self {
        let package = Package { role: Role::Dependency, ..package.clone() };
        let sources = Sources { root: PathBuf::new(), packages: vec![package] };
        Self { is_dependency: true, ..Self::of(sources.collect(&[Role::Dependency]).0) }
    }

    fn streams(&self, tokenizer: &Tokenizer) -> Rc<Streams> {
        let encode = || self.files.iter().map(|file| tokenizer.encode(file.text.as_bytes())).collect();
        let mut all = self.streams.borrow_mut();
        Rc::clone(all.entry(tokenizer.hash()).or_insert_with(|| Rc::new(encode())))
    }
}

/// (held out, known). `held_out` names files as [`SourceFile::name`] does. A file whose text is that of a held-out
/// one is in neither list: it would contain the truth.
pub fn known_files(files: Vec<SourceFile>, held_out: &[PathBuf]) -> (Vec<SourceFile>, Vec<SourceFile>) {
    let names: HashSet<String> = held_out.iter().map(|path| slashed(path)).collect();
    let (held, mut known): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| names.contains(&file.name));
    let texts: HashSet<&str> = held.iter().map(|file| file.text.as_str()).collect();
    known.retain(|file| !texts.contains(file.text.as_str()));
    (held, known)
}

/// A memory of these files and no others.
pub fn memory_of(tokenizer: &Tokenizer, files: &[SourceFile]) -> Memory {
    Memory::of_files(files, tokenizer)
}

/// A relative path as [`SourceFile::name`] has it. A `\` is part of the name where it is not a separator.
pub(crate) fn slashed(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> SourceFile {
        SourceFile { name: name.into(), path: name.into(), text: text.into() }
    }

    fn names(files: &[SourceFile]) -> Vec<&str> {
        files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn a_copy_of_a_held_out_file_is_not_known() {
        let files = vec![file("src/a.rs", "fn a() {}"), file("src/b.rs", "fn a() {}"), file("src/c.rs", "fn c() {}")];
        let (held, known) = known_files(files, &["src/a.rs".into()]);
        assert_eq!((names(&held), names(&known)), (vec!["src/a.rs"], vec!["src/c.rs"]));
        let memory = memory_of(&Tokenizer::bytes(), &known);
        assert_eq!(memory.n_tokens(), known[0].text.len());
    }

    #[test]
    fn a_dependency_is_known_but_for_what_the_project_holds_too() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [("lib.rs", "pub fn dep() {}"), ("copied.rs", "fn secret() {}")] {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        let dependency = Package {
            name: "dep".into(),
            version: "1.0.0".into(),
            edition: "2024".into(),
            licence: None,
            folder: folder.path().to_path_buf(),
            role: Role::Dependency,
        };
        let texts = BTreeMap::from([("src/a.rs".to_owned(), "fn secret() {}".to_owned())]);
        let own = [file("src/b.rs", "fn b() {}")];
        let mut library = Library::default();
        let known = library.known(&own, &[dependency], &texts);
        assert_eq!(known.files().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["src/b.rs", "dep-1.0.0/lib.rs"]);
        let tokenizer = Tokenizer::bytes();
        assert_eq!(known.streams(&tokenizer).len(), 2);
        let memory = known.memory(&tokenizer);
        assert_eq!(memory.n_tokens(), "fn b() {}pub fn dep() {}".len());
        assert!(Arc::ptr_eq(&memory, &known.memory(&tokenizer)), "it is built once");
    }

    #[cfg(unix)]
    #[test]
    fn a_backslash_is_part_of_a_name() {
        let files = vec![file("a/b.rs", "1"), file("a\\b.rs", "2")];
        let (held, known) = known_files(files, &["a\\b.rs".into()]);
        assert_eq!((names(&held), names(&known)), (vec!["a\\b.rs"], vec!["a/b.rs"]));
    }
}
