//! The Rust part of HumanEval-X: functions to write from a description, and tests that check them. The user supplies
//! the data file; none of it is in this repository.

use std::fmt::Write as _;
use std::path::Path;

use nanochat_engine::Sources;
use nanochat_engine::workspace::sources::{Package, Role};
use serde::Deserialize;

use super::Knowledge;
use super::{Folder, Group, Project, Suite, SuiteError, write};
use crate::holes;

const NAME: &str = "humaneval-x";
/// Crates that every problem imports, and the text by which a problem that needs one is recognized.
const FOREIGN: [(&str, &str); 3] = [("rand", "rand::"), ("regex", "Regex"), ("md5", "md5::")];
/// The package that depends on these crates.
const MANIFEST: &str = include_str!("../../suites/humaneval-x/Cargo.toml");
const LOCK: &str = include_str!("../../suites/humaneval-x/Cargo.lock");

/// A line of the data file.
#[derive(Debug, Deserialize)]
struct Problem {
    task_id: String,
    /// A comment that describes the function.
    prompt: String,
    /// Imports, helpers and the function up to its opening brace.
    declaration: String,
    canonical_solution: String,
    test: String,
}

impl Suite {
    /// Writes the package that depends on the crates which some of the problems or their tests need, for cargo to fetch
    /// from and to be loaded as [`Sources`].
    pub fn write_humaneval(folder: &Path) -> Result<(), SuiteError> {
        write(&folder.join("Cargo.toml"), MANIFEST)?;
        write(&folder.join("Cargo.lock"), LOCK)?;
        write(&folder.join("src/lib.rs"), "")
    }

    /// The problems in the file, JSON by line, as functions of one crate; one hole each, the function's body. Problems that
    /// need a crate which `sources`, those of the package that [`Suite::write_humaneval`] wrote, do not have are left out.
    pub fn humaneval(path: &Path, sources: &Sources) -> Result<Self, SuiteError> {
        let n_locked = LOCK.lines().filter(|line| line.starts_with("source = ")).count();
        let has_crates = sources.packages.iter().filter(|package| package.role == Role::Dependency).count() == n_locked;
        let is_there = |name: &str| has_crates && MANIFEST.contains(&format!("\n{name} = "));
        let text =
            std::fs::read_to_string(path).map_err(|source| SuiteError::Io { path: path.to_path_buf(), source })?;
        let form = |why: String| SuiteError::Form { path: path.to_path_buf(), why };
        let folder = Folder::new()?;
        let mut project = Project { name: NAME.to_owned(), tests: true, max_holes: usize::MAX, ..Project::default() };
        let mut lib = String::from("#![allow(warnings)]\n");
        let mut cut = Vec::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let problem: Problem =
                serde_json::from_str(line).map_err(|error| form(format!("line {}: {error}", at + 1)))?;
            // The tests of Rust/32 are in a comment, so nothing passes them.
            if problem.test.trim_start().starts_with("/*") {
                continue;
            }
            let own = problem.declaration.lines().filter(|line| !FOREIGN.iter().any(|(name, _)| imports(line, name)));
            let own: Vec<&str> = own.chain(problem.canonical_solution.lines()).chain(problem.test.lines()).collect();
            let is_needed = |word: &str| own.iter().any(|line| line.contains(word));
            let needed: Vec<&str> = FOREIGN.iter().filter(|(_, word)| is_needed(word)).map(|(name, _)| *name).collect();
            if !needed.iter().all(|name| is_there(name)) {
                continue;
            }
            let kept = |line: &&str| !FOREIGN.iter().any(|(name, _)| imports(line, name) && !needed.contains(name));
            let declaration: Vec<&str> = problem.declaration.lines().filter(kept).collect();
            let head = format!("{}\n{}", problem.prompt.trim_end(), declaration.join("\n"));
            let file = format!("{head}{}\n#[cfg(test)]\nmod tests;\n", problem.canonical_solution);
            let module = format!("p{at:03}");
            let name = format!("src/{module}.rs");
            let start = head.trim_end().len();
            let hole = holes::body_at(NAME, &name, &file, start)
                .ok_or_else(|| form(format!("{} has no function that is filled", problem.task_id)))?;
            let _ = writeln!(lib, "mod {module};");
            write(&folder.path().join(&name), &file)?;
            write(&folder.path().join(format!("src/{module}/tests.rs")), &format!("use super::*;\n{}", problem.test))?;
            project.texts.insert(name, file);
            cut.push(hole);
        }
        if cut.is_empty() {
            return Err(form("it holds no problem".to_owned()));
        }
        project.cut = Some(cut);
        let is_dependency = |line: &&str| has_crates || !line.contains(" = \"=");
        let manifest: Vec<&str> = MANIFEST.lines().filter(is_dependency).collect();
        write(&folder.path().join("Cargo.toml"), &manifest.join("\n"))?;
        if has_crates {
            write(&folder.path().join("Cargo.lock"), LOCK)?;
        }
        write(&folder.path().join("src/lib.rs"), &lib)?;
        let package = Package {
            name: NAME.to_owned(),
            version: "0.0.0".to_owned(),
            edition: "2021".to_owned(),
            licence: None,
            folder: folder.path().to_path_buf(),
            role: Role::Member,
        };
        let sources = Sources { root: folder.path().to_path_buf(), packages: vec![package] };
        let group = Group { sources, keep_going: false, projects: vec![project], _folder: Some(folder) };
        Ok(Self { name: NAME.to_owned(), groups: vec![group], knowledge: Knowledge::Nothing })
    }
}

