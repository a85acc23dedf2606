//! What the memory holds in addition to the workspace, indexed in the background: open files, dependencies and the
//! standard library.
//!
//! ```text
//! load    → thread: Cache::library of the dependencies, then of std, each usable in part before it is complete
//!                   the fields and methods of the types of the workspace, the dependencies and std
//! request → thread, if the open files have changed: OpenFiles::index
//! request ← add_to(workspace): whatever is ready, if the generation has changed
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

/// Most bytes of open files that are indexed, the last edited first.
const MAX_OPEN_BYTES: usize = 1 << 20;
/// Indexing threads. More would slow completions down by more than they save.
const N_THREADS: usize = 2;
/// Skipped files that are logged by name; the others are only counted.
const MAX_LOGGED: usize = 20;

/// An index that threads extend and that each request reads.
#[derive(Default)]
pub(crate) struct BackgroundIndex {
    state: Mutex<IndexState>,
    /// Counts the changes of `state`.
    generation: AtomicU64,
    cancel: Cancel,
}

/// What has been indexed so far.
#[derive(Default)]
struct IndexState {
    dependencies: Library,
    std: Library,
    /// Fields and methods of types, by tier; those of the workspace as of the load.
    symbols: [Symbols; N_TIERS],
    open: OpenFiles,
    /// Open files that wait for the thread that indexes them.
    pending: Option<Vec<(String, Rope)>>,
    /// Whether that thread is running.
    is_indexing: bool,
}

/// What the background index of one workspace is built from.
pub(crate) struct IndexRequest {
    /// The folder in which finished indexes are kept.
    pub(crate) folder: PathBuf,
    /// The workspace's files, for the fields and methods of their types.
    pub(crate) files: Vec<SourceFile>,
    /// The locked dependencies that are unpacked on this machine.
    pub(crate) packages: Vec<Package>,
    /// The folder of the standard library's source, where it is installed.
    pub(crate) std_source: Option<PathBuf>,
    /// The checkpoint's tokenizer, which encodes them all.
    pub(crate) tokenizer: Arc<Tokenizer>,
}

/// Clears `is_indexing` if the thread that indexes open files panics, so that the next request starts another.
struct IndexingGuard<'a>(&'a BackgroundIndex);

impl Drop for IndexingGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().is_indexing = false;
        }
    }
}

impl BackgroundIndex {
    /// Starts an empty index and a thread that fills it, and cancels the filling of `previous`.
    pub(crate) fn start(previous: &Self, request: IndexRequest) -> Arc<Self> {
        previous.cancel.cancel();
        let index = Arc::new(Self::default());
        let filled = Arc::clone(&index);
        let thread = std::thread::Builder::new().name("nanochat-index".to_owned());
        if let Err(error) = thread.spawn(move || filled.fill(&request)) {
            tracing::warn!(%error, "cannot index the dependencies");
        }
        index
    }

    /// Stops indexing dependencies.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Changes whenever [`BackgroundIndex::add_to`] would return something else.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A workspace's memory with everything added that is ready.
    pub(crate) fn add_to(&self, workspace: &Memory) -> Memory {
        let state = self.lock();
        let mut memory = workspace.clone().with_open(state.open.clone());
        for (tier, library) in [(Tier::Dependencies, &state.dependencies), (Tier::Std, &state.std)] {
            memory = memory.with_tier(tier, library.clone());
        }
        for (tier, symbols) in Tier::ALL.into_iter().zip(&state.symbols) {
            // A workspace that was read again has newer symbols than those read when this index was started.
            if memory.symbols()[tier as usize].is_empty() {
                memory = memory.with_symbols(tier, symbols.clone());
            }
        }
        memory
    }

