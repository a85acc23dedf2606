//! The only place that runs generated code: a copy of the workspace in a temporary folder, and commands in it.
//!
//! Every command gets a cleared environment (`PATH`, `HOME`, `CARGO_HOME`, `RUSTUP_HOME` and `RUSTUP_TOOLCHAIN`
//! stay, for without them there is no toolchain), its own process group, a wall clock and, on Linux, limits on
//! memory and file size. It has no file system or network isolation: [`Sandbox::level`] says so in each report.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nanochat_engine::{Cancel, Cancelled};

/// Beyond this a copy is refused: a workspace's sources are small, what is larger is data.
const MAX_COPY_BYTES: u64 = 512 << 20;
/// Kept of each output stream; what exceeds it is read and dropped, so that the writer does not block.
const MAX_OUTPUT_BYTES: usize = 32 << 20;
/// What outlives the clearing of the environment.
const KEPT_VARIABLES: [&str; 5] = ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];
/// How long output is waited for after the group was killed; a survivor in another session may hold the pipe.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);
/// Address space of one process: rustc maps less than 2 GiB on large crates, a memory bomb has no end.
#[cfg(target_os = "linux")]
const MAX_ADDRESS_SPACE: u64 = 16 << 30;
/// Largest file that one process may write.
#[cfg(target_os = "linux")]
const MAX_FILE_BYTES: u64 = 2 << 30;

/// A temporary folder with copies of a workspace. Removed when dropped.
#[derive(Debug)]
pub struct Sandbox {
    base: PathBuf,
    n_trees: usize,
    _folder: tempfile::TempDir, // dropped last: it removes `base`
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Added to the cleared environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where it runs.
    pub folder: PathBuf,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// It exited by itself with status 0.
    pub success: bool,
    /// The wall clock ended it.
    pub timed_out: bool,
    /// What it wrote, up to a limit.
    pub stdout: Vec<u8>,
    /// The same.
    pub stderr: Vec<u8>,
}

