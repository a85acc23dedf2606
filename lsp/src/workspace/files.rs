//! The workspace as its manifests and lock file describe it, without running anything.
//!
//! ```text
//! manifest → root manifest → members (globs, path dependencies) → Cargo.lock → registry folders
//! ```
//!
//! Git dependencies are left out: their folders are named by a hash of the address.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nanochat_engine::Sources;
use nanochat_engine::workspace::sources::{Package, Role};
use toml::{Table, Value};

use super::error::{WorkspaceError, absolute};

pub(super) fn load(manifest: &Path, cargo_home: Option<&Path>) -> Result<Sources, WorkspaceError> {
    let root = root_of(manifest)?;
    let mut packages = root.packages()?;
    let known: BTreeSet<(String, String)> =
        packages.iter().map(|package| (package.name.clone(), package.version.clone())).collect();
    let registries = cargo_home.map(registries).unwrap_or_default();
    for (name, version) in locked(&root.folder)? {
        if !known.contains(&(name.clone(), version.clone())) {
            packages.extend(downloaded(&registries, &name, &version));
        }
    }
    Ok(Sources { root: root.folder, packages })
}

/// A manifest and the folder it is in.
struct Manifest {
    folder: PathBuf,
    table: Table,
}

impl Manifest {
    fn read(path: &Path) -> Result<Self, WorkspaceError> {
        let text = read(path)?;
        let folder = path.parent().expect("a path to a file has a folder").to_owned();
        Ok(Self { folder, table: parse(path, &text)? })
    }

    fn workspace(&self) -> Option<&Table> {
        self.table.get("workspace")?.as_table()
    }

    /// The patterns in `key` of `[workspace]`: `members` or `exclude`.
    fn listed(&self, key: &str) -> impl Iterator<Item = &str> {
        let listed = self.workspace().and_then(|workspace| workspace.get(key)).and_then(Value::as_array);
        listed.into_iter().flatten().filter_map(Value::as_str)
    }

    /// The folders that those patterns match.
    fn folders(&self, key: &str) -> Result<Vec<PathBuf>, WorkspaceError> {
        let mut folders = Vec::new();
        for pattern in self.listed(key) {
            let whole = format!("{}/{pattern}", glob::Pattern::escape(&self.folder.to_string_lossy()));
            let matches = glob::glob(&whole).map_err(|error| WorkspaceError::Unparsable {
                path: self.folder.join("Cargo.toml"),
                message: format!("`{pattern}` in workspace.{key}: {error}"),
            })?;
            // A folder that cannot be listed holds no package that could be read.
            let found: Vec<PathBuf> = matches.filter_map(Result::ok).filter_map(|path| absolute(&path).ok()).collect();
            if found.is_empty() && key == "members" && !pattern.contains(['*', '?', '[']) {
                // Named without a pattern and absent: reading it fails with an error that names it.
                folders.push(self.folder.join(pattern));
            }
            folders.extend(found);
        }
        Ok(folders)
    }

    /// Whether the package in `folder` is a member of this workspace.
    fn holds(&self, folder: &Path) -> Result<bool, WorkspaceError> {
        Ok(self.packages()?.iter().any(|package| package.folder == folder && package.role == Role::Member))
    }

    /// The members, and their dependencies by path.
    fn packages(&self) -> Result<Vec<Package>, WorkspaceError> {
        let excluded = self.folders("exclude")?;
        let is_excluded = |folder: &Path| excluded.iter().any(|excluded| folder.starts_with(excluded));
        let listed = self.folders("members")?;
        // An excluded folder is still a member if it is named without a pattern, but not if a pattern matches it.
        let named: Vec<PathBuf> = self.listed("members").map(|member| self.folder.join(member)).collect();
        let is_listed = |folder: &PathBuf| listed.contains(folder) && (named.contains(folder) || !is_excluded(folder));
        let mut waiting: Vec<PathBuf> = listed.iter().filter(|folder| is_listed(folder)).cloned().collect();
        if self.table.contains_key("package") {
            waiting.push(self.folder.clone());
        }
        let mut packages = BTreeMap::new();
        while let Some(folder) = waiting.pop() {
            let manifest_path = folder.join("Cargo.toml");
            if packages.contains_key(&folder) || (folder.exists() && !manifest_path.is_file()) {
                // A pattern may match folders without a package. Cargo rejects some of them; reading can skip all.
                continue;
            }
            let manifest = Self::read(&manifest_path)?;
            waiting.extend(manifest.path_dependencies(self));
            let is_member = is_listed(&folder) || (folder.starts_with(&self.folder) && !is_excluded(&folder));
            let role = if is_member { Role::Member } else { Role::Dependency };
            let Some(package) = manifest.package(Some(self), role) else { continue };
            packages.insert(folder, package);
        }
        Ok(packages.into_values().collect())
    }

