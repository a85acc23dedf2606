//! The only place that runs generated code: a copy of the workspace in a temporary folder, and commands in it.
//!
//! ```text
//! workspace → copy → helper process (confines itself: layers) → command → output, limits, kill
//! ```
//!
//! Every command gets a cleared environment (`PATH`, `HOME`, `CARGO_HOME`, `RUSTUP_HOME` and `RUSTUP_TOOLCHAIN`
//! stay, for without them there is no toolchain), its own process group and a wall clock. On Linux a helper process in
//! between applies the [`Layer`]s that the machine offers; each report has them in words, see [`Sandbox::level`]. The
//! helper is this program, started again, if its `main` starts with [`become_helper_if_asked`], and otherwise the
//! program `nanochat-sandbox` in the same folder.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nanochat_engine::{Cancel, Cancelled};

mod copy; // of a workspace, into the sandbox
mod layers; // what confines a command, by name
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only the helper takes orders"))]
mod policy; // what a command may do
#[cfg(target_os = "linux")]
mod helper_program; // which program becomes the helper
#[cfg(target_os = "linux")]
mod helper; // the process that confines itself and starts the command
mod run; // one command from start to end
mod output; // what it writes, up to a limit
mod live; // what to kill and remove when this process ends
#[cfg(target_os = "linux")]
mod survivors; // processes that a command left
mod probe; // which layers this machine has

pub use layers::{Layer, Level, Mode};
pub(crate) use live::Folder as RemovedAtExit;
pub use live::kill_all;
pub use policy::Access;
pub use run::{Finished, Invocation};

/// A temporary folder with copies of a workspace. Removed when dropped.
#[derive(Debug)]
pub struct Sandbox {
    base: PathBuf,
    /// Path of the root within each copy; not empty if path dependencies outside the root were copied too.
    root_within: PathBuf,
    n_trees: usize,
    level: Level,
    words: String,
    paths: policy::SandboxPaths, // of the first tree
    _removed_at_exit: live::Folder,
    _folder: tempfile::TempDir, // dropped last: it removes `base`
}

/// The folders that are copied into a sandbox.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Root folder of the workspace.
    pub root: &'a Path,
    /// Folders outside of the root that it depends on by path. In the copy the root's relative paths lead to them.
    pub path_dependencies: &'a [PathBuf],
    /// Also copy what ignore files exclude, e.g. generated sources.
    pub with_ignored: bool,
}

/// Why a sandbox cannot be made, or a command did not run in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// A file could not be copied or written.
    #[error("cannot copy {path} for checking: {source}")]
    Copy {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The workspace is too large to copy.
    #[error(
        "{root} holds more than {limit} MiB besides what its .gitignore names; add large data to .gitignore or .ignore"
    )]
    TooLarge {
        /// Root of the workspace.
        root: PathBuf,
        /// The limit in mebibytes.
        limit: u64,
    },
    /// The program cannot be started.
    #[error("cannot run `{program}`: {source}; is the Rust toolchain on PATH?")]
    Spawn {
        /// Name of the program.
        program: String,
        /// The system's error.
        source: io::Error,
    },
    /// Every layer was required, and this machine lacks some.
    #[error(
        "this machine has no sandbox with {missing}; run where it has, or accept less with `--sandbox best-effort`"
    )]
    Missing {
        /// The missing layers, each with its reason.
        missing: String,
    },
    /// A layer that was available when the sandbox was made now fails. Nothing was run.
    #[error("the sandbox could not be closed around a command ({reason}), so nothing was run; try again")]
    Open {
        /// The helper's message.
        reason: String,
    },
    /// The caller cancelled the command.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Whether the path is inside cargo's home, where downloads are.
pub(crate) fn is_downloaded(path: &Path) -> bool {
    let (_, cargo_home) = policy::readable(|name| std::env::var_os(name));
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    real(path).starts_with(real(&cargo_home))
}

