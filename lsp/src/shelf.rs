//! What the memory holds beside the workspace, indexed in the background: open files, dependencies, the standard library.
//!
//! ```text
//! load      → thread: Cache::library of the dependencies, then of std → parts and wholes
//!                     what the types of the workspace, of the dependencies and of std have
//! question  → thread, if the open files are others: OpenFiles::index
//! question  ← beside(workspace): whatever is ready, if the edition is another
//! ```

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nanochat_engine::memory::{Library, N_TIERS, OpenFiles, Symbols, Tier};
use nanochat_engine::workspace::cache::{self, Cache, Event};
use nanochat_engine::workspace::sources::{Package, SourceFile, unix_lines};
use nanochat_engine::{Cancel, Memory, TokenId, Tokenizer};
use ropey::Rope;

/// Bytes of open files that are indexed at most, the last edited first.
const MOST_OPEN: usize = 1 << 20;
/// Threads that index. More would take the cores from completions for longer than it saves.
const N_THREADS: usize = 2;
/// What is left out is named up to this many times, then counted.
const MOST_NAMED: usize = 20;

/// What is indexed, and asked for when a question comes.
#[derive(Default)]
pub(crate) struct Shelf {
    stock: Mutex<Stock>,
    /// Counts changes of the stock.
    edition: AtomicU64,
    cancel: Cancel,
}

#[derive(Default)]
struct Stock {
    dependencies: Library,
    std: Library,
    /// What types have, by tier; of the workspace as it was loaded.
    symbols: [Symbols; N_TIERS],
    open: OpenFiles,
    /// Open files that wait for the thread that indexes them.
    wanted: Option<Vec<(String, Rope)>>,
    /// Whether there is such a thread.
    is_indexing: bool,
}

/// What a shelf is to be filled with.
pub(crate) struct Request {
    /// Where indexes are kept.
    pub(crate) folder: PathBuf,
    /// The workspace's files, of whose types the memory does not know.
    pub(crate) files: Vec<SourceFile>,
    /// The dependencies.
    pub(crate) packages: Vec<Package>,
    /// The standard library's source.
    pub(crate) std_source: Option<PathBuf>,
    /// What encodes them.
    pub(crate) tokenizer: Arc<Tokenizer>,
}

/// Says that nobody indexes open files any more, should their thread panic.
struct Indexing<'a>(&'a Shelf);

impl Drop for Indexing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stock().is_indexing = false;
        }
    }
}

impl Shelf {
    /// An empty shelf in place of `before`, whose filling ends, and a thread that fills it.
    pub(crate) fn filled(before: &Self, request: Request) -> Arc<Self> {
        before.cancel.cancel();
        let shelf = Arc::new(Self::default());
        let filled = Arc::clone(&shelf);
        let thread = std::thread::Builder::new().name("nanochat-shelf".to_owned());
        if let Err(error) = thread.spawn(move || filled.fill(&request)) {
            tracing::warn!(%error, "dependencies are not remembered");
        }
        shelf
    }

    /// Ends its filling.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Changes whenever [`Shelf::beside`] would answer something else.
    pub(crate) fn edition(&self) -> u64 {
        self.edition.load(Ordering::Acquire)
    }

    /// A workspace's memory with what is ready beside it.
    pub(crate) fn beside(&self, workspace: &Memory) -> Memory {
        let stock = self.stock();
        let mut memory = workspace.clone().with_open(stock.open.clone());
        for (tier, library) in [(Tier::Dependencies, &stock.dependencies), (Tier::Std, &stock.std)] {
            memory = memory.with_tier(tier, library.clone());
        }
        for (tier, symbols) in Tier::ALL.into_iter().zip(&stock.symbols) {
            // A workspace that was read again knows better than what was there when the shelf was filled.
            if memory.symbols()[tier as usize].is_empty() {
                memory = memory.with_symbols(tier, symbols.clone());
            }
        }
        memory
    }

