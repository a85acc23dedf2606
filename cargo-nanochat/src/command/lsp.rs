//! `lsp`: the language server, for an editor.

use std::process::ExitCode;

use clap::Args;
use nanochat_lsp::{ServeOptions, serve};

use crate::context::Context;

/// Serve completions to an editor over stdin and stdout
///
/// Speaks the Language Server Protocol 3.18 (`textDocument/inlineCompletion`). An editor starts this; it exits when
/// the editor asks for it, closes stdin or dies.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  cargo nanochat lsp                the command to configure in an editor
  cargo nanochat lsp --threads 4

stdout belongs to the protocol; messages for people go to stderr. Exit code 0 after a shutdown request, 1 otherwise.
Runs cargo only for a workspace that the editor says is trusted.")]
pub(crate) struct LspArgs {
    /// Accepted because some editors always pass it; stdio is the only transport
    #[arg(long, hide = true)]
    stdio: bool,
    /// Exit when this process ends
    #[arg(long, value_name = "PID", alias = "client-process-id", id = "clientProcessId")]
    client_process_id: Option<i32>,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

pub(crate) fn run(context: &Context, args: &LspArgs) -> ExitCode {
    let LspArgs { stdio: _, client_process_id, threads } = *args;
    serve(ServeOptions { store: context.store.clone(), threads, client_process_id })
}