/// A hash of the names and bytes of what [`Sandbox::of`] copies of a folder.
pub(crate) fn hash_of_copy(root: &Path, with_ignored: bool) -> Result<String, SandboxError> {
    let failed = |source| SandboxError::Copy { path: root.to_path_buf(), source };
    copy::hash_tree(&root.canonicalize().map_err(failed)?, with_ignored)
}

/// Call it first in `main`: if this process was started as a sandbox's helper, it becomes that and does not return.
/// Otherwise it registers this program as its own helper.
pub fn become_helper_if_asked() {
    #[cfg(target_os = "linux")]
    {
        helper::become_helper_if_asked();
        helper_program::set_to_this_program();
    }
}

impl Sandbox {
    /// [`Sandbox::confined`] with all layers that this machine offers.
    pub fn copy(root: &Path, n_trees: usize) -> Result<Self, SandboxError> {
        Self::confined(root, n_trees, Mode::BestEffort)
    }

    /// Copies the workspace at `root` once per worker. Ignored files, `.git`, folders with a `CACHEDIR.TAG` and
    /// `target` folders next to a `Cargo.toml` are not copied, `Cargo.lock` always is; links are replaced by what they point to
    /// if that is a file of the workspace, and left out otherwise.
    pub fn confined(root: &Path, n_trees: usize, mode: Mode) -> Result<Self, SandboxError> {
        Self::of(&Origin { root, path_dependencies: &[], with_ignored: false }, n_trees, mode)
    }

    /// As [`Sandbox::confined`], with folders outside of the root.
    pub fn of(origin: &Origin<'_>, n_trees: usize, mode: Mode) -> Result<Self, SandboxError> {
        let root = origin.root;
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| SandboxError::Copy { path, source }
        };
        let root = root.canonicalize().map_err(failed(root))?;
        let outside: Vec<PathBuf> = origin
            .path_dependencies
            .iter()
            .map(|path| path.canonicalize().map_err(failed(path)))
            .collect::<Result<_, _>>()?;
        let above = outside.iter().fold(root.as_path(), |above, path| {
            above.ancestors().find(|above| path.starts_with(above)).unwrap_or(above)
        });
        let within = |path: &Path| path.strip_prefix(above).map(Path::to_path_buf).unwrap_or_default();
        let folder = tempfile::Builder::new()
            .prefix("nanochat-eval-")
            .tempdir()
            .map_err(|source| SandboxError::Copy { path: std::env::temp_dir(), source })?;
        // Paths that the compiler reports are compared with ours, so they must not contain links.
        let base = folder.path().canonicalize().map_err(failed(folder.path()))?;
        let (read, cargo_home) = policy::readable(|name| std::env::var_os(name));
        let paths = policy::SandboxPaths {
            is_root: probe::is_root(),
            root_at: base.join("root"),
            tree: base.join("tree-0"),
            scratch: base.join("scratch-0"),
            target: base.join("target"),
            temp: base.join("tmp"),
            cargo_home,
            read,
        };
        let mut sandbox = Self {
            _removed_at_exit: live::Folder::new(&base),
            base,
            root_within: within(&root),
            n_trees: n_trees.max(1),
            level: Level::default(),
            words: String::new(),
            paths,
            _folder: folder,
        };
        for tree_idx in 0..sandbox.n_trees {
            for from in outside.iter().chain([&root]) {
                copy::copy_tree(from, &sandbox.whole(tree_idx).join(within(from)), origin.with_ignored)?;
            }
            let scratch = sandbox.scratch(tree_idx);
            std::fs::create_dir_all(&scratch).map_err(failed(&scratch))?;
        }
        for folder in [&sandbox.paths.root_at, &sandbox.paths.target, &sandbox.paths.temp] {
            std::fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        // As root, commands run as another user, who must be able to read the copies. Where that user does not exist,
        // as in a user namespace with one id, no command becomes that user either.
        let is_handed_over =
            sandbox.paths.is_root && mode != Mode::Off && copy::hand_over(&sandbox.base, policy::UNPRIVILEGED).is_ok();
        sandbox.level = probe::level(mode, &sandbox.paths);
        sandbox.words = sandbox.level.to_string();
        if is_handed_over && !sandbox.level.on.contains(&Layer::Processes) {
            copy::hand_over(&sandbox.base, 0).map_err(failed(&sandbox.base))?;
        }
        if mode == Mode::Require && sandbox.level.on.len() < Layer::ALL.len() {
            let missing = sandbox.level.missing.iter().map(|(layer, reason)| format!("{layer} ({reason})"));
            return Err(SandboxError::Missing { missing: missing.collect::<Vec<_>>().join(", ") });
        }
        Ok(sandbox)
    }

