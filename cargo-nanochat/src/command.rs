//! The commands, one file each: its arguments, what it reads, what it calls, what it prints.

mod complete;
mod try_;
mod train;
mod training;
mod eval;
mod pack;
mod verify;
mod key;
mod bench;
mod tune;
mod lsp;

use std::process::ExitCode;

use clap::Subcommand;

use crate::context::Context;

/// What can be asked, in the order of the help.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Complete(complete::CompleteArgs),
    Try(try_::TryArgs),
    Train(train::TrainArgs),
    Eval(Box<eval::EvalArgs>),
    Pack(pack::PackArgs),
    Verify(verify::VerifyArgs),
    Key(key::KeyArgs),
    Bench(bench::BenchArgs),
    Tune(tune::TuneArgs),
    Lsp(lsp::LspArgs),
}

impl Command {
    /// Runs it. `Ok` is the process's exit code: a server, and a program that was started to measure, have their own.
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        match self {
            Self::Complete(args) => complete::run(context, args),
            Self::Try(args) => try_::run(context, args),
            Self::Train(args) => train::run(context, args),
            Self::Eval(args) => eval::run(context, args),
            Self::Pack(args) => pack::run(context, args),
            Self::Verify(args) => verify::run(context, args),
            Self::Key(args) => key::run(context, args),
            Self::Bench(args) => return Ok(ExitCode::from(bench::run(context, args)? as u8)),
            Self::Tune(args) => tune::run(context, args),
            Self::Lsp(args) => return Ok(lsp::run(context, args)),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}
