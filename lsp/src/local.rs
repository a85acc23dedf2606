//! The server's engine: this workspace's checkpoint and memory on this machine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nanochat_engine::complete::CompleteError;
use nanochat_engine::workspace::sources::{Package, Role, SourceFile};
use nanochat_engine::workspace::store::Store;
use nanochat_engine::{Cancel, Completer, Completion, Limits, Memory, Prompt, Snippet, Sources, Tokenizer, tune};
use ropey::Rope;

use crate::context::Query;
use crate::loader::{Setup, Silence, Source};
use crate::shelf::{Request, Shelf};
use crate::tuner::Tuning;
use crate::worker::Engine;
use crate::workspace::{self, CargoUse, WorkspaceError};

/// A completer, what files are called, and what the memory is made of.
struct Local {
    completer: Completer,
    names: Names,
    workspace: Arc<Memory>,
    shelf: Arc<Shelf>,
    /// What of the shelf the completer's memory has; `None` once the workspace's part is another.
    edition: Option<u64>,
    /// What the shelf was last given to index.
    open: Vec<(PathBuf, Rope)>,
}

impl Local {
    /// Takes in what was indexed since the last question, and has the open files indexed if they are others.
    fn refresh(&mut self, query: &Query) {
        let is_same = |(a, b): (&(PathBuf, Rope), &(PathBuf, Rope))| a.0 == b.0 && a.1.is_instance(&b.1);
        if self.open.len() != query.open.len() || !self.open.iter().zip(&query.open).all(is_same) {
            self.open.clone_from(&query.open);
            let name = |path: &Path| self.names.name(path);
            let files = query.open.iter().filter_map(|(path, text)| Some((name(path)?, text.clone()))).collect();
            self.shelf.index_open(files, self.completer.tokenizer());
        }
        let edition = self.shelf.edition();
        if self.edition != Some(edition) {
            self.completer.set_memory(Arc::new(self.shelf.beside(&self.workspace)));
            self.edition = Some(edition);
        }
    }
}

impl Engine for Local {
    fn complete(
        &mut self,
        query: &Query,
        limits: &Limits,
        cancel: &Cancel,
    ) -> Result<Option<Completion>, CompleteError> {
        self.refresh(query);
        let name = query.path.as_deref().and_then(|path| self.names.name(path)).unwrap_or_default();
        // A snippet takes no file's place, so the bare file name will do.
        let bare = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let snippet_name = |path: &Path| self.names.name(path).unwrap_or_else(|| bare(path));
        let snippets: Vec<(String, &str)> =
            query.snippets.iter().map(|(path, text)| (snippet_name(path), text.as_str())).collect();
        let snippets: Vec<Snippet<'_>> = snippets.iter().map(|(path, text)| Snippet { path, text }).collect();
        let prompt = Prompt { path: &name, snippets: &snippets, prefix: &query.prefix, suffix: &query.suffix };
        self.completer.complete(&prompt, limits, cancel)
    }

    fn set_memory(&mut self, memory: Arc<Memory>) {
        self.workspace = memory;
        self.edition = None;
    }
}

/// Finds and reads what the engine is made of.
pub(crate) struct LocalSource {
    store: Store,
    n_threads: usize,
    found: Option<Found>,
    shelf: Arc<Shelf>,
}

/// What the last load found.
struct Found {
    sources: Sources,
    checkpoint: PathBuf,
    stamp: Option<Stamp>,
    tokenizer: Option<Arc<Tokenizer>>,
    tuning: Option<Tuning>,
}

/// Time and length: what changes when a file is replaced.
type Stamp = (SystemTime, u64);

impl LocalSource {
    /// Reads from `store`. `n_threads` is for settings that do not say; 0 is one per core.
    pub(crate) fn new(store: Store, n_threads: usize) -> Self {
        Self { store, n_threads, found: None, shelf: Arc::default() }
    }
}

impl Drop for LocalSource {
    fn drop(&mut self) {
        self.shelf.cancel();
    }
}

