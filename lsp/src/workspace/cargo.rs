//! The workspace's members as `cargo metadata --no-deps` lists them. This executes what the workspace configures.
//!
//! Dependencies come from the files: to resolve them, cargo may write `Cargo.lock` and download, and it fails if one
//! that only another platform needs is not on this machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand};
use nanochat_engine::Sources;
use nanochat_engine::workspace::sources::{Package, Role};

use super::error::{WorkspaceError, absolute};
use super::files;

pub(super) fn load(
    manifest: &Path,
    offline: bool,
    locked: bool,
    cargo_home: Option<&Path>,
) -> Result<Sources, WorkspaceError> {
    let flags = [(offline, "--offline"), (locked, "--locked")];
    let flags: Vec<String> = flags.iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| (*flag).to_owned()).collect();
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .other_options(flags)
        .exec()
        .map_err(|error| failed(manifest, &error))?;
    let root = absolute(metadata.workspace_root.as_std_path())?;
    let mut packages = members(&metadata)?;
    let folders: BTreeSet<PathBuf> = packages.iter().map(|member| member.folder.clone()).collect();
    let read = files::load(&root.join("Cargo.toml"), cargo_home)?.packages;
    let others = read.into_iter().filter(|package| !folders.contains(&package.folder));
    packages.extend(others.map(|package| Package { role: Role::Dependency, ..package }));
    Ok(Sources { root, packages })
}

fn members(metadata: &Metadata) -> Result<Vec<Package>, WorkspaceError> {
    let mut packages = Vec::with_capacity(metadata.packages.len());
    for package in &metadata.packages {
        let Some(folder) = package.manifest_path.parent() else { continue };
        packages.push(Package {
            name: package.name.to_string(),
            version: package.version.to_string(),
            edition: package.edition.to_string(),
            licence: package.license.clone(),
            folder: absolute(folder.as_std_path())?,
            role: Role::Member,
        });
    }
    Ok(packages)
}

fn failed(manifest: &Path, error: &cargo_metadata::Error) -> WorkspaceError {
    let message = match error {
        cargo_metadata::Error::CargoMetadata { stderr } => {
            let error_line = stderr.lines().find(|line| line.starts_with("error")).or(stderr.lines().next());
            error_line.unwrap_or("no error message").trim_start_matches("error: ").to_owned()
        }
        other => other.to_string(),
    };
    WorkspaceError::Cargo { manifest: manifest.to_owned(), message }
}
