//! `lsp`: the language server, for an editor.

use std::process::ExitCode;

use nanochat_lsp::{ServeOptions, serve};

use crate::cli::Lsp;
use crate::context::Context;

pub(crate) fn run(context: Context, args: &Lsp) -> ExitCode {
    let Lsp { stdio: _, client_process_id, threads } = *args;
    serve(ServeOptions { store: context.store, threads, client_process_id })
}
