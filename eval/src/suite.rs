//! What is evaluated on: projects with the files that holes are cut from, and how they are built.

mod known;
mod crates;
mod humaneval;
mod listed;
mod history;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Component, Path, PathBuf};

use nanochat_engine::Sources;
use nanochat_engine::workspace::sources::{Package, Role, SourceFile, unix_lines};

use crate::holes::Hole;
use crate::sandbox::RemovedAtExit;
use known::slashed;

pub use crates::CrateList;
pub use history::touched_last;
pub(crate) use known::Library;
pub use known::{Knowledge, Known, known_files, memory_of};
pub use listed::{List, ListError, Workspace};

/// A named set of projects.
#[derive(Debug)]
pub struct Suite {
    /// The name by which reports and the command line know it, for example `crates`.
    pub name: String,
    /// Projects that are built together.
    pub groups: Vec<Group>,
    /// What systems may know in addition to the current file.
    pub knowledge: Knowledge,
}

/// Projects of one cargo workspace.
#[derive(Debug)]
pub struct Group {
    /// What is copied and built.
    pub sources: Sources,
    /// Leave out projects that do not build; otherwise they are an error.
    pub keep_going: bool,
    /// The projects that holes are cut from, sorted by name.
    pub projects: Vec<Project>,
    _folder: Option<Folder>, // removed with the suite
}

/// A temporary folder that is removed when dropped, and also when the process is told to stop.
#[derive(Debug)]
struct Folder {
    folder: tempfile::TempDir,
    _removed_at_exit: RemovedAtExit,
}

impl Folder {
    fn new() -> Result<Self, SuiteError> {
        let folder = tempfile::Builder::new().prefix("nanochat-suite-").tempdir();
        let folder = folder.map_err(|source| SuiteError::Io { path: std::env::temp_dir(), source })?;
        Ok(Self { _removed_at_exit: RemovedAtExit::new(folder.path()), folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// One crate, or one member of a workspace.
#[derive(Clone, Debug, Default)]
pub struct Project {
    /// The package's name; intervals are clustered by it.
    pub name: String,
    /// The package's version, or empty.
    pub version: String,
    /// The files that holes are cut from: path relative to the group's root → text.
    pub texts: BTreeMap<String, String>,
    /// The project's files that systems may know in addition to the current one, sorted by name.
    pub known: Vec<SourceFile>,
    /// Its dependencies, whose sources systems may know too.
    pub dependencies: Vec<Package>,
    /// Upper limit of holes that are used, that is, pass the filters.
    pub max_holes: usize,
    /// The holes, where the suite chooses them itself; otherwise they are cut from `texts`.
    pub cut: Option<Vec<Hole>>,
    /// Whether each file has tests that are run, in a module of its own.
    pub tests: bool,
}

/// Why there is no suite.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuiteError {
    /// A held-out path that is not inside the workspace.
    #[error("held-out file {path} is not inside the workspace; name it relative to the workspace's root")]
    Outside {
        /// The path as the user gave it.
        path: PathBuf,
    },
    /// Sources are not on this machine.
    #[error(
        "the sources of {missing} of the suite's crates are not on this machine, {first} for one; \
         let cargo download them with `--fetch`"
    )]
    NotFetched {
        /// How many crates of the suite are missing.
        missing: usize,
        /// The first of them by name.
        first: String,
    },
    /// A data file does not have the format that its suite needs.
    #[error("{path} is not the suite's data: {why}")]
    Form {
        /// The data file.
        path: PathBuf,
        /// What does not fit, with the line.
        why: String,
    },
    /// No crate of that name is in the suite.
    #[error("{name} is no crate of this suite")]
    Unknown {
        /// The name as the user gave it.
        name: String,
    },
    /// A file or folder of the suite cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// git cannot list which files changed last.
    #[error("cannot ask git which files were touched last in {root}: {why}; hold out by file instead")]
    History {
        /// Root of the workspace.
        root: PathBuf,
        /// git's own message.
        why: String,
    },
}

impl Suite {
    /// The held-out files of a workspace, a project per member. `held_out` names files relative to its root (or
    /// absolutely); `known` is everything else, see [`known_files`].
    pub fn workspace(sources: &Sources, held_out: &[PathBuf], max_holes: usize) -> Result<Self, SuiteError> {
        let group = Group::workspace(sources, held_out, max_holes)?;
        Ok(Self { name: "workspace".to_owned(), groups: vec![group], knowledge: Knowledge::Both })
    }

    /// All projects in the suite's order, each with its group.
    pub fn projects(&self) -> impl Iterator<Item = (&Group, &Project)> {
        self.groups.iter().flat_map(|group| group.projects.iter().map(move |project| (group, project)))
    }

