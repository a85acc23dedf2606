//! The server's engine: a completer, and a memory that grows as the background index does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nanochat_engine::complete::CompleteError;
use nanochat_engine::{Cancel, Completer, Completion, Limits, Memory, Prompt, Snippet};
use ropey::Rope;

use super::names::FileNames;
use crate::context::Query;
use crate::index::BackgroundIndex;
use crate::worker::Engine;

/// The engine of one loaded workspace.
pub(crate) struct WorkspaceEngine {
    completer: Completer,
    names: FileNames,
    /// The workspace's part of the memory.
    workspace: Arc<Memory>,
    index: Arc<BackgroundIndex>,
    /// The generation of the index that the completer's memory has; `None` once the workspace's part is another.
    generation: Option<u64>,
    /// The open files that the index was last given.
    open: Vec<(PathBuf, Rope)>,
}

impl WorkspaceEngine {
    /// An engine that remembers `workspace`, and whatever `index` adds to it.
    pub(super) fn new(
        completer: Completer,
        names: FileNames,
        workspace: Arc<Memory>,
        index: Arc<BackgroundIndex>,
    ) -> Self {
        Self { completer, names, workspace, index, generation: None, open: Vec::new() }
    }

    /// Takes in what was indexed since the last request, and has the open files indexed if they have changed.
    fn refresh(&mut self, query: &Query) {
        let is_same = |(a, b): (&(PathBuf, Rope), &(PathBuf, Rope))| a.0 == b.0 && a.1.is_instance(&b.1);
        if self.open.len() != query.open.len() || !self.open.iter().zip(&query.open).all(is_same) {
            self.open.clone_from(&query.open);
            let name = |path: &Path| self.names.name(path);
            let files = query.open.iter().filter_map(|(path, text)| Some((name(path)?, text.clone()))).collect();
            self.index.index_open(files, self.completer.tokenizer());
        }
        let generation = self.index.generation();
        if self.generation != Some(generation) {
            self.completer.set_memory(Arc::new(self.index.add_to(&self.workspace)));
            self.generation = Some(generation);
        }
    }
}

impl Engine for WorkspaceEngine {
    fn complete(
        &mut self,
        query: &Query,
        limits: &Limits,
        cancel: &Cancel,
    ) -> Result<Option<Completion>, CompleteError> {
        self.refresh(query);
        let name = query.path.as_deref().and_then(|path| self.names.name(path)).unwrap_or_default();
        // A snippet never replaces a file of the memory, so the bare file name is safe.
        let bare = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let snippet_name = |path: &Path| self.names.name(path).unwrap_or_else(|| bare(path));
        let snippets: Vec<(String, &str)> =
            query.snippets.iter().map(|(path, text)| (snippet_name(path), text.as_str())).collect();
        let snippets: Vec<Snippet<'_>> = snippets.iter().map(|(path, text)| Snippet { path, text }).collect();
        let prompt =
            Prompt { path: &name, snippets: &snippets, prefix: &query.text.prefix, suffix: &query.text.suffix };
        self.completer.complete(&prompt, limits, cancel)
    }

    fn set_memory(&mut self, memory: Arc<Memory>) {
        self.workspace = memory;
        self.generation = None;
    }
}
