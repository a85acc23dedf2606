//! Runs one command from its start to its end: by itself, by the clock, by a limit or by cancellation.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nanochat_engine::{Cancel, Cancelled};

#[cfg(target_os = "linux")]
mod helped;
#[cfg(not(target_os = "linux"))]
mod plain;

#[cfg(target_os = "linux")]
use helped::Confined;
#[cfg(target_os = "linux")]
pub(super) use helped::ask;
#[cfg(not(target_os = "linux"))]
use plain::Confined;

use super::output::Stream;
use super::policy::{Access, MAX_FILE_BYTES};
use super::{Sandbox, SandboxError, live};

/// Variables that are kept when the environment is cleared.
pub(super) const KEPT_VARIABLES: [&str; 5] = ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];
/// How long output is waited for after the group was killed; a survivor in another session may hold the pipe.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);
/// How often disk use is checked. One process writes a gibibyte in about this time.
const DISK_PERIOD: Duration = Duration::from_millis(250);
/// Limit for all files in a command's scratch and temporary folders together.
const MAX_DISK_BYTES: u64 = MAX_FILE_BYTES;

/// A command to run in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Path of the program, or a name to look up in `PATH`.
    pub program: OsString,
    /// Arguments without the program's name.
    pub args: Vec<OsString>,
    /// Variables to add to the cleared environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working folder; it must be in a copy or a scratch folder.
    pub folder: PathBuf,
}

/// How a command ended, and its output.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command exited by itself with status 0.
    pub success: bool,
    /// The command was killed at the timeout.
    pub timed_out: bool,
    /// Standard output, up to a limit.
    pub stdout: Vec<u8>,
    /// Standard error, up to a limit.
    pub stderr: Vec<u8>,
}

/// See [`Sandbox::run_as`].
pub(super) fn run(
    sandbox: &Sandbox,
    access: Access,
    invocation: &Invocation,
    timeout: Duration,
    cancel: &Cancel,
) -> Result<Finished, SandboxError> {
    cancel.check()?;
    let paths = sandbox.paths_of(&invocation.folder);
    let mut confined = Confined::new(sandbox, access, invocation, timeout)?;
    let command = &mut confined.command;
    command.current_dir(&invocation.folder).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in KEPT_VARIABLES {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("TMPDIR", &paths.temp).envs(invocation.env.iter().map(|(name, value)| (name, value)));
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let not_started =
        |source| SandboxError::Spawn { program: invocation.program.to_string_lossy().into_owned(), source };
    let mut child = live::start(command).map_err(not_started)?;
    let stdout = Stream::of(child.stdout.take());
    let stderr = Stream::of(child.stderr.take());
    let status = confined.started();

    let start = Instant::now();
    let mut next_disk = DISK_PERIOD;
    let mut pause = Duration::from_millis(1);
    let (mut timed_out, mut cancelled, mut is_stopped) = (false, false, false);
    while !has_ended(&mut child) {
        timed_out = start.elapsed() >= timeout;
        cancelled = cancel.is_cancelled();
        if access != Access::Build && start.elapsed() >= next_disk {
            is_stopped = disk_use(&paths.scratch).saturating_add(disk_use(&paths.temp)) > MAX_DISK_BYTES;
            next_disk = start.elapsed() + DISK_PERIOD;
        }
        if timed_out || cancelled || is_stopped {
            kill_tree(&child);
            break;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    // The leader is not reaped yet, so its group id cannot have been reused.
    kill_group(&mut child);
    live::forget(&child);
    let exit = child.wait();
    if cancelled {
        return Err(Cancelled.into());
    }
    let give_up = Instant::now() + OUTPUT_GRACE;
    let is_killed = timed_out || is_stopped;
    status.check(give_up, is_killed).map_err(|unstarted| match unstarted {
        Unstarted::Command(source) => not_started(source),
        Unstarted::Helper(reason) => SandboxError::Open { reason },
    })?;
    let success = !is_killed && exit.is_ok_and(|exit| exit.success());
    Ok(Finished { success, timed_out, stdout: stdout.take(give_up), stderr: stderr.take(give_up) })
}

/// Why the command has no exit code.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only a helper can be in the way"))]
enum Unstarted {
    Command(io::Error),
    Helper(String),
}

/// Bytes of all files below, as far as they can be read. Unlinked files that are still open do not count; a
/// candidate's own programs write to memory only.
fn disk_use(folder: &Path) -> u64 {
    let mut bytes = 0u64;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let of_entry = if metadata.is_dir() { disk_use(&entry.path()) } else { on_disk(&metadata) };
        bytes = bytes.saturating_add(of_entry);
    }
    bytes
}

#[cfg(unix)]
fn on_disk(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata).saturating_mul(512)
}

#[cfg(not(unix))]
fn on_disk(metadata: &std::fs::Metadata) -> u64 {
    metadata.len()
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

/// Processes that left the group are found only while their ancestors live.
fn kill_tree(child: &Child) {
    #[cfg(unix)]
    live::kill_tree_of(child.id());
    let _ = child;
}

#[cfg(unix)]
fn kill_group(child: &mut Child) {
    live::kill_group_of(child.id());
}

#[cfg(not(unix))]
fn kill_group(child: &mut Child) {
    let _ = child.kill();
}
