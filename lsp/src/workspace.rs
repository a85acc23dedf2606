//! Cargo workspace to [`Sources`].

use std::path::{Path, PathBuf};

use nanochat_engine::Sources;
use nanochat_engine::workspace::sources::{Package, Role};

mod cargo;
mod files;
mod toolchain;

pub(crate) use toolchain::std_source;

/// Whether cargo may be run: it executes what the workspace configures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CargoUse {
    /// `cargo metadata --no-deps` tells the members; dependencies are read from the files as in `Never`. Neither
    /// needs the network or writes `Cargo.lock`; the flags are passed on to cargo all the same.
    Run {
        /// `--offline`.
        offline: bool,
        /// `--locked`.
        locked: bool,
    },
    /// `Cargo.toml`, `Cargo.lock` and the registry folders are read.
    Never,
}

/// Why a workspace cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// No manifest there or above.
    #[error("no Cargo.toml in {folder} or any folder above it; run inside a cargo workspace or pass --manifest-path")]
    NoManifest {
        /// Where the search began.
        folder: PathBuf,
    },
    /// A file that is needed cannot be read.
    #[error("cannot read {path}: {source}; check the path and its permissions")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file that is needed is not what its name says.
    #[error("{path} cannot be understood: {message}; `cargo metadata` says more")]
    Unparsable {
        /// The file.
        path: PathBuf,
        /// What is wrong, on one line.
        message: String,
    },
    /// Nobody's code is in it.
    #[error("the workspace of {manifest} has no packages; add one with `cargo new`")]
    Empty {
        /// Its manifest.
        manifest: PathBuf,
    },
    /// `cargo metadata` failed.
    #[error("`cargo metadata` failed for {manifest}: {message}")]
    Cargo {
        /// The manifest it was given.
        manifest: PathBuf,
        /// The first line of its complaint.
        message: String,
    },
}

/// The manifest that governs `folder`: the nearest `Cargo.toml` at or above it.
pub fn find_manifest(folder: &Path) -> Result<PathBuf, WorkspaceError> {
    let start = absolute(folder)?;
    start
        .ancestors()
        .map(|folder| folder.join("Cargo.toml"))
        .find(|manifest| manifest.is_file())
        .ok_or(WorkspaceError::NoManifest { folder: start })
}

/// Members and dependencies of the workspace that `manifest` belongs to: those by path, and those of a registry that
/// `Cargo.lock` names and this machine has unpacked. Others (git, not downloaded) are left out.
pub fn load(manifest: &Path, cargo: CargoUse) -> Result<Sources, WorkspaceError> {
    let manifest = absolute(manifest)?;
    let mut sources = match cargo {
        CargoUse::Run { offline, locked } => cargo::load(&manifest, offline, locked, cargo_home().as_deref())?,
        CargoUse::Never => files::load(&manifest, cargo_home().as_deref())?,
    };
    let order = |package: &Package| (package.role, package.name.clone(), package.version.clone());
    sources.packages.sort_by_key(order);
    if sources.members().next().is_none() {
        return Err(WorkspaceError::Empty { manifest });
    }
    Ok(sources)
}

/// The path from the root, without links, so that one workspace has one name.
fn absolute(path: &Path) -> Result<PathBuf, WorkspaceError> {
    // A bare `Cargo.toml` has an empty parent; from the root it has a real one.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    std::fs::canonicalize(path).map_err(|source| WorkspaceError::Unreadable { path: path.to_owned(), source })
}

/// Where cargo keeps its downloads, found as cargo finds it.
fn cargo_home() -> Option<PathBuf> {
    let set = std::env::var_os("CARGO_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    set.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
}

#[cfg(test)]
mod tests;
