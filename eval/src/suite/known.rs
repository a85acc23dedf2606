//! What an answer may be known from: the workspace without its held-out files, by name and by text, and the sources of
//! what it depends on.
//!
//! ```text
//! packages → Library (texts and tokens, read once) → Known, of one project → memory | n-gram model | copies
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

/// What systems may know besides the file at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Knowledge {
    /// The project's other files.
    Files,
    /// The sources of its locked dependencies.
    Dependencies,
    /// Both, as whoever writes the project has them.
    #[default]
    Both,
    /// Nothing else.
    Nothing,
}

impl Knowledge {
    /// As a report says it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Files => "the project's other files",
            Self::Dependencies => "the sources of dependencies",
            Self::Both => "the project's other files and the sources of dependencies",
            Self::Nothing => "nothing else",
        }
    }
}

/// The texts that systems may know of one project besides the file at hand, and what is made of them, once for all
/// systems that ask.
#[derive(Debug, Default)]
pub struct Known {
    /// The project's own files first, and then each dependency's.
    shelves: Vec<Rc<Shelf>>,
    /// Of dependencies, files that are in the project too: they would give answers away.
    hidden: HashSet<String>,
    memory: RefCell<Option<([u8; 32], Arc<Memory>)>>,
}

/// The texts of dependencies, kept from project to project.
#[derive(Debug, Default)]
pub(crate) struct Library {
    shelves: HashMap<PathBuf, Rc<Shelf>>,
}

/// Files with their tokens.
#[derive(Debug, Default)]
struct Shelf {
    files: Vec<SourceFile>,
    /// By the tokenizer's hash.
    streams: RefCell<BTreeMap<[u8; 32], Rc<Streams>>>,
    /// What each file's types have; of a dependency what is public.
    records: OnceCell<Rc<Vec<Records>>>,
    is_dependency: bool,
}

/// The tokens of each file of a shelf.
type Streams = Vec<Vec<TokenId>>;

impl Known {
    /// These files and nothing else.
    pub fn of(files: Vec<SourceFile>) -> Self {
        Self { shelves: vec![Rc::new(Shelf::of(files))], ..Self::default() }
    }

    /// In no order.
    pub fn files(&self) -> impl Iterator<Item = &SourceFile> {
        self.shelves.iter().flat_map(|shelf| &shelf.files).filter(|file| !self.hidden.contains(&file.name))
    }

    /// The files' names and tokens.
    pub fn streams(&self, tokenizer: &Tokenizer) -> Vec<(String, Vec<TokenId>)> {
        self.streams_of(&self.shelves, tokenizer)
    }

    fn streams_of(&self, shelves: &[Rc<Shelf>], tokenizer: &Tokenizer) -> Vec<(String, Vec<TokenId>)> {
        let mut all = Vec::new();
        for shelf in shelves {
            let streams = shelf.streams(tokenizer);
            let named = shelf.files.iter().map(|file| &file.name).zip(&*streams);
            let shown = named.filter(|(name, _)| !self.hidden.contains(*name));
            all.extend(shown.map(|(name, stream)| (name.clone(), stream.clone())));
        }
        all
    }

    fn symbols_of(&self, shelves: &[Rc<Shelf>]) -> Symbols {
        let mut all = Vec::new();
        for shelf in shelves {
            let records = shelf.records.get_or_init(|| Rc::new(extract_each(&shelf.files, shelf.is_dependency)));
            let named = shelf.files.iter().map(|file| &file.name).zip(&**records);
            let shown = named.filter(|(name, _)| !self.hidden.contains(*name));
            all.extend(shown.map(|(name, records)| (name.clone(), records.clone())));
        }
        Symbols::of(all)
    }

    /// The engine's memory of them.
    pub fn memory(&self, tokenizer: &Tokenizer) -> Arc<Memory> {
        let hash = tokenizer.hash();
        let mut kept = self.memory.borrow_mut();
        match &*kept {
            Some((of, memory)) if *of == hash => Arc::clone(memory),
            _ => {
                let (own, others) = self.shelves.split_at(self.shelves.len().min(1));
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
        let mut shelves = vec![Rc::new(Shelf::of(files.to_vec()))];
        let mut hidden = HashSet::new();
        for package in dependencies {
            let shelf =
                self.shelves.entry(package.folder.clone()).or_insert_with(|| Rc::new(Shelf::of_package(package)));
            let twins = shelf.files.iter().filter(|file| secret.contains(file.text.as_str()));
            hidden.extend(twins.map(|file| file.name.clone()));
            shelves.push(Rc::clone(shelf));
        }
        Known { shelves, hidden, ..Known::default() }
    }
}

impl Shelf {
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
/// one is in neither part: it would give the answers away.
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

/// A relative path as [`SourceFile::name`] has it. A `\` is a letter of the name where it separates nothing.
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
