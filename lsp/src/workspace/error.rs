//! Why a workspace cannot be read.

use std::path::{Path, PathBuf};

/// Why a workspace cannot be read. Each message is one line that ends with what to do, where there is something to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// There is no manifest at or above the folder.
    #[error("no Cargo.toml in {folder} or any folder above it; run inside a cargo workspace or pass --manifest-path")]
    NoManifest {
        /// Where the search started.
        folder: PathBuf,
    },
    /// A file that is needed cannot be read.
    #[error("cannot read {path}: {source}; check the path and its permissions")]
    Unreadable {
        /// The file or folder that was to be read.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// A file that is needed is malformed.
    #[error("cannot parse {path}: {message}; `cargo metadata` gives details")]
    Unparsable {
        /// The malformed file.
        path: PathBuf,
        /// What is wrong, on one line.
        message: String,
    },
    /// The workspace has no packages.
    #[error("the workspace of {manifest} has no packages; add one with `cargo new`")]
    Empty {
        /// The manifest that was loaded.
        manifest: PathBuf,
    },
    /// `cargo metadata` failed.
    #[error("`cargo metadata` failed for {manifest}: {message}")]
    Cargo {
        /// The manifest that was passed to cargo.
        manifest: PathBuf,
        /// The first line of cargo's error.
        message: String,
    },
}

/// The absolute path without symbolic links, so that each workspace has one name.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, WorkspaceError> {
    // The parent of a bare `Cargo.toml` is empty, which means the current folder.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    std::fs::canonicalize(path).map_err(|source| WorkspaceError::Unreadable { path: path.to_owned(), source })
}
