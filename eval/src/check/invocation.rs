//! The compiler's command lines, read once from the output of `cargo check -vv`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::sandbox::Invocation;

/// One crate and how cargo compiles it.
#[derive(Clone, Debug)]
pub(crate) struct CrateUnit {
    /// The command that compiles it to metadata.
    pub(crate) invocation: Invocation,
    /// The source files that the compiler read.
    pub(crate) files: BTreeSet<PathBuf>,
    /// Suffix of the names of its artefacts, e.g. `-0123456789abcdef`.
    pub(crate) extra: String,
}

impl CrateUnit {
    /// Whether it is compiled from files in the folder.
    pub(crate) fn is_within(&self, folder: &Path) -> bool {
        self.files.iter().any(|file| file.starts_with(folder))
    }

    /// The value of a variable that cargo sets for the compiler.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.invocation.env.iter().find(|(of, _)| of == name).and_then(|(_, value)| value.to_str())
    }
}

/// The crates whose compilation `stderr` reports, in that order. A command that cannot be read is left out, and its
/// files are then checked through cargo.
pub(crate) fn units(stderr: &str, folder: &Path) -> Vec<CrateUnit> {
    let mut units = Vec::new();
    let mut rest = stderr;
    while let Some(at) = rest.find("Running `") {
        let starts_line = rest[..at].rsplit('\n').next().is_some_and(|before| before.trim().is_empty());
        rest = &rest[at + "Running `".len()..];
        if starts_line && let Some((words, after)) = words(rest) {
            rest = after;
            units.extend(unit(words, folder));
        }
    }
    units
}

fn unit(words: Vec<String>, folder: &Path) -> Option<CrateUnit> {
    let is_variable = |word: &str| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
    };
    let n_variables = words.iter().take_while(|word| is_variable(word)).count();
    let (variables, command) = words.split_at(n_variables);
    let (program, args) = command.split_first()?;
    let value = |flag: &str| args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1));
    let crate_name = value("--crate-name")?;
    let out_dir = value("--out-dir")?;
    args.iter().find(|arg| arg.starts_with("--emit="))?;
    let extra = args.iter().find_map(|arg| arg.strip_prefix("extra-filename=")).unwrap_or_default();
    let dep_info = std::fs::read_to_string(Path::new(out_dir).join(format!("{crate_name}{extra}.d"))).ok()?;
    let env = variables.iter().filter_map(|word| word.split_once('='));
    Some(CrateUnit {
        files: sources(&dep_info, folder),
        extra: extra.to_owned(),
        invocation: Invocation {
            program: program.into(),
            args: metadata_only(args),
            env: env.map(|(name, value)| (name.into(), value.into())).collect(),
            folder: folder.to_path_buf(),
        },
    })
}

/// The same compilation without code, dependency list and incremental state; `--out-dir` is left to the caller.
fn metadata_only(args: &[String]) -> Vec<OsString> {
    let mut kept: Vec<OsString> = Vec::new();
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        let next_is_incremental = args.peek().is_some_and(|next| next.starts_with("incremental="));
        match arg.as_str() {
            "--out-dir" => drop(args.next()),
            "-C" if next_is_incremental => drop(args.next()),
            arg if arg.starts_with("--emit=") => kept.push("--emit=metadata".into()),
            arg => kept.push(arg.into()),
        }
    }
    kept
}

/// The prerequisites in a make-style dependency file, as absolute paths.
fn sources(dep_info: &str, folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for line in dep_info.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, names)) = line.split_once(": ") else { continue };
        let mut name = String::new();
        let mut letters = names.chars();
        loop {
            match letters.next() {
                Some('\\') => name.extend(letters.next()), // a space within a name
                Some(' ') | None if !name.is_empty() => drop(files.insert(folder.join(std::mem::take(&mut name)))),
                Some(' ') => {}
                Some(letter) => name.push(letter),
                None => break,
            }
        }
    }
    files
}

/// The words of a command in shell quoting up to the closing backtick, and what follows it.
fn words(text: &str) -> Option<(Vec<String>, &str)> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            _ if quoted => word.get_or_insert_default().push(letter),
            '\\' => word.get_or_insert_default().push(letters.next()?.1),
            '`' => {
                words.extend(word.take());
                return Some((words, &text[at + 1..]));
            }
            _ if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_in_shell_quoting() {
        let text = "A='it'\\''s a\ntwo line'\\!' `x`' B= rustc --cfg 'feature=\"y\"' '' z` tail";
        let (words, rest) = words(text).expect("it is closed");
        assert_eq!(words, ["A=it's a\ntwo line! `x`", "B=", "rustc", "--cfg", "feature=\"y\"", "", "z"]);
        assert_eq!(rest, " tail");
        assert!(super::words("rustc 'open").is_none());
        assert!(super::words("rustc open\\").is_none());
    }

    #[test]
    fn what_only_cargo_needs_is_dropped() {
        let args = [
            "--crate-name",
            "a",
            "--emit=dep-info,metadata",
            "-C",
            "debuginfo=2",
            "-C",
            "incremental=/x",
            "--out-dir",
            "/y",
            "-L",
            "/z",
        ];
        assert_eq!(
            metadata_only(&args.map(str::to_owned)),
            ["--crate-name", "a", "--emit=metadata", "-C", "debuginfo=2", "-L", "/z"]
        );
    }

    #[test]
    fn dependency_files_name_their_sources() {
        let files = sources("/t/a.d: src/lib.rs src/a\\ b.rs\n\nsrc/lib.rs:\n# env-dep:X=y: z\n", Path::new("/w"));
        assert_eq!(files, [PathBuf::from("/w/src/a b.rs"), PathBuf::from("/w/src/lib.rs")].into());
    }
}
