//! Which files of a workspace changed last, from git: those that its author is working on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::SuiteError;

/// How many commits git looks at.
const MAX_COMMITS: &str = "1000";

/// Up to `n` `.rs` files, relative to `root`, those of the latest commits first; only files that exist.
pub fn touched_last(root: &Path, n: usize) -> Result<Vec<PathBuf>, SuiteError> {
    let failed = |why: String| SuiteError::History { root: root.to_path_buf(), why };
    let output = Command::new("git")
        .current_dir(root)
        .args(["-c", "core.quotePath=false", "log", "--no-show-signature", "--format=", "--name-only", "--relative"])
        .args(["--max-count", MAX_COMMITS, "--diff-filter=AM", "--", "*.rs"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(failed(stderr.lines().next().unwrap_or("it gave no reason").to_owned()));
    }
    let names = String::from_utf8_lossy(&output.stdout);
    let mut seen = HashSet::new();
    let files = names.lines().filter(|name| !name.is_empty() && seen.insert(*name) && root.join(name).is_file());
    Ok(files.take(n).map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_latest_commits_come_first() {
        let root = tempfile::tempdir().expect("a folder");
        let git = |args: &[&str]| {
            let status = Command::new("git").current_dir(root.path()).args(args).output().expect("git runs").status;
            assert!(status.success(), "{args:?}");
        };
        git(&["init", "-q"]);
        for (at, name) in ["a.rs", "größe.rs", "notes.md", "gone.rs", "a.rs"].into_iter().enumerate() {
            std::fs::write(root.path().join(name), at.to_string()).expect("a file");
            git(&["add", "."]);
            git(&["-c", "user.name=n", "-c", "user.email=e@x.y", "commit", "-q", "-m", name]);
        }
        std::fs::remove_file(root.path().join("gone.rs")).expect("it was there");
        let files = |n| touched_last(root.path(), n).expect("a repository");
        assert_eq!(files(9), [PathBuf::from("a.rs"), PathBuf::from("größe.rs")]);
        assert_eq!(files(1), [PathBuf::from("a.rs")]);
        let none = tempfile::tempdir().expect("a folder");
        assert!(matches!(touched_last(&none.path().join("x"), 1), Err(SuiteError::History { .. })));
    }
}