/// Why there is no sandbox, or nothing ran in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// A file could not be copied or written.
    #[error("cannot copy {path} for checking: {source}")]
    Copy {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The workspace holds more than sources.
    #[error(
        "{root} holds more than {limit} MiB besides what its .gitignore names; add large data to .gitignore or .ignore"
    )]
    TooLarge {
        /// The workspace.
        root: PathBuf,
        /// Mebibytes.
        limit: u64,
    },
    /// The program is not there.
    #[error("cannot run `{program}`: {source}; is the Rust toolchain on PATH?")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The caller cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Sandbox {
    /// Copies the workspace at `root` once per worker. What ignore files name, `.git`, folders with a
    /// `CACHEDIR.TAG` and `target` folders beside a `Cargo.toml` stay behind, `Cargo.lock` always comes along;
    /// links are replaced by what they point to if that is a file of the workspace, and left out otherwise.
    pub fn copy(root: &Path, n_trees: usize) -> Result<Self, SandboxError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| SandboxError::Copy { path, source }
        };
        let root = root.canonicalize().map_err(failed(root))?;
        let folder = tempfile::Builder::new()
            .prefix("nanochat-eval-")
            .tempdir()
            .map_err(|source| SandboxError::Copy { path: std::env::temp_dir(), source })?;
        // Paths that the compiler reports are compared with ours: no link may stand between them.
        let base = folder.path().canonicalize().map_err(failed(folder.path()))?;
        let sandbox = Self { base, n_trees: n_trees.max(1), _folder: folder };
        for tree_idx in 0..sandbox.n_trees {
            copy_tree(&root, &sandbox.tree(tree_idx))?;
            for scratch in [sandbox.scratch(tree_idx), sandbox.temp()] {
                std::fs::create_dir_all(&scratch).map_err(failed(&scratch))?;
            }
        }
        Ok(sandbox)
    }

    /// How many copies there are.
    pub fn n_trees(&self) -> usize {
        self.n_trees
    }

    /// The root of one copy.
    pub fn tree(&self, tree_idx: usize) -> PathBuf {
        self.base.join(format!("tree-{tree_idx}"))
    }

    /// Where the compiler may write for one copy.
    pub fn scratch(&self, tree_idx: usize) -> PathBuf {
        self.base.join(format!("scratch-{tree_idx}"))
    }

    /// cargo's target folder, shared by the copies.
    pub fn target(&self) -> PathBuf {
        self.base.join("target")
    }

    fn temp(&self) -> PathBuf {
        self.base.join("tmp")
    }

    /// What this sandbox holds off, in words.
    pub fn level(&self) -> &'static str {
        if cfg!(target_os = "linux") {
            "copy of the tree, cleared environment, process group, wall clock, memory and file size limits; \
             no file system or network isolation"
        } else if cfg!(unix) {
            "copy of the tree, cleared environment, process group, wall clock; no file system or network isolation"
        } else {
            "copy of the tree, cleared environment, wall clock; no file system or network isolation"
        }
    }

    /// Runs one command to its end, or kills its process group at `timeout` or when cancelled. Nothing that stays
    /// in the group outlives this call.
    pub fn run(&self, invocation: &Invocation, timeout: Duration, cancel: &Cancel) -> Result<Finished, SandboxError> {
        cancel.check()?;
        let mut command = Command::new(&invocation.program);
        command
            .args(&invocation.args)
            .current_dir(&invocation.folder)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in KEPT_VARIABLES {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("TMPDIR", self.temp()).envs(invocation.env.iter().map(|(name, value)| (name, value)));
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = start(&mut command).map_err(|source| SandboxError::Spawn {
            program: invocation.program.to_string_lossy().into_owned(),
            source,
        })?;
        limit(&child);
        let stdout = Stream::of(child.stdout.take());
        let stderr = Stream::of(child.stderr.take());

        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_millis(1);
        let (mut timed_out, mut cancelled) = (false, false);
        while !has_ended(&mut child) {
            timed_out = Instant::now() >= deadline;
            cancelled = cancel.is_cancelled();
            if timed_out || cancelled {
                break;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
        // The leader is not reaped yet, so its group id cannot have passed to somebody else.
        kill_group(&mut child);
        live().remove(&child.id());
        let status = child.wait();
        if cancelled {
            return Err(Cancelled.into());
        }
        let success = !timed_out && status.is_ok_and(|status| status.success());
        let give_up = Instant::now() + OUTPUT_GRACE;
        Ok(Finished { success, timed_out, stdout: stdout.take(give_up), stderr: stderr.take(give_up) })
    }
}

/// Leaders of the process groups that run now. An id is taken out before its process is reaped, so none of them can
/// be somebody else's.
static LIVE: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn live() -> MutexGuard<'static, BTreeSet<u32>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts and registers a command in one: [`kill_all`] sees it either not yet started or registered.
fn start(command: &mut Command) -> io::Result<Child> {
    let mut live = live();
    let child = command.spawn()?;
    live.insert(child.id());
    Ok(child)
}

/// Kills the process groups of all commands that run in any sandbox: for a process that ends without waiting for its
/// threads. Cancel first, or the next command starts. Does nothing where there are no process groups.
pub fn kill_all() {
    #[cfg(unix)]
    for id in live().iter() {
        use rustix::process::{Pid, Signal, kill_process_group};
        if let Some(pid) = i32::try_from(*id).ok().and_then(Pid::from_raw) {
            // The only failure is that the group is empty already.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn copy_tree(root: &Path, to: &Path) -> Result<(), SandboxError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| SandboxError::Copy { path, source }
    };
    std::fs::create_dir_all(to).map_err(failed(to))?;
    let mut n_bytes = 0u64;
    let mut copy = |from: &Path, relative: &Path| -> Result<(), SandboxError> {
        let metadata = std::fs::metadata(from).map_err(failed(from))?;
        if !metadata.is_file() {
            return Ok(()); // sockets and pipes are not sources
        }
        n_bytes = n_bytes.saturating_add(metadata.len());
        if n_bytes > MAX_COPY_BYTES {
            return Err(SandboxError::TooLarge { root: root.to_path_buf(), limit: MAX_COPY_BYTES >> 20 });
        }
        let to = to.join(relative);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        std::fs::copy(from, &to).map(drop).map_err(failed(from))
    };
    let walk = ignore::WalkBuilder::new(root)
        .hidden(false)
        .require_git(false)
        .git_global(false) // as `Sources::collect`: what one user ignores everywhere is no part of the workspace
        .follow_links(false)
        .filter_entry(|entry| {
            let path = entry.path();
            let built = path.join("CACHEDIR.TAG").exists()
                || entry.file_name() == "target" && path.with_file_name("Cargo.toml").exists();
            entry.depth() == 0 || !(entry.file_name() == ".git" || built)
        })
        .build();
    for entry in walk {
        let entry = entry.map_err(|error| SandboxError::Copy {
            path: root.to_path_buf(),
            source: error.into_io_error().unwrap_or_else(|| io::Error::other("cannot be walked")),
        })?;
        let Ok(relative) = entry.path().strip_prefix(root) else { continue };
        match entry.file_type() {
            Some(kind) if kind.is_file() => copy(entry.path(), relative)?,
            Some(kind) if kind.is_symlink() => match entry.path().canonicalize() {
                Ok(real) if real.starts_with(root) && real.is_file() => copy(&real, relative)?,
                _ => tracing::debug!("a link that leaves the workspace is not copied"),
            },
            _ => {}
        }
    }
    let lock = root.join("Cargo.lock");
    if lock.is_file() && !to.join("Cargo.lock").exists() {
        copy(&lock, Path::new("Cargo.lock"))?; // libraries often ignore it, yet it says what is built here
    }
    Ok(())
}

/// What one pipe gave so far, and whether it has ended.
struct Stream(Arc<Mutex<(Vec<u8>, bool)>>);

impl Stream {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let shared = Arc::new(Mutex::new((Vec::new(), pipe.is_none())));
        if let Some(mut pipe) = pipe {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                let mut buffer = vec![0; 64 << 10];
                loop {
                    let n = pipe.read(&mut buffer);
                    let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    match n {
                        Ok(n) if n > 0 => {
                            let room = MAX_OUTPUT_BYTES.saturating_sub(state.0.len());
                            state.0.extend_from_slice(&buffer[..n.min(room)]);
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        _ => {
                            state.1 = true;
                            return;
                        }
                    }
                }
            });
        }
        Self(shared)
    }

    /// Everything up to the end of the stream, or what is there at `give_up`.
    fn take(&self, give_up: Instant) -> Vec<u8> {
        loop {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.1 || Instant::now() >= give_up {
                return std::mem::take(&mut state.0);
            }
            drop(state);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(unix)]
fn has_ended(child: &mut Child) -> bool {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::Pid(Pid::from_child(child)), options) {
        Ok(status) => status.is_some(),
        Err(error) => error != rustix::io::Errno::INTR, // no such child: there is nothing to wait for
    }
}

#[cfg(not(unix))]
fn has_ended(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

#[cfg(unix)]
fn kill_group(child: &mut Child) {
    use rustix::process::{Pid, Signal, kill_process_group};
    // The only failure is that the group is empty already.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}

#[cfg(not(unix))]
fn kill_group(child: &mut Child) {
    let _ = child.kill();
}

/// Limits that children inherit. Set right after the start: what is forked within those microseconds escapes them.
#[cfg(target_os = "linux")]
fn limit(child: &Child) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = Pid::from_child(child);
    for (resource, bytes) in [(Resource::As, MAX_ADDRESS_SPACE), (Resource::Fsize, MAX_FILE_BYTES), (Resource::Core, 0)]
    {
        if let Err(error) = prlimit(Some(pid), resource, Rlimit { current: Some(bytes), maximum: Some(bytes) }) {
            tracing::debug!(%error, "a resource limit was not set");
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn limit(_child: &Child) {}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(sandbox: &Sandbox, script: &str) -> Invocation {
        Invocation {
            program: "sh".into(),
            args: vec!["-c".into(), script.into()],
            env: Vec::new(),
            folder: sandbox.tree(0),
        }
    }

    fn workspace() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in [
            ("Cargo.toml", "[package]"),
            ("Cargo.lock", "# lock"),
            ("src/lib.rs", ""),
            (".gitignore", "Cargo.lock\nsecret\n"),
            ("secret", "s"),
            ("target/debug/x", "built"),
            (".git/config", "g"),
        ] {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        root
    }

    #[test]
    fn only_sources_and_the_lock_are_copied() {
        let root = workspace();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("out.rs")).expect("a link");
        std::os::unix::fs::symlink("src/lib.rs", root.path().join("in.rs")).expect("a link");
        let sandbox = Sandbox::copy(root.path(), 2).expect("a copy");
        for tree in [sandbox.tree(0), sandbox.tree(1)] {
            for (name, copied) in [
                ("Cargo.toml", true),
                ("Cargo.lock", true),
                ("src/lib.rs", true),
                ("in.rs", true),
                ("out.rs", false),
                ("secret", false),
                ("target", false),
                (".git", false),
            ] {
                assert_eq!(tree.join(name).symlink_metadata().is_ok(), copied, "{name}");
            }
            assert!(!tree.join("in.rs").symlink_metadata().expect("copied").is_symlink());
        }
    }

    #[test]
    fn the_folder_goes_with_the_sandbox() {
        let root = workspace();
        let sandbox = Sandbox::copy(root.path(), 1).expect("a copy");
        let tree = sandbox.tree(0);
        assert!(tree.exists());
        drop(sandbox);
        assert!(!tree.exists());
    }

    #[test]
    fn output_and_status_come_back_and_the_environment_is_cleared() {
        let root = workspace();
        let sandbox = Sandbox::copy(root.path(), 1).expect("a copy");
        let run = |script| sandbox.run(&shell(&sandbox, script), Duration::from_secs(20), &Cancel::new());
        let finished = run("echo out; echo err >&2; exit 3").expect("it runs");
        assert_eq!((finished.stdout.as_slice(), finished.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert!(!finished.success && !finished.timed_out);
        let finished = run("env | cut -d= -f1").expect("it runs");
        let text = String::from_utf8(finished.stdout).expect("names");
        for name in text.lines() {
            let known = KEPT_VARIABLES.contains(&name) || ["TMPDIR", "PWD", "SHLVL", "_", "OLDPWD"].contains(&name);
            assert!(known, "{name} was kept");
        }
    }

    #[test]
    fn the_clock_ends_the_whole_group() {
        let root = workspace();
        let sandbox = Sandbox::copy(root.path(), 1).expect("a copy");
        let start = Instant::now();
        let invocation = shell(&sandbox, "sleep 300 & echo $!; sleep 300");
        let finished = sandbox.run(&invocation, Duration::from_millis(400), &Cancel::new()).expect("it runs");
        assert!(finished.timed_out && !finished.success);
        assert!(start.elapsed() < Duration::from_secs(20));
        assert_gone(&finished.stdout);
    }

    #[test]
    fn what_a_finished_command_left_behind_is_killed() {
        let root = workspace();
        let sandbox = Sandbox::copy(root.path(), 1).expect("a copy");
        let invocation = shell(&sandbox, "sleep 300 & echo $!");
        let finished = sandbox.run(&invocation, Duration::from_secs(20), &Cancel::new()).expect("it runs");
        assert!(finished.success);
        assert_gone(&finished.stdout);
    }

    #[test]
    fn a_cancelled_command_is_killed() {
        let root = workspace();
        let sandbox = Sandbox::copy(root.path(), 1).expect("a copy");
        let cancel = Cancel::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(200));
                cancel.cancel();
            });
            let start = Instant::now();
            let result = sandbox.run(&shell(&sandbox, "sleep 300"), Duration::from_secs(300), &cancel);
            assert!(matches!(result, Err(SandboxError::Cancelled(_))));
            assert!(start.elapsed() < Duration::from_secs(20));
        });
    }

    /// The process whose id was printed does not run any more; one nobody reaped yet (a zombie) is dead as well.
    fn assert_gone(stdout: &[u8]) {
        use rustix::process::{Pid, test_kill_process};
        let text = String::from_utf8_lossy(stdout);
        let pid: i32 = text.trim().parse().expect("the shell printed a process id");
        let pid = Pid::from_raw(pid).expect("not 0");
        let give_up = Instant::now() + Duration::from_secs(5);
        loop {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
            if test_kill_process(pid).is_err() || state.contains(") Z ") {
                return;
            }
            assert!(Instant::now() < give_up, "process {pid:?} is still there");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
