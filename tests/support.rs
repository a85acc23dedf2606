//! How tests make files, run the binary and compare what it prints.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

/// A folder with a workspace in it, and a data folder of its own.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) home: PathBuf,
    _folder: TempDir,
}

/// What a run printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Workspace {
    /// Files in the mini-language: `//- /path` starts a file.
    pub(crate) fn new(files: &str) -> Self {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir().expect("a temporary folder");
        // Canonical, so that paths in messages compare equal where the temporary folder is a link.
        let base = folder.path().canonicalize().expect("the folder exists");
        let workspace = Self { root: base.join("workspace"), home: base.join("home"), _folder: folder };
        std::fs::create_dir(&workspace.root).expect("a folder for the workspace");
        for file in files.split("//- /").skip(1) {
            let (name, text) = file.split_once('\n').expect("a file name ends its line");
            workspace.write(name.trim(), text.as_bytes());
        }
        workspace
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        let path = self.root.join(name);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("its folder");
        std::fs::write(path, content).expect("the file");
    }

    /// The binary with this workspace as its current folder and this data folder, nothing on stdin.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-nanochat"));
        self.prepare(&mut command);
        command
    }

    /// Gives a command the workspace's environment.
    pub(crate) fn prepare(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("NANOCHAT_") || name.starts_with("CARGO_TERM") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(&self.root)
            .env("NANOCHAT_HOME", &self.home)
            .env("COLUMNS", "100") // help is wrapped to it
            .stdin(Stdio::null());
    }

    /// Runs `cargo-nanochat` with these words, separated by spaces.
    pub(crate) fn run(&self, words: &str) -> Ran {
        self.command().args(words.split_whitespace()).output().expect("the binary starts").into()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("people and tools read UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ran {
    /// Asserts exit code 0. Returns stdout.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Asserts exit code `code`, one line on stderr and nothing on stdout. Returns that line.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert!(lines.len() == 1 && lines[0].starts_with("error: "), "one line that says why: {self:?}");
        lines[0].to_owned()
    }
}

/// Words that no corpus holds, so that a completion that contains one has learned it here.
pub(crate) const WORDS: [&str; 6] =
    ["quombat_zarefield", "TremulosVigstone", "plaxify_orbnode", "OkwenDrisket", "morvath_teluric", "YsgradBoline"];

/// A workspace that is trained, signed and installed: once for all tests of this process.
pub(crate) fn trained() -> &'static Workspace {
    static TRAINED: OnceLock<Workspace> = OnceLock::new();
    TRAINED.get_or_init(|| {
        remove_stale();
        let workspace = Workspace::new(&sample());
        workspace.run("train --recipe test --offline").ok();
        workspace
    })
}

/// A crate of a few files that use [`WORDS`] in one way throughout.
pub(crate) fn sample() -> String {
    let [get, node, plax, ok, morvath, ysgrad] = WORDS;
    let mut files = String::from(MANIFEST);
    let modules: Vec<String> = (0..12).map(|i| format!("part{i}")).collect();
    files += "//- /src/lib.rs\n//! A sample.\n";
    for module in &modules {
        files += &format!("pub mod {module};\n");
    }
    for (i, module) in modules.iter().enumerate() {
        files += &format!(
            "//- /src/{module}.rs\n\
             //! Part {i}.\n\n\
             /// Holds values.\n\
             #[derive(Clone, Debug, Default)]\n\
             pub struct {node} {{\n    {morvath}: Vec<u32>,\n    limit: usize,\n}}\n\n\
             /// Reports on {node}.\n\
             #[derive(Clone, Debug)]\n\
             pub enum {ok} {{\n    Empty,\n    {ysgrad}(u32),\n}}\n\n\
             impl {node} {{\n    \
                 /// The value at `index`.\n    \
                 pub fn {get}(&self, index: usize) -> Option<u32> {{\n        \
                     self.{morvath}.get(index).copied()\n    \
                 }}\n\n    \
                 /// Adds a value.\n    \
                 pub fn {plax}(&mut self, value: u32) -> {ok} {{\n        \
                     if self.{morvath}.len() < self.limit + {i} {{\n            \
                         self.{morvath}.push(value);\n            \
                         return {ok}::{ysgrad}(value);\n        \
                     }}\n        \
                     {ok}::Empty\n    \
                 }}\n\
             }}\n"
        );
    }
    files
}

/// A package that cargo accepts.
pub(crate) const MANIFEST: &str = "//- /Cargo.toml
[package]
name = \"sample\"
version = \"0.1.0\"
edition = \"2024\"
license = \"MIT\"
";

const PREFIX: &str = "nanochat-product-";

/// The shared workspace lives in a static, which is never dropped: a later run removes its folder.
fn remove_stale() {
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        if is_ours && modified.is_ok_and(|at| at < an_hour_ago) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the repository").to_owned()
}
