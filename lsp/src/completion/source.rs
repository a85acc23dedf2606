//! Finds the workspace and loads its engine: sources, checkpoint, plans, memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nanochat_engine::workspace::sources::{Role, SourceFile};
use nanochat_engine::workspace::store::Store;
use nanochat_engine::{Completer, Memory, Sources, Tokenizer, tune};

use super::engine::WorkspaceEngine;
use super::names::FileNames;
use crate::index::{BackgroundIndex, IndexRequest};
use crate::loader::{EngineSource, Setup, SilenceReason};
use crate::tuner::Tuning;
use crate::worker::Engine;
use crate::workspace::{self, CargoUse, WorkspaceError};

/// Loads engines from the user's data directory and the workspace's files.
pub(crate) struct WorkspaceSource {
    store: Store,
    n_threads: usize,
    loaded: Option<Loaded>,
    index: Arc<BackgroundIndex>,
}

/// What the last load found, as far as it got.
struct Loaded {
    sources: Sources,
    checkpoint: PathBuf,
    stamp: Option<FileStamp>,
    tokenizer: Option<Arc<Tokenizer>>,
    tuning: Option<Tuning>,
}

/// A file's modification time and length, which change when it is replaced.
type FileStamp = (SystemTime, u64);

impl WorkspaceSource {
    /// Loads from `store`, unless the settings name another data directory. `n_threads` applies where the settings do
    /// not set the number of threads; 0 is one per core.
    pub(crate) fn new(store: Store, n_threads: usize) -> Self {
        Self { store, n_threads, loaded: None, index: Arc::default() }
    }
}

impl Drop for WorkspaceSource {
    fn drop(&mut self) {
        self.index.cancel();
    }
}

impl EngineSource for WorkspaceSource {
    fn load(&mut self, setup: &Setup) -> Result<Box<dyn Engine>, SilenceReason> {
        self.loaded = None;
        self.index.cancel();
        let settings = &setup.settings;
        let store = settings.data_dir.as_ref().map_or_else(|| self.store.clone(), Store::at);
        let sources = sources(setup)?;
        let checkpoint = store.checkpoint_path(&sources.root);
        let stamp = stamp(&checkpoint);
        let root = sources.root.clone();
        let loaded = self.loaded.insert(Loaded { sources, checkpoint, stamp, tokenizer: None, tuning: None });
        if stamp.is_none() {
            return Err(SilenceReason::Other(format!(
                "there is no checkpoint for {}, and the memory needs a checkpoint's tokenizer; \
                 run `cargo nanochat train` there",
                root.display()
            )));
        }
        let checkpoint = store
            .open_checkpoint(&loaded.checkpoint)
            .map_err(|error| SilenceReason::Other(one_line(&error.to_string())))?;
        let n_threads = if settings.threads == 0 { self.n_threads } else { settings.threads };
        let (path, config) = (store.tune_path(), &checkpoint.manifest.config);
        let (plans, complaint) = tune::plans(&path, config, n_threads);
        if let Some(error) = complaint {
            tracing::warn!(%error, "ignoring the autotuner's measurements");
        }
        let mut completer = Completer::with_plans(&checkpoint, n_threads, &plans);
        completer.set_cache_bytes(settings.cache_megabytes << 20);
        loaded.tuning = Some(Tuning { path, workload: tune::workload(config, n_threads), plans });
        loaded.tokenizer = Some(Arc::clone(&checkpoint.tokenizer));
        let files = loaded.collect();
        let others = if settings.dependencies { loaded.sources.dependencies(&files) } else { Vec::new() };
        let names = FileNames::new(root, &files, &others);
        let streams = files.iter().map(|file| (file.name.clone(), checkpoint.tokenizer.encode(file.text.as_bytes())));
        let memory = Arc::new(Memory::build(streams.collect()));
        tracing::info!(
            config = %checkpoint.manifest.config,
            version = checkpoint.manifest.version,
            memory_tokens = memory.n_tokens(),
            "checkpoint and memory are loaded"
        );
        // The workspace is searched at once; dependencies and std are added as they are indexed.
        let request = IndexRequest {
            folder: store.memory_dir(),
            files,
            std_source: workspace::std_source(&loaded.sources.root).filter(|_| settings.dependencies),
            packages: others,
            tokenizer: Arc::clone(&checkpoint.tokenizer),
        };
        self.index = BackgroundIndex::start(&self.index, request);
        Ok(Box::new(WorkspaceEngine::new(completer, names, memory, Arc::clone(&self.index))))
    }

    fn has_changed(&mut self) -> bool {
        self.loaded.as_ref().is_some_and(|loaded| stamp(&loaded.checkpoint) != loaded.stamp)
    }

    fn tuning(&self) -> Option<Tuning> {
        self.loaded.as_ref()?.tuning.clone()
    }

    fn memory(&mut self) -> Option<Arc<Memory>> {
        let loaded = self.loaded.as_ref()?;
        Some(Arc::new(Memory::of_files(&loaded.collect(), loaded.tokenizer.as_ref()?)))
    }
}

/// Reads the workspace of the first folder that is in one.
fn sources(setup: &Setup) -> Result<Sources, SilenceReason> {
    let mut missing = SilenceReason::NoWorkspace(
        "no folder is open; open the folder of a cargo workspace, or a file in one".to_owned(),
    );
    for folder in &setup.folders {
        let manifest = match workspace::find_manifest(folder) {
            Ok(manifest) => manifest,
            Err(error) => {
                missing = SilenceReason::NoWorkspace(error.to_string());
                continue;
            }
        };
        return load(&manifest, setup.settings.trusted).map_err(|error| SilenceReason::Other(error.to_string()));
    }
    Err(missing)
}

fn load(manifest: &Path, is_trusted: bool) -> Result<Sources, WorkspaceError> {
    if is_trusted {
        match workspace::load(manifest, CargoUse::Run { offline: true, locked: true }) {
            Ok(sources) => return Ok(sources),
            Err(error) => tracing::warn!(%error, "`cargo metadata` failed; reading the workspace's manifests instead"),
        }
    }
    workspace::load(manifest, CargoUse::Never)
}

impl Loaded {
    fn collect(&self) -> Vec<SourceFile> {
        let (files, skipped) = self.sources.collect(&[Role::Member]);
        for file in skipped {
            tracing::debug!(path = %file.path.display(), reason = file.reason, "left out of the memory");
        }
        files
    }
}

fn stamp(path: &Path) -> Option<FileStamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_for_silence_says_what_to_do() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut source = WorkspaceSource::new(Store::at(folder.path().join("data")), 1);
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
        assert!(silence(vec![crate_folder]).contains("cannot parse"));
    }
}
