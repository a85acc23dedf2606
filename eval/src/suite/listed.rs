//! A suite that the user defines: a TOML file that lists workspaces and files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use nanochat_engine::Sources;
use serde::Deserialize;

use super::Knowledge;
use super::{Group, Suite, SuiteError, touched_last};

/// Most files that one workspace of a suite holds out by its history.
const MAX_BY_HISTORY: usize = 1000;

/// The parsed TOML file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The suite's name in reports.
    pub name: String,
    /// The workspaces to evaluate on, at least one.
    pub workspace: Vec<Workspace>,
}

/// One cargo workspace and the files to hold out of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// Root folder, relative to the folder of the TOML file.
    pub path: PathBuf,
    /// The files that holes are cut from, relative to the workspace's root.
    #[serde(default)]
    pub files: Vec<PathBuf>,
    /// How many more files to hold out: those that changed last according to git.
    #[serde(default)]
    pub touched_last: usize,
}

/// Why a file is no suite.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The TOML file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not a valid suite.
    #[error("{path} is no suite: {reason}; docs/guide/suites.md shows the format")]
    Form {
        /// The TOML file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl List {
    /// Reads and checks the file. Paths of workspaces come back absolute or relative to the current folder.
    pub fn load(path: &Path) -> Result<Self, ListError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ListError::Read { path: path.to_path_buf(), source })?;
        let form = |reason: String| ListError::Form { path: path.to_path_buf(), reason };
        let mut list: Self = toml::from_str(&text).map_err(|error| form(error.message().to_owned()))?;
        if list.workspace.is_empty() {
            return Err(form("it lists no workspace".to_owned()));
        }
        for workspace in &mut list.workspace {
            if workspace.files.is_empty() && workspace.touched_last == 0 {
                return Err(form(format!("{} names neither files nor touched_last", workspace.path.display())));
            }
            if workspace.touched_last > MAX_BY_HISTORY {
                return Err(form(format!("touched_last is beyond {MAX_BY_HISTORY}")));
            }
            workspace.path = path.parent().unwrap_or(Path::new("")).join(&workspace.path);
        }
        Ok(list)
    }
}

impl Suite {
    /// The suite of a list; `sources` holds those of each of its workspaces, in order. `max_holes` is per workspace.
    pub fn listed(list: &List, sources: &[Sources], max_holes: usize) -> Result<Self, SuiteError> {
        let mut groups = Vec::new();
        for (workspace, sources) in list.workspace.iter().zip(sources) {
            let mut files = workspace.files.clone();
            if workspace.touched_last > 0 {
                files.extend(touched_last(&sources.root, workspace.touched_last)?);
            }
            groups.push(Group::workspace(sources, &files, max_holes)?);
        }
        make_names_unique(&mut groups);
        Ok(Self { name: list.name.clone(), groups, knowledge: Knowledge::Both })
    }
}

/// Adds the workspace's number, from 1, to the names of projects that several workspaces share: records identify a
/// project by its name, and a path would differ from machine to machine.
fn make_names_unique(groups: &mut [Group]) {
    let mut n_of: HashMap<String, usize> = HashMap::new();
    for project in groups.iter().flat_map(|group| &group.projects) {
        *n_of.entry(project.name.clone()).or_default() += 1;
    }
    for (at, group) in groups.iter_mut().enumerate() {
        for project in group.projects.iter_mut().filter(|project| n_of[&project.name] > 1) {
            project.name = format!("{} (workspace {})", project.name, at + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use nanochat_engine::workspace::sources::{Package, Role};

    use super::*;

    fn load(text: &str) -> Result<List, ListError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, text).expect("a file");
        let list = List::load(&path)?;
        assert!(list.workspace.iter().all(|workspace| workspace.path.starts_with(folder.path())));
        Ok(list)
    }

    #[test]
    fn a_list_names_workspaces_and_files() {
        let list = load(
            "name = \"mine\"\n[[workspace]]\npath = \"a\"\nfiles = [\"src/lib.rs\"]\n[[workspace]]\npath = \"b\"\ntouched_last = 3\n",
        );
        let list = list.expect("a suite");
        assert_eq!((list.name.as_str(), list.workspace.len(), list.workspace[1].touched_last), ("mine", 2, 3));
    }

    #[test]
    fn members_with_the_same_name_get_the_number_of_their_workspace() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = |at: &str, name: &str| {
            let root = folder.path().join(at);
            std::fs::create_dir_all(root.join("src")).expect("a folder");
            std::fs::write(root.join("src/lib.rs"), at).expect("a file");
            let package = Package {
                name: name.into(),
                version: "0.1.0".into(),
                edition: "2024".into(),
                licence: None,
                folder: root.clone(),
                role: Role::Member,
            };
            let listed = Workspace { path: root.clone(), files: vec!["src/lib.rs".into()], touched_last: 0 };
            (listed, Sources { root, packages: vec![package] })
        };
        let (workspace, sources): (Vec<Workspace>, Vec<Sources>) =
            [workspace("a", "core"), workspace("b", "tools"), workspace("c", "core")].into_iter().unzip();
        let suite = Suite::listed(&List { name: "mine".into(), workspace }, &sources, 4).expect("a suite");
        let names: Vec<&str> = suite.projects().map(|(_, project)| project.name.as_str()).collect();
        assert_eq!(names, ["core (workspace 1)", "tools", "core (workspace 3)"]);
    }

    #[test]
    fn what_is_no_suite_is_refused_in_words() {
        for (text, why) in [
            ("name = \"x\"\nworkspace = []", "no workspace"),
            ("name = \"x\"\n[[workspace]]\npath = \"a\"", "neither"),
            ("name = \"x\"\nseed = 1\nworkspace = []", "seed"),
            ("workspace = []", "name"),
            ("name = [", "no suite"),
        ] {
            let error = load(text).expect_err(text).to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(matches!(List::load(Path::new("/nonexistent/x.toml")), Err(ListError::Read { .. })));
    }
}