impl Source for LocalSource {
    fn load(&mut self, setup: &Setup) -> Result<Box<dyn Engine>, Silence> {
        self.found = None;
        self.shelf.cancel();
        let settings = &setup.settings;
        let store = settings.data_dir.as_ref().map_or_else(|| self.store.clone(), Store::at);
        let sources = sources(setup)?;
        let checkpoint = store.checkpoint_path(&sources.root);
        let stamp = stamp(&checkpoint);
        let root = sources.root.clone();
        let found = self.found.insert(Found { sources, checkpoint, stamp, tokenizer: None, tuning: None });
        if stamp.is_none() {
            return Err(Silence::Other(format!(
                "no checkpoint for {}, and without its tokenizer the memory cannot answer either; \
                 run `cargo nanochat train` there",
                root.display()
            )));
        }
        let checkpoint =
            store.open_checkpoint(&found.checkpoint).map_err(|error| Silence::Other(one_line(&error.to_string())))?;
        let n_threads = if settings.threads == 0 { self.n_threads } else { settings.threads };
        let (path, config) = (store.tune_path(), &checkpoint.manifest.config);
        let (plans, complaint) = tune::plans(&path, config, n_threads);
        if let Some(error) = complaint {
            tracing::warn!(%error, "the autotuner's table is of no use");
        }
        let mut completer = Completer::with_plans(&checkpoint, n_threads, &plans);
        completer.set_cache_bytes(settings.cache_megabytes << 20);
        found.tuning = Some(Tuning { path, workload: tune::workload(config, n_threads), plans });
        found.tokenizer = Some(Arc::clone(&checkpoint.tokenizer));
        let files = found.collect();
        let others = if settings.dependencies { found.sources.dependencies(&files) } else { Vec::new() };
        let names = Names::new(root, &files, &others);
        let streams = files.iter().map(|file| (file.name.clone(), checkpoint.tokenizer.encode(file.text.as_bytes())));
        let memory = Arc::new(Memory::build(streams.collect()));
        tracing::info!(
            config = %checkpoint.manifest.config,
            version = checkpoint.manifest.version,
            memory_tokens = memory.n_tokens(),
            "checkpoint and memory are loaded"
        );
        // The workspace answers at once; what is farther away joins it as it is ready.
        let request = Request {
            folder: store.memory_dir(),
            files,
            std_source: workspace::std_source(&found.sources.root).filter(|_| settings.dependencies),
            packages: others,
            tokenizer: Arc::clone(&checkpoint.tokenizer),
        };
        self.shelf = Shelf::filled(&self.shelf, request);
        let shelf = Arc::clone(&self.shelf);
        Ok(Box::new(Local { completer, names, workspace: memory, shelf, edition: None, open: Vec::new() }))
    }

    fn has_changed(&mut self) -> bool {
        self.found.as_ref().is_some_and(|found| stamp(&found.checkpoint) != found.stamp)
    }

    fn tuning(&self) -> Option<Tuning> {
        self.found.as_ref()?.tuning.clone()
    }

    fn memory(&mut self) -> Option<Arc<Memory>> {
        let found = self.found.as_ref()?;
        Some(Arc::new(Memory::of_files(&found.collect(), found.tokenizer.as_ref()?)))
    }
}

/// The workspace of the first folder that is in one.
fn sources(setup: &Setup) -> Result<Sources, Silence> {
    let mut missing = Silence::NoWorkspace(
        "no folder is open; open the folder of a cargo workspace, or a file that belongs to one".to_owned(),
    );
    for folder in &setup.folders {
        let manifest = match workspace::find_manifest(folder) {
            Ok(manifest) => manifest,
            Err(error) => {
                missing = Silence::NoWorkspace(error.to_string());
                continue;
            }
        };
        return load(&manifest, setup.settings.trusted).map_err(|error| Silence::Other(error.to_string()));
    }
    Err(missing)
}

fn load(manifest: &Path, is_trusted: bool) -> Result<Sources, WorkspaceError> {
    if is_trusted {
        match workspace::load(manifest, CargoUse::Run { offline: true, locked: true }) {
            Ok(sources) => return Ok(sources),
            Err(error) => tracing::warn!(%error, "reading the workspace's files in place of cargo's answer"),
        }
    }
    workspace::load(manifest, CargoUse::Never)
}

