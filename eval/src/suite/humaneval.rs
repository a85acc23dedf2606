//! HumanEval-X, its Rust part: functions to be written from their description, and tests that say whether they do what
//! it asks for. The data file is the user's; nothing of it is kept here.

use std::fmt::Write as _;
use std::path::Path;

use nanochat_engine::Sources;
use nanochat_engine::sources::{Package, Role};
use serde::Deserialize;

use super::{Group, Project, Suite, SuiteError, write};
use crate::holes;

const NAME: &str = "humaneval-x";
/// Imported by every problem and on no machine: a problem that needs one of them is left out.
const FOREIGN: [&str; 3] = ["rand", "regex", "md5"];
/// What such a problem says.
const FOREIGN_WORDS: [&str; 4] = ["Rng", "rand::", "Regex", "md5::"];

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
    /// The problems in the file, JSON by line, as functions of one crate; one hole each, the function's body.
    pub fn humaneval(path: &Path) -> Result<Self, SuiteError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| SuiteError::Io { path: path.to_path_buf(), source })?;
        let form = |why: String| SuiteError::Form { path: path.to_path_buf(), why };
        let folder = tempfile::Builder::new().prefix("nanochat-suite-").tempdir();
        let folder = folder.map_err(|source| SuiteError::Io { path: std::env::temp_dir(), source })?;
        let mut project = Project { name: NAME.to_owned(), tests: true, max_holes: usize::MAX, ..Project::default() };
        let mut lib = String::from("#![allow(warnings)]\n");
        let mut cut = Vec::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let problem: Problem =
                serde_json::from_str(line).map_err(|error| form(format!("line {}: {error}", at + 1)))?;
            let kept = |line: &&str| !FOREIGN.iter().any(|name| imports(line, name));
            let declaration: Vec<&str> = problem.declaration.lines().filter(kept).collect();
            let head = format!("{}\n{}", problem.prompt.trim_end(), declaration.join("\n"));
            let file = format!("{head}{}\n#[cfg(test)]\nmod tests;\n", problem.canonical_solution);
            if FOREIGN_WORDS.iter().any(|word| file.contains(word)) {
                continue;
            }
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
        let manifest = format!("[package]\nname = \"{NAME}\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n");
        write(&folder.path().join("Cargo.toml"), &manifest)?;
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
        Ok(Self { name: NAME.to_owned(), groups: vec![group] })
    }
}

/// The crate's own line, not a list that names others too.
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
        let suite = Suite::humaneval(&path).expect("one problem");
        let project = &suite.groups[0].projects[0];
        let text = &project.texts["src/p000.rs"];
        assert!(text.contains("use std::cmp::max;") && !text.contains("rand") && !text.contains("assert"));
        let holes = project.cut.as_ref().expect("it is cut");
        assert_eq!((holes.len(), holes[0].truth(text)), (1, "let two = 2;\n    n * two"));
        std::fs::write(&path, "{}").expect("a file");
        assert!(matches!(Suite::humaneval(&path), Err(SuiteError::Form { .. })));
        std::fs::write(&path, "").expect("a file");
        assert!(matches!(Suite::humaneval(&path), Err(SuiteError::Form { .. })));
    }
}
