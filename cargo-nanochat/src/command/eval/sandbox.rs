//! How candidates are confined, and whether the workspace may be built at all.

use std::io::{BufRead, IsTerminal as _, Write as _};
use std::path::Path;

use clap::{Args, ValueEnum};
use nanochat_eval::sandbox::Mode;

use crate::context::Context;
use crate::exit::Untrusted;

/// Flags of the sandbox.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sandbox")]
pub(super) struct SandboxArgs {
    /// How candidates are confined; the report says what was reached
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Confinement::BestEffort)]
    sandbox: Confinement,
    /// Trust this workspace from now on without asking: checking it runs what it configures
    #[arg(long)]
    trust: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Confinement {
    /// Every layer, or exit code 6 before anything runs
    Require,
    /// The layers that this machine offers
    BestEffort,
    /// A copy, a cleared environment, a process group and a clock
    Off,
}

impl SandboxArgs {
    pub(super) fn mode(&self) -> Mode {
        match self.sandbox {
            Confinement::Require => Mode::Require,
            Confinement::BestEffort => Mode::BestEffort,
            Confinement::Off => Mode::Off,
        }
    }

    /// Succeeds only if the user trusts the workspace that contains `folder`. On a terminal the user is asked about a
    /// new one. Nothing of the workspace has been run before this.
    pub(super) fn consent(&self, context: &Context, folder: &Path) -> anyhow::Result<()> {
        let root = context.unrun_root(folder)?;
        if context.store.trusts_workspace(&root)? {
            return Ok(());
        }
        let is_interactive = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if !self.trust {
            if !is_interactive {
                return Err(Untrusted { root, was_asked: false }.into());
            }
            if !ask(&root, &mut std::io::stdin().lock())? {
                return Err(Untrusted { root, was_asked: true }.into());
            }
        }
        Ok(context.store.trust_workspace(&root)?)
    }
}

fn ask(root: &Path, answers: &mut impl BufRead) -> std::io::Result<bool> {
    let mut stderr = std::io::stderr();
    write!(
        stderr,
        "{} has not been checked before. Checking builds it with cargo, which runs what it configures: build\n\
         scripts, procedural macros, the programs that .cargo/config.toml names. Do you trust it? [y/N] ",
        root.display()
    )?;
    stderr.flush()?;
    is_yes(answers)
}

/// Anything but `y` or `yes` is a no, the end of the input included.
fn is_yes(answers: &mut impl BufRead) -> std::io::Result<bool> {
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, expected) in
            [("y\n", true), ("YES\n", true), ("\n", false), ("", false), ("n\n", false), ("yep\n", false)]
        {
            assert_eq!(is_yes(&mut answer.as_bytes()).expect("it can be read"), expected, "{answer:?}");
        }
    }
}