    /// Has these files indexed, by name, in place of those before; on a thread, for it takes some milliseconds.
    pub(crate) fn index_open(self: &Arc<Self>, files: Vec<(String, Rope)>, tokenizer: &Arc<Tokenizer>) {
        let mut stock = self.stock();
        stock.wanted = Some(files);
        if std::mem::replace(&mut stock.is_indexing, true) {
            return;
        }
        drop(stock);
        let (shelf, tokenizer) = (Arc::clone(self), Arc::clone(tokenizer));
        let thread = std::thread::Builder::new().name("nanochat-open".to_owned());
        let spawned = thread.spawn(move || {
            let _indexing = Indexing(&shelf);
            // A tokenizer of its own: whoever answers questions must not find the cache of pre-tokens taken.
            let tokenizer = Tokenizer::clone(&tokenizer);
            while let Some(files) = shelf.next_wanted() {
                let open = OpenFiles::index(encode(files, &tokenizer));
                shelf.change(|stock| stock.open = open);
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "open files are not indexed");
            self.stock().is_indexing = false;
        }
    }

    fn next_wanted(&self) -> Option<Vec<(String, Rope)>> {
        let mut stock = self.stock();
        let wanted = stock.wanted.take();
        stock.is_indexing = wanted.is_some();
        wanted
    }

    fn fill(&self, request: &Request) {
        let cache = Cache::at(&request.folder);
        let std_packages = request.std_source.as_deref().map(cache::std_packages).unwrap_or_default();
        let symbols = Symbols::of_files(&request.files, false);
        self.change(|stock| stock.symbols[Tier::Workspace as usize] = symbols);
        for (tier, packages) in [(Tier::Dependencies, &request.packages), (Tier::Std, &std_packages)] {
            let started = Instant::now();
            let (tokenizer, cancel) = (&*request.tokenizer, &self.cancel);
            let mut n_skipped = 0;
            let request = cache::Request { packages, tokenizer, n_threads: N_THREADS, cancel };
            let library = cache.library(&request, &mut |event| match event {
                Event::Partial(part) => self.put(tier, part),
                Event::Skipped { what, reason } => {
                    n_skipped += 1;
                    if n_skipped <= MOST_NAMED {
                        tracing::debug!(what, reason, "left out of the memory");
                    }
                }
                Event::Waiting => tracing::info!(?tier, "another server is indexing; waiting for it"),
                Event::Damaged { path, reason } => {
                    tracing::warn!(path = %path.display(), reason, "a file of the memory's cache is made anew");
                }
                Event::NotKept { reason } => {
                    tracing::warn!(reason, ?tier, "the index cannot be kept; the next start makes it again");
                }
            });
            let Ok(library) = library else { return };
            let n_tokens = library.n_tokens();
            self.put(tier, library);
            let symbols = cache.symbols(&request, &mut |event| {
                if let Event::NotKept { reason } = event {
                    tracing::warn!(reason, ?tier, "what types have cannot be kept; the next start reads it again");
                }
            });
            let Ok(symbols) = symbols else { return };
            let n_symbols = symbols.len();
            self.change(|stock| stock.symbols[tier as usize] = symbols);
            let milliseconds = started.elapsed().as_millis();
            let n_packages = packages.len();
            tracing::info!(?tier, n_packages, n_tokens, n_symbols, n_skipped, milliseconds, "indexed");
        }
    }

    fn put(&self, tier: Tier, library: Library) {
        self.change(|stock| match tier {
            Tier::Std => stock.std = library,
            _ => stock.dependencies = library,
        });
    }

    fn change(&self, change: impl FnOnce(&mut Stock)) {
        change(&mut self.stock());
        self.edition.fetch_add(1, Ordering::Release);
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        // Each change leaves the stock whole.
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As many files as there is room for.
fn encode(files: Vec<(String, Rope)>, tokenizer: &Tokenizer) -> Vec<(String, Vec<TokenId>)> {
    let mut left = MOST_OPEN;
    let mut encoded = Vec::with_capacity(files.len());
    for (name, text) in files {
        let Some(rest) = left.checked_sub(text.len_bytes()) else { continue };
        left = rest;
        encoded.push((name, tokenizer.encode(unix_lines(text.to_string()).as_bytes())));
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nanochat_engine::memory::Lookup;
    use nanochat_engine::workspace::sources::Role;

    use super::*;

    /// What the shelf has within some seconds, once it is as `wanted` says.
    fn until(shelf: &Shelf, workspace: &Memory, wanted: impl Fn(&Memory) -> bool) {
        for _ in 0..2000 {
            if wanted(&shelf.beside(workspace)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("nothing was indexed");
    }

    fn knows(memory: &Memory, tier: Tier, text: &str) -> bool {
        let mut lookup = Lookup::default();
        memory.lookup(&Tokenizer::bytes().encode(text.as_bytes()), "", &mut lookup);
        lookup.tiers[tier as usize].first().is_some_and(|order| order.len as usize == text.len())
    }

    #[test]
    fn dependencies_and_std_join_the_workspace_as_they_are_ready() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("inside the folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        };
        write("dep/src/lib.rs", "pub fn dependency() {}\n");
        write("library/core/Cargo.toml", "[package]\nname = \"core\"\n");
        write("library/core/src/lib.rs", "pub fn standard() {}\n");
        let package = Package {
            name: "dep".to_owned(),
            version: "1.0.0".to_owned(),
            edition: "2024".to_owned(),
            licence: None,
            folder: folder.path().join("dep"),
            role: Role::Dependency,
        };
        let request = Request {
            files: Vec::new(),
            folder: folder.path().join("cache"),
            packages: vec![package],
            std_source: Some(folder.path().join("library")),
            tokenizer: Tokenizer::bytes().into(),
        };
        let shelf = Shelf::filled(&Shelf::default(), request);
        until(&shelf, &Memory::default(), |memory| {
            knows(memory, Tier::Dependencies, "pub fn dependency") && knows(memory, Tier::Std, "pub fn standard")
        });
        assert!(shelf.edition() >= 2);
    }

    #[test]
    fn open_files_count_as_they_stand_and_not_as_they_were_saved() {
        let tokenizer = Arc::new(Tokenizer::bytes());
        let workspace = Memory::build(vec![("a.rs".to_owned(), tokenizer.encode(b"saved text"))]);
        let shelf = Arc::new(Shelf::default());
        shelf.index_open(vec![("a.rs".to_owned(), Rope::from_str("open\r\ntext"))], &tokenizer);
        until(&shelf, &workspace, |memory| {
            knows(memory, Tier::Open, "open\ntex") && !knows(memory, Tier::Workspace, "saved tex")
        });
        shelf.index_open(vec![], &tokenizer);
        until(&shelf, &workspace, |memory| knows(memory, Tier::Workspace, "saved tex"));
    }
}