    /// Existing folders that any dependency table names by path, directly or through the workspace's table.
    fn path_dependencies(&self, root: &Self) -> Vec<PathBuf> {
        let targets = self.table.get("target").and_then(Value::as_table);
        let platforms = targets.into_iter().flat_map(Table::values).filter_map(Value::as_table);
        let tables = std::iter::once(&self.table).chain(platforms);
        let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
        let dependencies = tables.flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()));
        let mut folders = Vec::new();
        for (name, dependency) in dependencies.flatten() {
            let shared = || root.workspace()?.get("dependencies")?.get(name)?.get("path");
            let path = match dependency.get("path") {
                Some(path) => path.as_str().map(|path| self.folder.join(path)),
                None if dependency.get("workspace").is_some() => {
                    shared().and_then(Value::as_str).map(|path| root.folder.join(path))
                }
                None => None,
            };
            folders.extend(path.and_then(|path| absolute(&path).ok()));
        }
        folders
    }

    /// The package that `[package]` describes; inherited fields are looked up in `root`.
    fn package(&self, root: Option<&Self>, role: Role) -> Option<Package> {
        let package = self.table.get("package")?.as_table()?;
        let inherited = root.and_then(|root| root.workspace()?.get("package")?.as_table());
        let field = |key: &str| match package.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Table(_) => inherited?.get(key)?.as_str().map(str::to_owned),
            _ => None,
        };
        Some(Package {
            name: field("name")?,
            version: field("version").unwrap_or_else(|| "0.0.0".to_owned()),
            edition: field("edition").unwrap_or_else(|| "2015".to_owned()),
            licence: field("license"),
            folder: self.folder.clone(),
            role,
        })
    }
}

/// The manifest with the `[workspace]` table that `manifest` belongs to, or `manifest` itself.
fn root_of(manifest: &Path) -> Result<Manifest, WorkspaceError> {
    let own = Manifest::read(manifest)?;
    if own.workspace().is_some() {
        return Ok(own);
    }
    if let Some(named) = own.table.get("package").and_then(|package| package.get("workspace")).and_then(Value::as_str) {
        return Manifest::read(&absolute(&own.folder.join(named).join("Cargo.toml"))?);
    }
    for folder in own.folder.ancestors().skip(1) {
        let path = folder.join("Cargo.toml");
        if !path.is_file() {
            continue;
        }
        let above = Manifest::read(&path)?;
        if above.workspace().is_some() {
            return if above.holds(&own.folder)? { Ok(above) } else { Ok(own) };
        }
    }
    Ok(own)
}

/// Name and version of every registry package in `Cargo.lock`; empty if there is no such file.
fn locked(root: &Path) -> Result<Vec<(String, String)>, WorkspaceError> {
    let path = root.join("Cargo.lock");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let table = parse(&path, &read(&path)?)?;
    let packages = table.get("package").and_then(Value::as_array);
    let field = |package: &Value, key: &str| package.get(key)?.as_str().map(str::to_owned);
    let from_registry = |package: &&Value| {
        let source = field(package, "source").unwrap_or_default();
        source.starts_with("registry+") || source.starts_with("sparse+")
    };
    let named = |package: &Value| Some((field(package, "name")?, field(package, "version")?));
    Ok(packages.into_iter().flatten().filter(from_registry).filter_map(named).collect())
}

/// The folders of unpacked packages, one per registry, sorted.
fn registries(cargo_home: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(cargo_home.join("registry").join("src"));
    let mut folders: Vec<PathBuf> =
        entries.into_iter().flatten().flatten().filter_map(|entry| absolute(&entry.path()).ok()).collect();
    folders.sort();
    folders
}

/// A registry package's unpacked source, if it is on this machine.
fn downloaded(registries: &[PathBuf], name: &str, version: &str) -> Option<Package> {
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c));
    if !plain(name) || !plain(version) {
        return None; // A lock file must not lead to a path outside the registry.
    }
    let folder = registries.iter().map(|registry| registry.join(format!("{name}-{version}"))).find(|f| f.is_dir())?;
    let package = Manifest::read(&folder.join("Cargo.toml")).ok()?.package(None, Role::Dependency)?;
    Some(Package { name: name.to_owned(), version: version.to_owned(), ..package })
}

fn read(path: &Path) -> Result<String, WorkspaceError> {
    std::fs::read_to_string(path).map_err(|source| WorkspaceError::Unreadable { path: path.to_owned(), source })
}

fn parse(path: &Path, text: &str) -> Result<Table, WorkspaceError> {
    text.parse::<Table>().map_err(|error| {
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let message = format!("{line}{}", error.message().replace('\n', " "));
        WorkspaceError::Unparsable { path: path.to_owned(), message }
    })
}
