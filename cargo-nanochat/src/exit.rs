//! How a command ended → the process's exit code. This is the only list of codes, and `--help` prints it.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use nanochat_engine::Cancelled;
use nanochat_engine::checkpoint::{CheckpointError, SignError};
use nanochat_engine::complete::CompleteError;
use nanochat_engine::workspace::store::StoreError;
use nanochat_eval::EvalError;
use nanochat_eval::check::CheckError;
use nanochat_eval::sandbox::SandboxError;
use nanochat_eval::suite::{ListError, SuiteError};
use nanochat_eval::system::server::ServerError;
use nanochat_lsp::workspace::WorkspaceError;
use nanochat_train::TrainError;
use nanochat_train::backend::BackendError;
use nanochat_train::data::shards::ShardError;

use crate::output::{Output, StdoutClosed};
use crate::position::OutsideError;

/// The exit codes of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    Input = 3,
    Refused = 4,
    Untrusted = 5,
    Unconfined = 6,
    Worse = 7,
    Interrupted = 130, // 128 + SIGINT, as shells have it
}

impl Exit {
    pub(crate) const ALL: [Self; 9] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::Input,
        Self::Refused,
        Self::Untrusted,
        Self::Unconfined,
        Self::Worse,
        Self::Interrupted,
    ];

    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Failed => "any other failure, e.g. a full disk",
            Self::Usage => "the command line cannot be parsed",
            Self::Input => "bad input: no workspace, no code, an unreadable file, a position outside it, bad settings",
            Self::Refused => "no usable checkpoint: missing, truncated, foreign, tampered with, not trusted, outdated",
            Self::Untrusted => "the workspace is not trusted, and nothing of it was run: answer yes, or pass --trust",
            Self::Unconfined => "this machine lacks a layer that `--sandbox require` asks for",
            Self::Worse => "`eval compare`: the second run is shown to compile less often",
            Self::Interrupted => "interrupted; training has saved its state",
        }
    }
}

/// Input that cannot be used, where no library has an error type for it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InputError(pub(crate) String);

/// `eval compare` shows that the second run is worse.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Worse(pub(crate) String);

/// Whether to build a workspace is its user's decision, and the user has not agreed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} is not trusted{}, so nothing of it was run: checking it would run its build scripts, its procedural macros and \
     what its .cargo/config.toml names; pass `--trust` if you would build it",
    root.display(), if *was_asked { "" } else { " and there is no terminal to ask on" }
)]
pub(crate) struct Untrusted {
    pub(crate) root: PathBuf,
    pub(crate) was_asked: bool,
}

/// The user pressed Ctrl-C, and the command stopped cleanly.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Interrupted(pub(crate) &'static str);

/// Prints what clap has to say: help to stdout, errors to stderr.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // A reader that closes the pipe has read enough.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { Exit::Usage } else { Exit::Ok } as u8)
}

/// Prints the error, if any, and returns its exit code.
pub(crate) fn finish(result: anyhow::Result<ExitCode>, output: &Output) -> ExitCode {
    let exit = match result {
        Ok(code) => return code,
        Err(error) if error.is::<StdoutClosed>() => Exit::Ok,
        Err(error) => {
            output.error(&error);
            code(&error)
        }
    };
    ExitCode::from(exit as u8)
}

/// The innermost cause that has a class decides.
fn code(error: &anyhow::Error) -> Exit {
    error.chain().filter_map(class).last().unwrap_or(Exit::Failed)
}

fn class(cause: &(dyn Error + 'static)) -> Option<Exit> {
    if cause.is::<Interrupted>() || cause.is::<Cancelled>() {
        return Some(Exit::Interrupted);
    }
    if cause.is::<Worse>() {
        return Some(Exit::Worse);
    }
    if cause.is::<Untrusted>() {
        return Some(Exit::Untrusted);
    }
    let is_input = cause.is::<InputError>() || cause.is::<OutsideError>() || cause.is::<WorkspaceError>();
    if is_input || cause.is::<SignError>() || cause.is::<SuiteError>() || cause.is::<ListError>() {
        return Some(Exit::Input);
    }
    if let Some(error) = cause.downcast_ref() {
        return match error {
            CheckpointError::Write(_) => None,
            _ => Some(Exit::Refused),
        };
    }
    if let Some(StoreError::Missing { .. }) = cause.downcast_ref() {
        return Some(Exit::Refused);
    }
    // A transparent error hides the one it holds from the chain, so those are taken apart here.
    if let Some(error) = cause.downcast_ref() {
        return Some(complete_class(error));
    }
    match cause.downcast_ref() {
        Some(ServerError::Cancelled(_)) => return Some(Exit::Interrupted),
        Some(_) => return Some(Exit::Input),
        None => {}
    }
    match cause.downcast_ref() {
        Some(EvalError::Cancelled(_)) => return Some(Exit::Interrupted),
        Some(EvalError::Check(CheckError::Sandbox(SandboxError::Missing { .. }))) => return Some(Exit::Unconfined),
        Some(EvalError::Complete(error)) => return Some(complete_class(error)),
        Some(EvalError::Server(_)) => return Some(Exit::Input),
        _ => {}
    }
    let is_input = match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(error), _) => matches!(
            error,
            TrainError::Corpus(_)
                | TrainError::Path { .. }
                | TrainError::Recipe(_)
                | TrainError::Licence(_)
                | TrainError::Backend(BackendError::NotBuilt { .. } | BackendError::Streams { .. })
                | TrainError::Shards(ShardError::Packed { .. })
        ),
        (None, Some(error)) => matches!(error, EvalError::NoHoles | EvalError::Record(_)),
        (None, None) => false,
    };
    is_input.then_some(Exit::Input)
}

fn complete_class(error: &CompleteError) -> Exit {
    match error {
        CompleteError::Cancelled(_) => Exit::Interrupted,
        CompleteError::Nothing => Exit::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_does_not_hide_the_class() {
        let error = anyhow::Error::new(InputError("bad".to_owned())).context("reading a.rs");
        assert_eq!(code(&error), Exit::Input);
        assert_eq!(code(&anyhow::anyhow!("disk full")), Exit::Failed);
        assert_eq!(code(&CompleteError::Cancelled(Cancelled).into()), Exit::Interrupted);
        assert_eq!(code(&CompleteError::Nothing.into()), Exit::Refused);
        assert_eq!(code(&EvalError::Cancelled(Cancelled).into()), Exit::Interrupted);
        let server = ServerError::Unreachable { url: "http://localhost:1".to_owned() };
        assert_eq!(code(&EvalError::Server(server.clone()).into()), Exit::Input);
        assert_eq!(code(&server.into()), Exit::Input);
        assert_eq!(code(&ServerError::Cancelled(Cancelled).into()), Exit::Interrupted);
        assert_eq!(code(&Worse("B".to_owned()).into()), Exit::Worse);
        let missing = SandboxError::Missing { missing: "Landlock (no kernel)".to_owned() };
        assert_eq!(code(&EvalError::Check(CheckError::Sandbox(missing)).into()), Exit::Unconfined);
        let untrusted = Untrusted { root: "/w".into(), was_asked: false };
        assert_eq!(code(&anyhow::Error::new(untrusted).context("evaluating")), Exit::Untrusted);
    }
}
