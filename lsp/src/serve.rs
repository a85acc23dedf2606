//! Serves one editor over stdin and stdout, until the editor goes away.

use std::io;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nanochat_engine::workspace::store::Store;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tower_lsp::{LspService, Server};
use tracing_subscriber::EnvFilter;

use crate::completion::source::WorkspaceSource;
use crate::lifecycle;
use crate::loader::EngineSource;
use crate::server::NanochatServer;
use crate::state::{ServerState, forward_notices};

/// How often to check that the editor's process is alive.
const PARENT_PERIOD: Duration = Duration::from_secs(1);
/// How long responses may still be written after the end of the input.
const GRACE: Duration = Duration::from_secs(2);

/// What the command line decides about a server.
///
/// ```no_run
/// use nanochat_engine::workspace::store::Store;
/// use nanochat_lsp::{ServeOptions, log_to_stderr, serve};
///
/// log_to_stderr(Some("warn,nanochat_lsp=debug"));
/// serve(ServeOptions { store: Store::at("/home/me/.nanochat"), threads: 0, client_process_id: None });
/// ```
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The data directory with keys and checkpoints, where the settings do not name another.
    pub store: Store,
    /// Threads that compute, where the settings do not set it; 0 is one per core.
    pub threads: usize,
    /// The editor's process, where `initialize` does not name one; the server ends when it does.
    pub client_process_id: Option<i32>,
}

/// Serves one editor over stdin and stdout until `exit`, the end of the input, or the end of the editor's process.
/// Returns success if `shutdown` came before that, and failure otherwise.
pub fn serve(options: ServeOptions) -> ExitCode {
    // A panic's message can quote the user's code; its location cannot.
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "panic");
    }));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the async runtime");
            return ExitCode::FAILURE;
        }
    };
    let source = WorkspaceSource::new(options.store, options.threads);
    let is_clean = runtime.block_on(run(tokio::io::stdin(), tokio::io::stdout(), source, options.client_process_id));
    // A read of stdin may still be blocked; it ends with the process.
    runtime.shutdown_background();
    if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Logs to stderr what `filter` selects, in the syntax of `RUST_LOG`; the default is the information of this crate and
/// the command, and the warnings of everything else. User code is logged at `trace` only.
pub fn log_to_stderr(filter: Option<&str>) {
    let filter = EnvFilter::try_new(filter.unwrap_or("warn,nanochat=info,nanochat_lsp=info"))
        .unwrap_or_else(|_| EnvFilter::new("warn"));
    // A process has one subscriber, and it may be set already.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).try_init();
}

/// Serves one client. Returns whether it sent `shutdown`.
pub(crate) async fn run(
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite,
    source: impl EngineSource,
    client_process_id: Option<i32>,
) -> bool {
    let (state, notices) = ServerState::new(source);
    if let Some(id) = client_process_id {
        lifecycle::watch_editor(&state, id);
    }
    let (service, socket) = LspService::new(|client| {
        tokio::spawn(forward_notices(client, notices));
        NanochatServer::new(Arc::clone(&state))
    });
    let ended = Arc::new(Notify::new());
    let input = NotifyingInput { input, ended: Arc::clone(&ended) };
    tokio::select! {
        () = Server::new(input, output, socket).concurrency_level(1024).serve(service) => {}
        () = async {
            ended.notified().await;
            state.worker().abandon_all();
            tokio::time::sleep(GRACE).await;
        } => tracing::warn!("the input ended, but the output is blocked"),
        () = async {
            while lifecycle::editor_lives(&state) {
                tokio::time::sleep(PARENT_PERIOD).await;
            }
        } => tracing::warn!("the editor's process ended"),
    }
    state.worker().close();
    lifecycle::is_shut_down(&state)
}

/// An input that reports its end, so that completions under way can be cancelled.
struct NotifyingInput<R> {
    input: R,
    ended: Arc<Notify>,
}

impl<R: AsyncRead + Unpin> AsyncRead for NotifyingInput<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let n_before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.input).poll_read(cx, buf));
        if read.is_err() || buf.filled().len() == n_before {
            self.ended.notify_one();
        }
        Poll::Ready(read)
    }
}
