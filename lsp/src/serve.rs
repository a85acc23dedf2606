//! From stdin to stdout until the editor goes: the server's life.

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

use crate::loader::Source;
use crate::local::LocalSource;
use crate::server::{Desk, Nanochat, tell_client};

/// How often to see whether the editor still lives.
const PARENT_PERIOD: Duration = Duration::from_secs(1);
/// How long answers may still be written after the input ended.
const GRACE: Duration = Duration::from_secs(2);

/// What the command line says.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where keys and checkpoints lie.
    pub store: Store,
    /// Threads that compute, where the settings do not say; 0 is one per core.
    pub threads: usize,
    /// The editor's process, beside what it says itself; the server ends when it does.
    pub client_process_id: Option<i32>,
}

/// Serves one editor over stdin and stdout. Ends on `exit`, at the end of the input and with the editor's process:
/// 0 after `shutdown`, 1 without.
pub fn serve(options: ServeOptions) -> ExitCode {
    // A panic's message can quote the text it met, which is the user's; its place cannot.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic");
    }));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the system refuses what a server needs");
            return ExitCode::FAILURE;
        }
    };
    let source = LocalSource::new(options.store, options.threads);
    let is_clean = runtime.block_on(run(tokio::io::stdin(), tokio::io::stdout(), source, options.client_process_id));
    // A read of stdin may still be under way; it ends with the process.
    runtime.shutdown_background();
    if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Logs to stderr, as `filter` says (`NANOCHAT_LOG`, in the form of `RUST_LOG`); warnings where it says nothing.
/// User code is logged at `trace` at most.
pub fn log_to_stderr(filter: Option<&str>) {
    let filter = EnvFilter::try_new(filter.unwrap_or("warn,nanochat=info,nanochat_lsp=info"))
        .unwrap_or_else(|_| EnvFilter::new("warn"));
    // Only the first subscriber of a process counts, and it may be there already.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).try_init();
}

/// Serves one client. Returns whether it said `shutdown`.
pub(crate) async fn run(
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite,
    source: impl Source,
    client_process_id: Option<i32>,
) -> bool {
    let (desk, notices) = Desk::new(source);
    if let Some(id) = client_process_id {
        desk.watch(id);
    }
    let (service, socket) = LspService::new(|client| {
        tokio::spawn(tell_client(client, notices));
        Nanochat::new(Arc::clone(&desk))
    });
    let ended = Arc::new(Notify::new());
    let input = Ending { input, ended: Arc::clone(&ended) };
    tokio::select! {
        () = Server::new(input, output, socket).concurrency_level(1024).serve(service) => {}
        () = async {
            ended.notified().await;
            desk.worker().abandon_all();
            tokio::time::sleep(GRACE).await;
        } => tracing::warn!("the input ended and the output is stuck"),
        () = async {
            while desk.editor_lives() {
                tokio::time::sleep(PARENT_PERIOD).await;
            }
        } => tracing::warn!("the editor's process ended"),
    }
    desk.worker().close();
    desk.is_shut_down()
}

/// An input that says when it ended, so that answers under way are given up.
struct Ending<R> {
    input: R,
    ended: Arc<Notify>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Ending<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let n_before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.input).poll_read(cx, buf));
        if read.is_err() || buf.filled().len() == n_before {
            self.ended.notify_one();
        }
        Poll::Ready(read)
    }
}
