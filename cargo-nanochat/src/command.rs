//! One file per command: what it reads, what it calls, what it prints.

mod bench;
mod complete;
pub(crate) mod eval;
mod key;
mod lsp;
mod pack;
mod train;
mod try_;
mod tune;
mod verify;

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::context::Context;
use crate::output::Output;

/// Runs the command that was asked for.
pub(crate) fn run(cli: Cli, output: &Output) -> anyhow::Result<ExitCode> {
    let context = Context::new(cli.global, *output)?;
    match cli.command {
        Command::Complete(args) => complete::run(&context, &args),
        Command::Try(args) => try_::run(&context, &args),
        Command::Train(args) => train::run(&context, &args),
        Command::Eval(args) => eval::run(&context, &args),
        Command::Pack(args) => pack::run(&context, &args),
        Command::Verify(args) => verify::run(&context, &args),
        Command::Key(args) => key::run(&context, &args),
        Command::Bench(args) => return Ok(ExitCode::from(bench::run(&context, &args)? as u8)),
        Command::Tune(args) => tune::run(&context, &args),
        // The protocol has exit codes of its own.
        Command::Lsp(args) => return Ok(lsp::run(context, &args)),
    }?;
    Ok(ExitCode::SUCCESS)
}