    /// Hides from systems what they are not allowed to know.
    pub fn limit(&mut self, knowledge: Knowledge) {
        self.knowledge = knowledge;
        for project in self.groups.iter_mut().flat_map(|group| &mut group.projects) {
            if matches!(knowledge, Knowledge::Dependencies | Knowledge::Nothing) {
                project.known.clear();
            }
            if matches!(knowledge, Knowledge::Files | Knowledge::Nothing) {
                project.dependencies.clear();
            }
        }
    }

    /// Whether a project, by its index, belongs to the shard.
    pub(crate) fn has(&self, project_idx: usize, shard: Option<Shard>) -> bool {
        shard.is_none_or(|shard| project_idx % shard.count == shard.index)
    }
}

impl Group {
    pub(crate) fn workspace(sources: &Sources, held_out: &[PathBuf], max_holes: usize) -> Result<Self, SuiteError> {
        let names = names(&sources.root, held_out)?;
        let paths: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
        let (_, known) = known_files(sources.collect(&[Role::Member]).0, &paths);
        let members: Vec<&Package> = sources.members().collect();
        let mut by_member: BTreeMap<(String, String), BTreeMap<String, String>> = BTreeMap::new();
        for name in names {
            let path = sources.root.join(&name);
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let holder = members.iter().filter(|member| path.starts_with(sources.root.join(&member.folder)));
            let Some(member) = holder.max_by_key(|member| member.folder.components().count()) else { continue };
            let project = by_member.entry((member.name.clone(), member.version.clone())).or_default();
            project.insert(name, unix_lines(text));
        }
        // An older release of a member, which tests and tools depend on, would contain the truth.
        let is_release = |package: &&Package| members.iter().any(|member| member.name == package.name);
        let dependencies = sources.packages.iter().filter(|package| package.role == Role::Dependency);
        let dependencies: Vec<Package> = dependencies.filter(|package| !is_release(package)).cloned().collect();
        let n_projects = by_member.len().max(1);
        let projects = by_member.into_iter().enumerate().map(|(at, ((name, version), texts))| Project {
            name,
            version,
            texts,
            known: known.clone(),
            dependencies: dependencies.clone(),
            max_holes: max_holes / n_projects + usize::from(at < max_holes % n_projects),
            ..Project::default()
        });
        Ok(Self { sources: sources.clone(), keep_going: false, projects: projects.collect(), _folder: None })
    }

    /// The files that holes are cut from.
    pub(crate) fn files(&self) -> Vec<String> {
        let files: BTreeSet<&String> = self.projects.iter().flat_map(|project| project.texts.keys()).collect();
        files.into_iter().cloned().collect()
    }
}

/// Part of a run: the projects whose index is `index` modulo `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Which shard, from 0.
    pub index: usize,
    /// Number of shards, at least 1.
    pub count: usize,
}

impl std::str::FromStr for Shard {
    type Err = String;

    /// `1/4` is the first of four.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Self { index: index - 1, count }),
            _ => Err(format!("`{text}` is no shard; write 1/4 for the first of four")),
        }
    }
}

/// The held-out files' names, sorted, each once.
fn names(root: &Path, held_out: &[PathBuf]) -> Result<Vec<String>, SuiteError> {
    let mut names = BTreeSet::new();
    for path in held_out {
        let inside = path.strip_prefix(root).unwrap_or(path);
        if !inside.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(SuiteError::Outside { path: path.clone() });
        }
        names.insert(slashed(inside));
    }
    Ok(names.into_iter().collect())
}

/// Drops files whose text another file has too: such a twin would contain the truth.
fn without_twins(files: Vec<SourceFile>) -> Vec<SourceFile> {
    let mut seen = HashSet::new();
    let twins: HashSet<String> =
        files.iter().filter(|file| !seen.insert(file.text.as_str())).map(|file| file.text.clone()).collect();
    files.into_iter().filter(|file| !twins.contains(&file.text)).collect()
}

fn write(path: &Path, text: &str) -> Result<(), SuiteError> {
    let failed = |source| SuiteError::Io { path: path.to_path_buf(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_counted_from_one() {
        assert_eq!("1/4".parse(), Ok(Shard { index: 0, count: 4 }));
        assert_eq!("4/4".parse(), Ok(Shard { index: 3, count: 4 }));
        for text in ["0/4", "5/4", "1/0", "x", "1", "-1/2", "1/2/3"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }

    #[test]
    fn files_that_are_copies_of_each_other_are_not_known() {
        let file = |name: &str, text: &str| SourceFile { name: name.into(), path: name.into(), text: text.into() };
        let known = without_twins(vec![file("a", "1"), file("b", "2"), file("c", "1"), file("d", "3")]);
        assert_eq!(known.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["b", "d"]);
    }
}
