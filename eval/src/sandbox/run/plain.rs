//! A command without a helper, for systems that have none.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Invocation, Unstarted};
use crate::sandbox::policy::Access;
use crate::sandbox::{Sandbox, SandboxError};

/// The unconfined command.
pub(super) struct Confined {
    pub(super) command: Command,
}

impl Confined {
    pub(super) fn new(
        _sandbox: &Sandbox,
        _access: Access,
        invocation: &Invocation,
        _timeout: Duration,
    ) -> Result<Self, SandboxError> {
        let mut command = Command::new(&invocation.program);
        command.args(&invocation.args).stdin(Stdio::null());
        Ok(Self { command })
    }

    pub(super) fn started(self) -> Started {
        Started
    }
}

pub(super) struct Started;

impl Started {
    pub(super) fn check(&self, _give_up: Instant, _is_killed: bool) -> Result<(), Unstarted> {
        Ok(())
    }
}