impl Found {
    fn collect(&self) -> Vec<SourceFile> {
        let (files, skipped) = self.sources.collect(&[Role::Member]);
        for file in skipped {
            tracing::debug!(path = %file.path.display(), reason = file.reason, "left out of the memory");
        }
        files
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Paths to the names that [`SourceFile`] has.
struct Names {
    root: PathBuf,
    /// The collected files whose name is not their path from the root: those of members outside it.
    others: HashMap<PathBuf, String>,
    /// Folders of dependencies, and how the names of their files begin.
    dependencies: HashMap<PathBuf, String>,
}

impl Names {
    fn new(root: PathBuf, files: &[SourceFile], dependencies: &[Package]) -> Self {
        let others = files.iter().filter(|file| file.path != root.join(&file.name));
        let others = others.map(|file| (file.path.clone(), file.name.clone())).collect();
        let prefix = |package: &Package| format!("{}-{}", package.name, package.version);
        let dependencies = dependencies.iter().map(|package| (package.folder.clone(), prefix(package))).collect();
        Self { root, others, dependencies }
    }

    /// A file's name: its own where it was collected, else its path from the root, with `/`; `None` outside the
    /// workspace, where any name could be that of another file.
    fn name(&self, path: &Path) -> Option<String> {
        // The root is without links; a file that is not saved yet has only its folder on disk.
        let folder = path.parent().and_then(|folder| std::fs::canonicalize(folder).ok());
        let real = folder.zip(path.file_name()).map(|(folder, file)| folder.join(file));
        let real = real.as_deref().unwrap_or(path);
        if let Some(name) = self.others.get(real) {
            return Some(name.clone());
        }
        let mut below_root = real.ancestors().skip(1).take_while(|folder| *folder != self.root);
        let found = below_root.find_map(|folder| Some((folder, self.dependencies.get(folder)?.as_str())));
        let (folder, prefix) = found.unwrap_or((&self.root, ""));
        let inside = real.strip_prefix(folder).ok()?.components().map(|part| part.as_os_str().to_string_lossy());
        let prefix = (!prefix.is_empty()).then(|| prefix.into());
        let parts: Vec<_> = prefix.into_iter().chain(inside).collect();
        Some(parts.join("/"))
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use nanochat_engine::workspace::sources::Package;

    use super::*;

    #[test]
    fn a_file_has_the_name_it_was_collected_under_and_none_outside_the_workspace() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let base = std::fs::canonicalize(folder.path()).expect("it was made above");
        let package = |name: &str, role| {
            let folder = base.join(name);
            std::fs::create_dir_all(folder.join("src")).expect("a folder");
            std::fs::write(folder.join("src/lib.rs"), "").expect("a file");
            let (version, edition) = ("1.0.0".to_owned(), "2024".to_owned());
            Package { name: name.to_owned(), version, edition, licence: None, folder, role }
        };
        let packages = vec![package("ws", Role::Member), package("dep", Role::Dependency)];
        let sources = Sources { root: base.join("ws"), packages };
        let (files, root) = (sources.collect(&[Role::Member]).0, || sources.root.clone());
        let (own, all) = (Names::new(root(), &files, &[]), Names::new(root(), &files, &sources.packages[1..]));
        let name = |names: &Names, path: &str| names.name(&folder.path().join(path));
        assert_eq!(name(&own, "ws/src/lib.rs").as_deref(), Some("src/lib.rs"));
        assert_eq!(name(&own, "ws/src/unsaved.rs").as_deref(), Some("src/unsaved.rs"));
        assert_eq!(name(&all, "dep/src/lib.rs").as_deref(), Some("dep-1.0.0/src/lib.rs"));
        assert_eq!(name(&own, "dep/src/lib.rs"), None);
        // The workspace may have a file of that name at its root.
        assert_eq!(name(&all, "elsewhere/build.rs"), None);
        assert_eq!(all.name(Path::new("/")), None);
    }

    #[test]
    fn each_cause_of_silence_says_what_to_do() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut source = LocalSource::new(Store::at(folder.path().join("data")), 1);
        let mut silence = |folders: Vec<PathBuf>| {
            let setup = Setup { folders, ..Setup::default() };
            source.load(&setup).err().expect("nothing to load").to_string()
        };
        assert!(silence(vec![]).contains("open the folder"));
        let crate_folder = folder.path().join("x");
        std::fs::create_dir(&crate_folder).expect("a folder");
        std::fs::write(crate_folder.join("Cargo.toml"), "[package]\nname = \"x\"\n").expect("a file");
        assert!(silence(vec![crate_folder.clone()]).contains("cargo nanochat train"));
        std::fs::write(crate_folder.join("Cargo.toml"), "[package\n").expect("a file");
        assert!(silence(vec![crate_folder]).contains("cannot be understood"));
    }
}
