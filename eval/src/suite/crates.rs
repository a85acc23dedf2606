//! Published crates at locked versions. Their sources are cargo's, never ours: they are copied into a temporary
//! workspace in which they take the place of what cargo would have taken from its registry.

use std::fmt::Write as _;
use std::path::Path;

use nanochat_engine::Sources;
use nanochat_engine::sources::{Package, Role};

use super::{Group, Project, Suite, SuiteError, without_twins, write};

/// A list of `suites/heldout.toml`, with the lock file that names the versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrateList {
    /// For figures that are published.
    Report,
    /// For calibration, early looks and choosing recipes.
    Develop,
}

impl CrateList {
    fn name(self) -> &'static str {
        match self {
            Self::Report => "crates",
            Self::Develop => "develop",
        }
    }

    fn manifest(self) -> &'static str {
        match self {
            Self::Report => include_str!("../../suites/crates/Cargo.toml"),
            Self::Develop => include_str!("../../suites/develop/Cargo.toml"),
        }
    }

    fn lock(self) -> &'static str {
        match self {
            Self::Report => include_str!("../../suites/crates/Cargo.lock"),
            Self::Develop => include_str!("../../suites/develop/Cargo.lock"),
        }
    }

    /// The crates, by name, as the manifest states them: (name, version).
    pub fn crates(self) -> Vec<(&'static str, &'static str)> {
        let lines = self.manifest().lines().skip_while(|line| *line != "[dependencies]");
        let pairs = lines.filter_map(|line| line.split_once(" = \"="));
        pairs.filter_map(|(name, version)| Some((name, version.strip_suffix('"')?))).collect()
    }

    /// Writes the package that depends on all of them, for cargo to fetch from and to be loaded as [`Sources`].
    pub fn write(self, folder: &Path) -> Result<(), SuiteError> {
        write(&folder.join("Cargo.toml"), self.manifest())?;
        write(&folder.join("Cargo.lock"), self.lock())?;
        write(&folder.join("src/lib.rs"), "")
    }
}

impl Suite {
    /// The crates of a list. `sources` are those of the package that [`CrateList::write`] wrote; `only` names the
    /// crates that are wanted, all if empty. `max_holes` is of each crate.
    pub fn crates(list: CrateList, sources: &Sources, only: &[String], max_holes: usize) -> Result<Self, SuiteError> {
        let crates = list.crates();
        if let Some(name) = only.iter().find(|name| !crates.iter().any(|(known, _)| known == name)) {
            return Err(SuiteError::Unknown { name: name.clone() });
        }
        let wanted: Vec<_> =
            crates.into_iter().filter(|(name, _)| only.is_empty() || only.iter().any(|only| only == name)).collect();
        let find = |(name, version): &(&str, &str)| {
            // A version's build metadata is not part of a requirement.
            let is_it = |package: &&Package| {
                package.name == *name && package.version.split('+').next() == Some(*version) && package.folder.is_dir()
            };
            sources.packages.iter().find(is_it).cloned()
        };
        let missing: Vec<&str> = wanted.iter().filter(|krate| find(krate).is_none()).map(|(name, _)| *name).collect();
        if let Some(first) = missing.first() {
            return Err(SuiteError::NotFetched { missing: missing.len(), first: (*first).to_owned() });
        }
        let packages: Vec<Package> = wanted.iter().filter_map(find).collect();

        let folder = tempfile::Builder::new().prefix("nanochat-suite-").tempdir();
        let folder = folder.map_err(|source| SuiteError::Io { path: std::env::temp_dir(), source })?;
        let mut manifest = list.manifest().replace("[workspace]", "[workspace]\nexclude = [\"crates\"]");
        if !only.is_empty() {
            // What is not wanted is not built either; cargo drops it from the lock file by itself.
            let is_wanted = |line: &&str| match line.split_once(" = \"=") {
                Some((name, _)) => only.iter().any(|only| only == name),
                None => true,
            };
            manifest = manifest.lines().filter(is_wanted).collect::<Vec<_>>().join("\n");
        }
        manifest.push_str("\n[patch.crates-io]\n");
        let mut members = Vec::new();
        for package in packages {
            let name = &package.name;
            let _ = writeln!(manifest, "{name} = {{ path = \"crates/{name}\" }}");
            let to = folder.path().join("crates").join(name);
            copy(&package.folder, &to)?;
            members.push(Package { folder: to, role: Role::Member, ..package });
        }
        write(&folder.path().join("Cargo.toml"), &manifest)?;
        write(&folder.path().join("Cargo.lock"), list.lock())?;
        write(&folder.path().join("src/lib.rs"), "")?;
        let sources = Sources { root: folder.path().to_path_buf(), packages: members };
        let projects = sources.packages.iter().map(|package| project(&sources, package, max_holes)).collect();
        let group = Group { sources, keep_going: true, projects, _folder: Some(folder) };
        Ok(Self { name: list.name().to_owned(), groups: vec![group] })
    }
}

/// Holes are cut from everything in `src`; the crate's other files are known, as they are to whoever writes it.
fn project(sources: &Sources, package: &Package, max_holes: usize) -> Project {
    let own = Sources { root: sources.root.clone(), packages: vec![package.clone()] };
    let known = without_twins(own.collect(&[Role::Member]).0);
    let src = format!("crates/{}/src/", package.name);
    let cut = known.iter().filter(|file| file.name.starts_with(&src));
    Project {
        name: package.name.clone(),
        version: package.version.clone(),
        texts: cut.map(|file| (file.name.clone(), file.text.clone())).collect(),
        known,
        max_holes,
        ..Project::default()
    }
}

/// Files and folders of a package as cargo unpacked it. Links are not followed: packages hold none.
fn copy(from: &Path, to: &Path) -> Result<(), SuiteError> {
    let failed = |source| SuiteError::Io { path: from.to_path_buf(), source };
    std::fs::create_dir_all(to).map_err(failed)?;
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() && entry.file_name() != ".gitignore" {
            // An ignore file would keep parts of the package from being copied for checking.
            std::fs::copy(entry.path(), &target).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct HeldOut {
        develop: Vec<String>,
        report: Vec<String>,
    }

    #[test]
    fn the_locked_crates_are_those_of_the_held_out_lists() {
        let lists: HeldOut = toml::from_str(include_str!("../../suites/heldout.toml")).expect("a list of lists");
        for (list, mut names) in [(CrateList::Report, lists.report), (CrateList::Develop, lists.develop)] {
            names.sort();
            assert_eq!(list.crates().iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
            for (name, version) in list.crates() {
                let locked = format!("name = \"{name}\"\nversion = \"{version}");
                assert!(list.lock().contains(&locked), "{name} {version}");
            }
        }
    }

    #[test]
    fn lock_files_name_no_registry_but_the_public_one() {
        for list in [CrateList::Report, CrateList::Develop] {
            for line in list.lock().lines().filter(|line| line.starts_with("source")) {
                assert_eq!(line, "source = \"registry+https://github.com/rust-lang/crates.io-index\"");
            }
        }
    }

    #[test]
    fn crates_that_are_not_on_this_machine_are_named() {
        let error = Suite::crates(CrateList::Develop, &Sources::default(), &[], 1).expect_err("nothing is there");
        assert!(matches!(error, SuiteError::NotFetched { missing: 32, .. }), "{error}");
        let error = Suite::crates(CrateList::Develop, &Sources::default(), &["serde".into()], 1).expect_err("not it");
        assert!(matches!(error, SuiteError::Unknown { .. }), "{error}");
    }
}
