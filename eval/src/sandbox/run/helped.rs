//! A command that the helper starts, and the helper's status messages.

use std::io::{self, PipeReader, PipeWriter};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Invocation, OUTPUT_GRACE, Unstarted, has_ended, kill_group};
use crate::sandbox::output::Stream;
use crate::sandbox::policy::{Access, MARK, Policy, Status};
use crate::sandbox::{Sandbox, SandboxError, helper_program, live};

/// The helper with its policy, or the command itself if no layer is on.
pub(super) struct Confined {
    pub(super) command: Command,
    status: Option<PipeReader>,
}

impl Confined {
    pub(super) fn new(
        sandbox: &Sandbox,
        access: Access,
        invocation: &Invocation,
        timeout: Duration,
    ) -> Result<Self, SandboxError> {
        let layers = &sandbox.layers().on;
        let Some(helper) = helper_program::find().filter(|_| !layers.is_empty()) else {
            let mut command = Command::new(&invocation.program);
            command.args(&invocation.args).stdin(Stdio::null());
            return Ok(Self { command, status: None });
        };
        let policy = Policy::new(access, layers, timeout, &sandbox.paths_of(&invocation.folder));
        let open = |error: io::Error| SandboxError::Open { reason: error.to_string() };
        let (mut command, reader) = start_of(&helper, &policy).map_err(open)?;
        command.arg(&invocation.program).args(&invocation.args);
        Ok(Self { command, status: Some(reader) })
    }

    /// Call it once the child runs: only the child then holds the writing end of the pipe.
    pub(super) fn started(self) -> Started {
        drop(self.command);
        Started(self.status.map(|reader| Stream::of(Some(reader))))
    }
}

pub(super) struct Started(Option<Stream>);

impl Started {
    /// Whether the command was started at all. One that was killed may not have been.
    pub(super) fn check(&self, give_up: Instant, is_killed: bool) -> Result<(), Unstarted> {
        let Some(stream) = &self.0 else { return Ok(()) };
        let mut is_confined = is_killed;
        for status in statuses(&stream.take(give_up)) {
            match status {
                Status::Confined { .. } => is_confined = true,
                Status::NotStarted { errno } => {
                    return Err(Unstarted::Command(io::Error::from_raw_os_error(errno)));
                }
                Status::Refused { layer, reason } => {
                    let layer = layer.map(|layer| format!("{layer}: ")).unwrap_or_default();
                    return Err(Unstarted::Helper(format!("{layer}{reason}")));
                }
            }
        }
        if is_confined { Ok(()) } else { Err(Unstarted::Helper("the helper was killed".to_owned())) }
    }
}

/// Runs the helper without a command and returns its status messages.
pub(in crate::sandbox) fn ask(helper: &Path, policy: &Policy, timeout: Duration) -> io::Result<Vec<Status>> {
    let (mut command, reader) = start_of(helper, policy)?;
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child =
        live::start(command.current_dir(&policy.root_at).env_clear().stdout(Stdio::null()).stderr(Stdio::null()))?;
    drop(command);
    let stream = Stream::of(Some(reader));
    let start = Instant::now();
    while !has_ended(&mut child) && start.elapsed() < timeout {
        std::thread::sleep(Duration::from_millis(1));
    }
    kill_group(&mut child);
    live::forget(&child);
    child.wait()?;
    Ok(statuses(&stream.take(Instant::now() + OUTPUT_GRACE)).collect())
}

fn start_of(helper: &Path, policy: &Policy) -> io::Result<(Command, PipeReader)> {
    let (reader, writer): (PipeReader, PipeWriter) = io::pipe()?;
    let mut command = Command::new(helper);
    command.arg(MARK).arg(serde_json::to_string(policy)?).stdin(writer);
    Ok((command, reader))
}

fn statuses(lines: &[u8]) -> impl Iterator<Item = Status> {
    lines.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}