/// Whether the line imports from this crate alone; a list of several crates does not count.
fn imports(line: &str, name: &str) -> bool {
    line.trim()
        .strip_prefix("use ")
        .is_some_and(|path| path.strip_prefix(name).is_some_and(|rest| rest.starts_with("::") || rest.starts_with(';')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_become_functions_without_their_tests() {
        let line = |id: &str, solution: &str| {
            let problem = serde_json::json!({
                "task_id": id,
                "prompt": "\n/*\n Doubles. } \n*/\n",
                "declaration": "\nuse std::cmp::max;\nuse rand::Rng;\nuse md5;\n\nfn double(n: i32) -> i32 {\n",
                "canonical_solution": solution,
                "test": "#[cfg(test)]\nmod tests {\n    use super::*;\n    #[test]\n    fn t() { assert_eq!(double(2), 4) }\n}",
                "example_test": "None",
            });
            problem.to_string()
        };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("problems.jsonl");
        let lines =
            [line("Rust/0", "\n    let two = 2;\n    n * two\n}\n"), line("Rust/1", "    md5::compute(n)\n}\n")];
        std::fs::write(&path, lines.join("\n")).expect("a file");
        let suite = Suite::humaneval(&path, &Sources::default()).expect("one problem");
        let project = &suite.groups[0].projects[0];
        let text = &project.texts["src/p000.rs"];
        assert!(text.contains("use std::cmp::max;") && !text.contains("rand") && !text.contains("assert"));
        let holes = project.cut.as_ref().expect("it is cut");
        assert_eq!((holes.len(), holes[0].truth(text)), (1, "let two = 2;\n    n * two"));
        let locked = LOCK.lines().filter(|line| line.starts_with("source = ")).map(|_| Package {
            name: "any".into(),
            version: "1.0.0".into(),
            edition: "2021".into(),
            licence: None,
            folder: folder.path().to_path_buf(),
            role: Role::Dependency,
        });
        let sources = Sources { root: folder.path().to_path_buf(), packages: locked.collect() };
        let project = &Suite::humaneval(&path, &sources).expect("both").groups[0].projects[0];
        assert_eq!(project.texts.len(), 2, "the crates are there");
        assert!(project.texts["src/p001.rs"].contains("use md5;") && !project.texts["src/p001.rs"].contains("rand"));
        std::fs::write(&path, "{}").expect("a file");
        assert!(matches!(Suite::humaneval(&path, &Sources::default()), Err(SuiteError::Form { .. })));
        std::fs::write(&path, "").expect("a file");
        assert!(matches!(Suite::humaneval(&path, &Sources::default()), Err(SuiteError::Form { .. })));
    }
}
