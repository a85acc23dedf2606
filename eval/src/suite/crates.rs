//! Published crates at locked versions. cargo fetches their sources, they are never committed here: each is copied into
//! a temporary workspace and patched in for the registry's version.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::path::Path;

use nanochat_engine::Sources;
use nanochat_engine::workspace::sources::{Package, Role};
use serde::Deserialize;

use super::Knowledge;
use super::{Folder, Group, Project, Suite, SuiteError, without_twins, write};

/// A manifest's pinned dependencies: (name, version).
fn pinned(manifest: &str) -> Vec<(&str, &str)> {
    let lines = manifest.lines().skip_while(|line| *line != "[dependencies]");
    let pairs = lines.filter_map(|line| line.split_once(" = \"="));
    pairs.filter_map(|(name, version)| Some((name, version.strip_suffix('"')?))).collect()
}

/// A list of `suites/heldout.toml`, with the lock file that names the versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrateList {
    /// Crates for published figures.
    Report,
    /// Crates for calibration, early looks and choosing recipes.
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

    /// The crates in the manifest's order: (name, version).
    pub fn crates(self) -> Vec<(&'static str, &'static str)> {
        pinned(self.manifest())
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
    /// crates that are wanted, all if empty. `max_holes` is per crate.
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

        let folder = Folder::new()?;
        let mut manifest = list.manifest().replace("[workspace]", "[workspace]\nexclude = [\"crates\"]");
        if !only.is_empty() {
            // Crates that are not wanted are not built either; cargo drops them from the lock file by itself.
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
        let lock = Lock::parse(list.lock());
        let families = Families::of(&list.crates(), sources);
        let closure = |package: &Package| -> Vec<Package> {
            let names = lock.closure(&package.name, &package.version);
            let found = sources.packages.iter().filter(|found| names.contains(&(&found.name, &found.version)));
            found.filter(|found| !families.have(found)).cloned().collect()
        };
        let dependencies: Vec<Vec<Package>> = members.iter().map(closure).collect();
        let sources = Sources { root: folder.path().to_path_buf(), packages: members };
        let projects = sources.packages.iter().zip(dependencies);
        let projects = projects
            .map(|(package, dependencies)| Project { dependencies, ..project(&sources, package, max_holes) })
            .collect();
        let group = Group { sources, keep_going: true, projects, _folder: Some(folder) };
        Ok(Self { name: list.name().to_owned(), groups: vec![group], knowledge: Knowledge::Both })
    }
}

/// Which package depends on which, from a lock file.
struct Lock {
    dependencies: BTreeMap<(String, String), Vec<(String, String)>>,
}

impl Lock {
    fn parse(text: &str) -> Self {
        #[derive(Deserialize)]
        struct File {
            package: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            name: String,
            version: String,
            #[serde(default)]
            dependencies: Vec<String>,
        }
        let file: File = toml::from_str(text).expect("the lock files of the suites are cargo's");
        // A version is stated where there are several.
        let full = |stated: &String| {
            let mut words = stated.split(' ');
            let (name, version) = (words.next().unwrap_or_default(), words.next());
            let of_name = file.package.iter().find(|entry| entry.name == name);
            let version = version.or(of_name.map(|entry| entry.version.as_str())).unwrap_or_default();
            (name.to_owned(), version.to_owned())
        };
        let entry = |entry: &Entry| {
            let dependencies = entry.dependencies.iter().map(full).collect();
            ((entry.name.clone(), entry.version.clone()), dependencies)
        };
        Self { dependencies: file.package.iter().map(entry).collect() }
    }

    /// Transitive dependencies of a package, without the package itself.
    fn closure(&self, name: &str, version: &str) -> BTreeSet<(&String, &String)> {
        let mut closure = BTreeSet::new();
        let mut waiting = vec![(name.to_owned(), version.to_owned())];
        while let Some(package) = waiting.pop() {
            for dependency in self.dependencies.get(&package).into_iter().flatten() {
                if closure.insert((&dependency.0, &dependency.1)) {
                    waiting.push(dependency.clone());
                }
            }
        }
        closure
    }
}

/// Crates whose sources no system may know: the listed crates, in any version, and crates of the same repository or
/// name prefix. Names come from both lists, so that what is calibrated on one has not seen the other.
struct Families {
    names: Vec<&'static str>,
    repositories: HashSet<String>,
}

impl Families {
    fn of(crates: &[(&'static str, &'static str)], sources: &Sources) -> Self {
        let both = [CrateList::Report, CrateList::Develop].into_iter().flat_map(CrateList::crates);
        let listed = sources.packages.iter().filter(|package| crates.iter().any(|(name, _)| *name == package.name));
        Self { names: both.map(|(name, _)| name).collect(), repositories: listed.filter_map(repository).collect() }
    }

