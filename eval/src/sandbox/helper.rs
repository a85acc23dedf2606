//! The process between us and a candidate: it confines itself, starts the command, and passes its exit code on.
//!
//! ```text
//! outer: dies with its parent, no inherited descriptors → new namespaces → starts inner
//! inner (process 1): own root → unprivileged user → limits → no capabilities → Landlock → filter → command
//! ```
//!
//! When inner ends, the kernel kills whatever the command left running. Without namespaces, outer adopts orphans and
//! kills them itself.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal};

use super::layers::Layer;
use super::policy::{INNER_MARK, MARK, Policy, Status};
use super::survivors;

mod calls;
mod files;
mod identity;
mod root;

/// If this process was started as the helper, acts as one and does not return.
pub(super) fn become_helper_if_asked() {
    let mut args = std::env::args_os().skip(1);
    let is_inner = match args.next() {
        Some(mark) if mark == MARK => false,
        Some(mark) if mark == INNER_MARK => true,
        _ => return,
    };
    let policy = args.next().and_then(|text| serde_json::from_str::<Policy>(text.to_str()?).ok());
    let Some(policy) = policy else { std::process::exit(EXIT_REFUSED) };
    let command: Vec<OsString> = args.collect();
    let closed = if is_inner { Ok(()) } else { step("inherited descriptors", identity::close_inherited()) };
    let Ok(mut pipe) = status_pipe() else { std::process::exit(EXIT_REFUSED) };
    let role = if is_inner { inner } else { outer };
    let code = closed.map_err(|reason| Refusal(None, reason)).and_then(|()| role(&policy, &command, &mut pipe));
    let code = code.unwrap_or_else(|Refusal(layer, reason)| {
        // If nobody reads the pipe, nobody waits for the message either.
        let _ = write_status(&mut pipe, &Status::Refused { layer, reason });
        EXIT_REFUSED
    });
    std::process::exit(code);
}

/// Exit code of a helper that did not start the command; the status pipe has the reason.
const EXIT_REFUSED: i32 = 125;

/// Which layer was refused, if one was, and why.
struct Refusal(Option<Layer>, String);

/// Adds the name of the step to an error of the kernel.
fn step<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// Standard input is the status pipe; the command gets another. The copy is closed when the command starts.
fn status_pipe() -> Result<fs::File, String> {
    step("status pipe", std::io::stdin().as_fd().try_clone_to_owned()).map(fs::File::from)
}

/// Writes a status line. Fails if nobody reads the pipe any more.
fn write_status(pipe: &mut fs::File, status: &Status) -> Result<(), String> {
    let mut line = step("status", serde_json::to_vec(status))?;
    line.push(b'\n');
    step("status", pipe.write_all(&line))
}

fn outer(policy: &Policy, command: &[OsString], pipe: &mut fs::File) -> Result<i32, Refusal> {
    let plain = |reason| Refusal(None, reason);
    step("parent death signal", rustix::process::set_parent_process_death_signal(Some(Signal::KILL))).map_err(plain)?;
    let parent = rustix::process::getppid().map_or(0, Pid::as_raw_pid);
    if u32::try_from(parent) != Ok(policy.parent) {
        return Err(plain("the process that asked is gone".to_owned()));
    }
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    // If memory runs out, the kernel should kill the candidate and not the evaluation. Refused in some containers.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");

    let mut missing = Vec::new();
    if policy.layers.contains(&Layer::Namespaces)
        && let Err(reason) = identity::new_namespaces(policy.is_open)
    {
        if !policy.is_probe {
            return Err(Refusal(Some(Layer::Namespaces), reason));
        }
        missing.push((Layer::Namespaces, reason));
        missing.push((Layer::Root, "needs a mount namespace".to_owned()));
    }
    let mut inner = policy.clone();
    inner.layers.retain(|layer| !missing.iter().any(|(missing, _)| missing == layer));
    let has_namespaces = inner.layers.contains(&Layer::Namespaces);
    if !has_namespaces {
        step("orphans", rustix::process::set_child_subreaper(Pid::from_raw(1))).map_err(plain)?;
    }
    if policy.is_probe {
        write_status(pipe, &Status::Confined { on: Vec::new(), missing }).map_err(plain)?;
    }
    let orders = step("orders", serde_json::to_string(&inner)).map_err(plain)?;
    let child = Command::new("/proc/self/exe").arg(INNER_MARK).arg(orders).args(command).spawn();
    let mut child = step("inner helper", child).map_err(plain)?;
    let status = step("inner helper", child.wait()).map_err(plain)?;
    if !has_namespaces {
        survivors::kill_descendants(std::process::id());
    }
    Ok(exit_code(status))
}

fn inner(policy: &Policy, command: &[OsString], pipe: &mut fs::File) -> Result<i32, Refusal> {
    let plain = |reason| Refusal(None, reason);
    step("parent death signal", rustix::process::set_parent_process_death_signal(Some(Signal::KILL))).map_err(plain)?;
    let folder = step("current folder", std::env::current_dir()).map_err(plain)?;
    let mut on = Vec::new();
    let mut missing = Vec::new();
    for layer in Layer::ALL.into_iter().filter(|layer| policy.layers.contains(layer)) {
        let done = match layer {
            Layer::Namespaces => Ok(()), // by outer
            Layer::Root => root::change(policy),
            Layer::Processes => identity::bound_processes(policy),
            Layer::Limits => identity::limit(&policy.bounds),
            Layer::Files => identity::give_up_privileges().and_then(|()| files::restrict(policy)),
            Layer::Calls => calls::refuse(),
        };
        match done {
            Ok(()) => on.push(layer),
            Err(reason) if policy.is_probe => missing.push((layer, reason)),
            Err(reason) => return Err(Refusal(Some(layer), reason)),
        }
    }
    if !policy.is_open {
        identity::give_up_privileges().map_err(plain)?;
    }
    if !command.is_empty() {
        step("current folder", std::env::set_current_dir(&folder)).map_err(plain)?;
    }
    // If the parent died before we asked for its death signal, the pipe is closed, and the command is not started.
    write_status(pipe, &Status::Confined { on, missing }).map_err(plain)?;
    let Some((program, args)) = command.split_first() else { return Ok(0) };
    match Command::new(program).args(args).stdin(Stdio::null()).spawn() {
        Ok(mut child) => Ok(exit_code(step("command", child.wait()).map_err(plain)?)),
        Err(error) => {
            write_status(pipe, &Status::NotStarted { errno: error.raw_os_error().unwrap_or(0) }).map_err(plain)?;
            Ok(EXIT_REFUSED)
        }
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    // The convention of shells.
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