    /// Number of copies of the workspace.
    pub fn n_trees(&self) -> usize {
        self.n_trees
    }

    /// Root of the workspace in one copy.
    pub fn tree(&self, tree_idx: usize) -> PathBuf {
        let whole = self.whole(tree_idx);
        if self.root_within.as_os_str().is_empty() { whole } else { whole.join(&self.root_within) }
    }

    /// One copy, including folders outside of the root.
    pub(crate) fn whole(&self, tree_idx: usize) -> PathBuf {
        self.base.join(format!("tree-{tree_idx}"))
    }

    /// Folder to which the compiler of one copy may write.
    pub fn scratch(&self, tree_idx: usize) -> PathBuf {
        self.base.join(format!("scratch-{tree_idx}"))
    }

    /// cargo's target folder, shared by the copies.
    pub fn target(&self) -> PathBuf {
        self.base.join("target")
    }

    /// The layers of this sandbox in words.
    pub fn level(&self) -> &str {
        &self.words
    }

    /// The layers that are on, and those that are missing with the reason.
    pub fn layers(&self) -> &Level {
        &self.level
    }

    /// Switches all other layers off: to measure what each layer prevents, and costs.
    pub fn reduce_to(&mut self, layers: &[Layer]) -> Result<(), SandboxError> {
        let (on, off) = self.level.on.iter().partition(|layer| layers.contains(layer));
        let off: Vec<Layer> = off;
        self.level.on = on;
        if self.paths.is_root && off.contains(&Layer::Processes) {
            let failed = |source| SandboxError::Copy { path: self.base.clone(), source };
            copy::hand_over(&self.base, 0).map_err(failed)?;
        }
        self.level.missing.extend(off.into_iter().map(|layer| (layer, "not asked for".to_owned())));
        self.words = self.level.to_string();
        Ok(())
    }

    /// [`Sandbox::run_as`] for a compiler that reads a candidate.
    pub fn run(&self, invocation: &Invocation, timeout: Duration, cancel: &Cancel) -> Result<Finished, SandboxError> {
        self.run_as(Access::Compile, invocation, timeout, cancel)
    }

    /// Runs one command to its end, or kills it and everything that it started at `timeout` or when cancelled. With
    /// [`Layer::Namespaces`] no process outlives this call; without it, none that stays a descendant.
    pub fn run_as(
        &self,
        access: Access,
        invocation: &Invocation,
        timeout: Duration,
        cancel: &Cancel,
    ) -> Result<Finished, SandboxError> {
        let finished = run::run(self, access, invocation, timeout, cancel)?;
        if access == Access::Build && self.paths.is_root && self.level.on.contains(&Layer::Processes) {
            let failed = |source| SandboxError::Copy { path: self.target(), source };
            copy::hand_over(&self.target(), policy::UNPRIVILEGED).map_err(failed)?;
        }
        Ok(finished)
    }

    /// The folders for a command that runs in `folder`.
    fn paths_of(&self, folder: &Path) -> policy::SandboxPaths {
        let is_in = |idx: &usize| folder.starts_with(self.whole(*idx)) || folder.starts_with(self.scratch(*idx));
        let idx = (0..self.n_trees).find(is_in).unwrap_or(0);
        policy::SandboxPaths { tree: self.whole(idx), scratch: self.scratch(idx), ..self.paths.clone() }
    }
}

#[cfg(all(test, unix))]
mod tests;