    fn have(&self, package: &Package) -> bool {
        let is_of = |name: &&str| {
            package.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
        };
        self.names.iter().any(is_of) || repository(package).is_some_and(|url| self.repositories.contains(&url))
    }
}

/// The package's repository from its manifest, without subfolders.
fn repository(package: &Package) -> Option<String> {
    let manifest: toml::Table = std::fs::read_to_string(package.folder.join("Cargo.toml")).ok()?.parse().ok()?;
    let url = manifest.get("package")?.get("repository")?.as_str()?;
    let (_, path) = url.split_once("://")?;
    let parts: Vec<&str> = path.trim_end_matches('/').trim_end_matches(".git").split('/').take(3).collect();
    Some(parts.join("/").to_lowercase())
}

/// Holes are cut from everything in `src`; the crate's other files are known, as they are to its author.
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
            // An ignore file would hide parts of the package from the copy that is checked.
            std::fs::copy(entry.path(), &target).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The manifest and the lock file of the list `ranking`.
    const RANKING: [&str; 2] =
        [include_str!("../../suites/ranking/Cargo.toml"), include_str!("../../suites/ranking/Cargo.lock")];

    #[derive(Deserialize)]
    struct HeldOut {
        develop: Vec<String>,
        ranking: Vec<String>,
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
    fn what_the_choice_is_learned_from_is_in_no_suite() {
        let HeldOut { develop, mut ranking, report } =
            toml::from_str(include_str!("../../suites/heldout.toml")).expect("a list of lists");
        assert!(ranking.iter().all(|name| !develop.contains(name) && !report.contains(name)));
        ranking.sort();
        assert_eq!(pinned(RANKING[0]).into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ranking);
        for (name, version) in pinned(RANKING[0]) {
            assert!(RANKING[1].contains(&format!("name = \"{name}\"\nversion = \"{version}")), "{name} {version}");
        }
    }

    #[test]
    fn lock_files_name_no_registry_but_the_public_one() {
        for lock in [CrateList::Report.lock(), CrateList::Develop.lock(), RANKING[1]] {
            for line in lock.lines().filter(|line| line.starts_with("source")) {
                assert_eq!(line, "source = \"registry+https://github.com/rust-lang/crates.io-index\"");
            }
        }
    }

    #[test]
    fn a_closure_is_what_the_lock_file_says() {
        let lock = Lock::parse(
            "version = 4\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\ndependencies = [\"b 2.0.0\", \"c\"]\n\
             [[package]]\nname = \"b\"\nversion = \"1.0.0\"\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n\
             dependencies = [\"c\"]\n[[package]]\nname = \"c\"\nversion = \"3.0.0\"\ndependencies = [\"b 2.0.0\"]\n",
        );
        let names = |name, version| {
            let closure = lock.closure(name, version);
            closure.into_iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>()
        };
        assert_eq!(names("a", "1.0.0"), ["b 2.0.0", "c 3.0.0"]);
        assert_eq!(names("b", "1.0.0"), Vec::<String>::new());
        for list in [CrateList::Report, CrateList::Develop] {
            let lock = Lock::parse(list.lock());
            for (package, dependencies) in &lock.dependencies {
                for dependency in dependencies {
                    assert!(lock.dependencies.contains_key(dependency), "{dependency:?} of {package:?}");
                }
            }
        }
    }

    #[test]
    fn the_family_of_a_listed_crate_is_known_to_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let package = |name: &str, url: &str| {
            let package = Package {
                name: name.into(),
                version: "1.0.0".into(),
                edition: "2024".into(),
                licence: None,
                folder: folder.path().join(name),
                role: Role::Dependency,
            };
            let manifest = format!("[package]\nname = \"{name}\"\nrepository = \"{url}\"\n");
            write(&package.folder.join("Cargo.toml"), &manifest).expect("a file");
            package
        };
        let listed = package("wasmi", "https://github.com/wasmi-labs/wasmi.git");
        let sources = Sources { root: folder.path().to_path_buf(), packages: vec![listed] };
        let families = Families::of(&CrateList::Report.crates(), &sources);
        for (name, url, is_secret) in [
            ("wasmi", "", true),
            ("wasmi_core", "", true),
            ("petgraph", "", true), // of the other list
            ("string-interner", "https://github.com/wasmi-labs/WASMI/tree/main/x", true),
            ("wasmic", "https://github.com/wasmi-labs/wasmic", false),
            ("libm", "https://github.com/rust-lang/libm", false),
        ] {
            assert_eq!(families.have(&package(name, url)), is_secret, "{name}");
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
