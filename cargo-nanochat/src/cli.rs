//! The command line as a whole: the common options, the command, and the help that says so.

use std::ffi::OsString;

use clap::{Args, CommandFactory, FromArgMatches, Parser};

use crate::command::Command;
use crate::context::WorkspaceArgs;
use crate::exit::Exit;
use crate::output::OutputArgs;

/// Private Rust completions, trained on your own workspace, on your own machine.
///
/// `train` adapts a small ternary model to the workspace, `lsp` answers an editor's keystrokes with it,
/// `eval` measures what it gained. Nothing leaves the machine.
#[derive(Debug, Parser)]
#[command(
    name = "cargo-nanochat",
    bin_name = "cargo nanochat",
    display_name = "cargo-nanochat",
    version,
    styles = clap_cargo::style::CLAP_STYLING,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Global {
    #[command(flatten)]
    pub(crate) workspace: WorkspaceArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Reads the command line. `cargo nanochat x` arrives as `cargo-nanochat nanochat x`; the bare form works too.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|arg| arg == "nanochat") {
        args.remove(1);
    }
    let mut command = Cli::command().after_long_help(after_help());
    let matches = command.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn after_help() -> String {
    let mut text = String::from(
        "\
Examples:
  cargo nanochat try                        see it work, in about two minutes
  cargo nanochat train                      adapt it to this workspace
  cargo nanochat complete src/lib.rs:12:9   one completion, to stdout

Data goes to stdout; progress and messages to stderr.

Files:
  Keys, trust and each workspace's checkpoint are stored in the data folder, ~/.local/share/nanochat on Linux, or in
  $NANOCHAT_HOME. Measurements of this machine and indexes of dependencies are stored in ~/.cache/nanochat, or in
  $NANOCHAT_HOME too. Workspaces themselves are only read.

Configuration (the first that sets a value wins):
  command line > NANOCHAT_RECIPE, NANOCHAT_SEED, NANOCHAT_THREADS > [package.metadata.nanochat] >
  [workspace.metadata.nanochat] > config.toml in ~/.config/nanochat or $NANOCHAT_HOME
  `train` reads recipe and seed; `train`, `try`, `eval`, `complete` and `tune` read threads. `lsp` takes its
  settings from the editor.

Exit codes:
",
    );
    for exit in Exit::ALL {
        text.push_str(&format!("  {:<3} {}\n", exit as u8, exit.meaning()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Colour;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn both_argv_forms_parse_to_the_same() {
        let through_cargo = parsed("cargo-nanochat nanochat verify --quiet x.ncz").expect("cargo's form");
        let bare = parsed("cargo-nanochat verify --quiet x.ncz").expect("the bare form");
        assert_eq!(format!("{through_cargo:?}"), format!("{bare:?}"));
    }

    #[test]
    fn common_options_may_come_before_or_after_the_command() {
        for line in ["cargo-nanochat --offline --color never train", "cargo-nanochat train --offline --color never"] {
            let cli = parsed(line).expect(line);
            assert!(cli.global.workspace.offline && cli.global.output.color == Colour::Never, "{line}");
        }
    }
}