    /// Indexes these named files, instead of those before, on a thread: it takes some milliseconds.
    pub(crate) fn index_open(self: &Arc<Self>, files: Vec<(String, Rope)>, tokenizer: &Arc<Tokenizer>) {
        let mut state = self.lock();
        state.pending = Some(files);
        if std::mem::replace(&mut state.is_indexing, true) {
            return;
        }
        drop(state);
        let (index, tokenizer) = (Arc::clone(self), Arc::clone(tokenizer));
        let thread = std::thread::Builder::new().name("nanochat-open".to_owned());
        let spawned = thread.spawn(move || {
            let _guard = IndexingGuard(&index);
            // A tokenizer of its own: the worker must not wait for the cache of pre-tokens.
            let tokenizer = Tokenizer::clone(&tokenizer);
            while let Some(files) = index.take_pending() {
                let open = OpenFiles::index(encode(files, &tokenizer));
                index.change(|state| state.open = open);
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "cannot index the open files");
            self.lock().is_indexing = false;
        }
    }

    fn take_pending(&self) -> Option<Vec<(String, Rope)>> {
        let mut state = self.lock();
        let pending = state.pending.take();
        state.is_indexing = pending.is_some();
        pending
    }

    fn fill(&self, request: &IndexRequest) {
        let cache = Cache::at(&request.folder);
        let std_packages = request.std_source.as_deref().map(cache::std_packages).unwrap_or_default();
        let symbols = Symbols::of_files(&request.files, false);
        self.change(|state| state.symbols[Tier::Workspace as usize] = symbols);
        for (tier, packages) in [(Tier::Dependencies, &request.packages), (Tier::Std, &std_packages)] {
            let started = Instant::now();
            let (tokenizer, cancel) = (&*request.tokenizer, &self.cancel);
            let mut n_skipped = 0;
            let request = cache::Request { packages, tokenizer, n_threads: N_THREADS, cancel };
            let library = cache.library(&request, &mut |event| match event {
                Event::Partial(part) => self.put(tier, part),
                Event::Skipped { what, reason } => {
                    n_skipped += 1;
                    if n_skipped <= MAX_LOGGED {
                        tracing::debug!(what, reason, "left out of the memory");
                    }
                }
                Event::Waiting => tracing::info!(?tier, "another server is indexing; waiting for it"),
                Event::Damaged { path, reason } => {
                    tracing::warn!(path = %path.display(), reason, "rebuilding a damaged file of the memory's cache");
                }
                Event::NotKept { reason } => {
                    tracing::warn!(reason, ?tier, "cannot store the index; it is rebuilt at the next start");
                }
            });
            let Ok(library) = library else { return };
            let n_tokens = library.n_tokens();
            self.put(tier, library);
            let symbols = cache.symbols(&request, &mut |event| {
                if let Event::NotKept { reason } = event {
                    tracing::warn!(reason, ?tier, "cannot store the symbols; they are read again at the next start");
                }
            });
            let Ok(symbols) = symbols else { return };
            let n_symbols = symbols.len();
            self.change(|state| state.symbols[tier as usize] = symbols);
            let milliseconds = started.elapsed().as_millis();
            let n_packages = packages.len();
            tracing::info!(?tier, n_packages, n_tokens, n_symbols, n_skipped, milliseconds, "indexed");
        }
    }

    fn put(&self, tier: Tier, library: Library) {
        self.change(|state| match tier {
            Tier::Std => state.std = library,
            _ => state.dependencies = library,
        });
    }

    fn change(&self, change: impl FnOnce(&mut IndexState)) {
        change(&mut self.lock());
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, IndexState> {
        // Each change leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Encodes as many of the files as [`MAX_OPEN_BYTES`] allows.
fn encode(files: Vec<(String, Rope)>, tokenizer: &Tokenizer) -> Vec<(String, Vec<TokenId>)> {
    let mut left = MAX_OPEN_BYTES;
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

    /// Waits until a workspace's memory with the index added is as `wanted` says; fails after ten seconds.
    fn wait_until(index: &BackgroundIndex, workspace: &Memory, wanted: impl Fn(&Memory) -> bool) {
        for _ in 0..2000 {
            if wanted(&index.add_to(workspace)) {
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
    fn dependencies_and_std_are_added_as_soon_as_they_are_ready() {
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
        let request = IndexRequest {
            files: Vec::new(),
            folder: folder.path().join("cache"),
            packages: vec![package],
            std_source: Some(folder.path().join("library")),
            tokenizer: Tokenizer::bytes().into(),
        };
        let index = BackgroundIndex::start(&BackgroundIndex::default(), request);
        wait_until(&index, &Memory::default(), |memory| {
            knows(memory, Tier::Dependencies, "pub fn dependency") && knows(memory, Tier::Std, "pub fn standard")
        });
        assert!(index.generation() >= 2);
    }

    #[test]
    fn open_files_are_indexed_as_they_are_and_not_as_they_were_saved() {
        let tokenizer = Arc::new(Tokenizer::bytes());
        let workspace = Memory::build(vec![("a.rs".to_owned(), tokenizer.encode(b"saved text"))]);
        let index = Arc::new(BackgroundIndex::default());
        index.index_open(vec![("a.rs".to_owned(), Rope::from_str("open\r\ntext"))], &tokenizer);
        wait_until(&index, &workspace, |memory| {
            knows(memory, Tier::Open, "open\ntex") && !knows(memory, Tier::Workspace, "saved tex")
        });
        index.index_open(vec![], &tokenizer);
        wait_until(&index, &workspace, |memory| knows(memory, Tier::Workspace, "saved tex"));
    }
}
