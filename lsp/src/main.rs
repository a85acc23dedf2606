//! The language server as a program of its own, for editors to start.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nanochat_engine::workspace::store::Store;
use nanochat_lsp::{ServeOptions, log_to_stderr, serve};

/// Inline completions for Rust over the Language Server Protocol, on stdin and stdout.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Communicate over stdin and stdout. This is the only transport; editors pass the flag by convention.
    #[arg(long)]
    stdio: bool,
    /// Exit when this process ends.
    #[arg(long = "clientProcessId", value_name = "PID", alias = "client-process-id")]
    client_process_id: Option<i32>,
    /// The data directory, instead of the platform's.
    #[arg(long, env = "NANOCHAT_HOME", value_name = "FOLDER")]
    home: Option<PathBuf>,
    /// Threads that compute; 0 is one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// What to log to stderr, for example `warn,nanochat_lsp=debug`.
    #[arg(long, env = "NANOCHAT_LOG", value_name = "FILTER")]
    log: Option<String>,
}

fn main() -> ExitCode {
    let Args { stdio: _, client_process_id, home, threads, log } = Args::parse();
    log_to_stderr(log.as_deref());
    match Store::default_root(home) {
        Ok(store) => serve(ServeOptions { store, threads, client_process_id }),
        Err(error) => {
            tracing::error!(%error, "cannot find the data directory");
            ExitCode::FAILURE
        }
    }
}
