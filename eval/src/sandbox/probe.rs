//! Which layers this machine offers, found by applying them to a helper with nothing to run.

#[cfg(target_os = "linux")]
use std::time::Duration;

use super::layers::{Layer, Level, Mode};
use super::policy::SandboxPaths;
#[cfg(target_os = "linux")]
use super::{
    helper_program,
    policy::{Access, Policy, Status},
    run,
};

/// Time limit; on an idle machine a probe takes milliseconds.
#[cfg(target_os = "linux")]
const LONGEST_PROBE: Duration = Duration::from_secs(20);

/// Applies all layers to a helper that has nothing to run.
#[cfg(target_os = "linux")]
pub(super) fn level(mode: Mode, paths: &SandboxPaths) -> Level {
    let without =
        |reason: &str| Level { on: Vec::new(), missing: Layer::ALL.map(|layer| (layer, reason.to_owned())).into() };
    if mode == Mode::Off {
        return without("not asked for");
    }
    let Some(helper) = helper_program::find() else { return without("there is no helper program") };
    let policy = Policy { is_probe: true, ..Policy::new(Access::Cargo, &Layer::ALL, LONGEST_PROBE, paths) };
    let statuses = match run::ask(&helper, &policy, LONGEST_PROBE) {
        Ok(statuses) => statuses,
        Err(error) => return without(&error.to_string()),
    };
    let mut level = Level::default();
    for status in statuses {
        match status {
            Status::Confined { on, missing } => {
                level.on.extend(on);
                level.missing.extend(missing);
            }
            Status::Refused { reason, .. } => return without(&reason),
            Status::NotStarted { .. } => {}
        }
    }
    if level.on.is_empty() && level.missing.len() < Layer::ALL.len() {
        return without("the helper ended before it was done");
    }
    level
}

/// Whether we are root for the kernel. Root of a user namespace may be any user outside of it.
#[cfg(target_os = "linux")]
pub(super) fn is_root() -> bool {
    // `inside outside count`, one line for each range.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_else(|_| "0 0 1".to_owned());
    let is_outside = |line: &str| line.split_whitespace().take(2).eq(["0", "0"]);
    rustix::process::geteuid().is_root() && map.lines().any(is_outside)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_root() -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
pub(super) fn level(_mode: Mode, _places: &SandboxPaths) -> Level {
    let reason = |layer| (layer, format!("{} has none", std::env::consts::OS));
    Level { on: Vec::new(), missing: Layer::ALL.map(reason).into() }
}
