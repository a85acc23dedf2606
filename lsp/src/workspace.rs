//! A cargo workspace to [`Sources`].
//!
//! ```no_run
//! use std::path::Path;
//! use nanochat_lsp::workspace::{self, CargoUse};
//!
//! let manifest = workspace::find_manifest(Path::new("."))?;
//! // Reads manifests and the lock file; runs nothing that the workspace configures.
//! let sources = workspace::load(&manifest, CargoUse::Never)?;
//! for package in sources.members() {
//!     println!("{} {}", package.name, package.version);
//! }
//! # Ok::<(), workspace::WorkspaceError>(())
//! ```

use std::path::{Path, PathBuf};

use nanochat_engine::Sources;
use nanochat_engine::workspace::sources::Package;

mod error; // why a workspace cannot be read
mod files; // the workspace as its manifests and lock file describe it
mod cargo; // the members as `cargo metadata` lists them
mod toolchain; // where the standard library's source is

pub use error::WorkspaceError;
pub(crate) use toolchain::std_source;

use error::absolute;

/// Whether cargo may be run: it executes what the workspace configures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CargoUse {
    /// `cargo metadata --no-deps` lists the members; dependencies are read from the files as in `Never`. Neither
    /// needs the network or writes `Cargo.lock`; the flags are passed on to cargo all the same.
    Run {
        /// Whether to pass `--offline`, which forbids network access.
        offline: bool,
        /// Whether to pass `--locked`, which forbids changes to `Cargo.lock`.
        locked: bool,
    },
    /// Only read `Cargo.toml`, `Cargo.lock` and the registry folders.
    Never,
}

/// The nearest `Cargo.toml` at or above `folder`.
///
/// # Errors
/// If there is none, or `folder` does not exist.
pub fn find_manifest(folder: &Path) -> Result<PathBuf, WorkspaceError> {
    let start = absolute(folder)?;
    start
        .ancestors()
        .map(|folder| folder.join("Cargo.toml"))
        .find(|manifest| manifest.is_file())
        .ok_or(WorkspaceError::NoManifest { folder: start })
}

/// The members of the workspace that `manifest` belongs to, and its dependencies: those by path, and those from a
/// registry that `Cargo.lock` names and that are unpacked on this machine. Others (git, not downloaded) are left out.
///
/// # Errors
/// If a manifest or the lock file cannot be read or parsed, `cargo metadata` fails, or the workspace has no members.
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

/// Where cargo keeps its downloads, found in the way that cargo finds it.
fn cargo_home() -> Option<PathBuf> {
    let set = std::env::var_os("CARGO_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    set.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
}

#[cfg(test)]
mod tests;
