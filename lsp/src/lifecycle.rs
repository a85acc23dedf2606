//! The start and the end of a session: `initialize`, `shutdown`, and the watch on the editor's process.
//!
//! `exit` and the end of the input end [`crate::serve`]'s loop; only whether `shutdown` came before them is kept here.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use lsp_types::{
    ExecuteCommandOptions, InitializeParams, InitializeResult, RootPath, ServerCapabilities, ServerInfo,
    TextDocumentSyncKind, TextDocumentSyncOptions, WorkspaceFolders,
};

use crate::completion::ghost::ACCEPTED;
use crate::documents::Encoding;
use crate::request::execute_command::STATUS;
use crate::state::ServerState;
use crate::uri;

/// Takes in the editor's capabilities, folders and settings, starts loading, and announces what the server can do.
pub(crate) fn initialize(server: &ServerState, params: InitializeParams) -> InitializeResult {
    if let Some(process_id) = params.process_id {
        watch_editor(server, process_id);
    }
    let offered = params.capabilities.general.as_ref().and_then(|general| general.position_encodings.as_deref());
    let encoding = Encoding::negotiate(offered);
    let mut state = server.lock();
    state.encoding = encoding;
    state.setup.folders = folders(&params);
    drop(state);
    server.configure(&params.initialization_options.unwrap_or_default());
    server.load();
    InitializeResult {
        capabilities: capabilities(encoding),
        server_info: Some(ServerInfo {
            name: "nanochat".to_owned(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        }),
    }
}

/// Answers nothing from now on; the process ends with `exit`.
pub(crate) fn shutdown(server: &ServerState) {
    server.is_shut_down.store(true, Ordering::Release);
    server.worker().abandon_all();
}

/// Whether the editor sent `shutdown`, which makes the end of the process a success.
pub(crate) fn is_shut_down(server: &ServerState) -> bool {
    server.is_shut_down.load(Ordering::Acquire)
}

/// Ends the server when this process ends. A process that cannot be seen from here (on another machine or in another
/// container) is not watched.
pub(crate) fn watch_editor(server: &ServerState, process_id: i32) {
    if process_lives(process_id) {
        server.editor_process.store(process_id, Ordering::Release);
    }
}

/// False once the watched process has ended.
pub(crate) fn editor_lives(server: &ServerState) -> bool {
    match server.editor_process.load(Ordering::Acquire) {
        0 => true,
        process_id => process_lives(process_id),
    }
}

fn capabilities(encoding: Encoding) -> ServerCapabilities {
    let sync = TextDocumentSyncOptions {
        open_close: Some(true),
        change: Some(TextDocumentSyncKind::Incremental),
        save: Some(true.into()),
        ..TextDocumentSyncOptions::default()
    };
    let commands = ExecuteCommandOptions {
        commands: vec![ACCEPTED.to_owned(), STATUS.to_owned()],
        ..ExecuteCommandOptions::default()
    };
    ServerCapabilities {
        position_encoding: Some(encoding.kind()),
        text_document_sync: Some(sync.into()),
        execute_command_provider: Some(commands),
        inline_completion_provider: Some(true.into()),
        ..ServerCapabilities::default()
    }
}

/// The folders that the editor has open, taken from the newest of the protocol's three fields that is set.
#[expect(deprecated, reason = "older editors set the older fields")]
fn folders(params: &InitializeParams) -> Vec<PathBuf> {
    if let Some(WorkspaceFolders::WorkspaceFolderList(folders)) =
        &params.workspace_folders_initialize_params.workspace_folders
    {
        return folders.iter().filter_map(|folder| uri::to_path(&folder.uri.0)).collect();
    }
    let root_uri = params.root_uri.as_ref().and_then(|root| uri::to_path(&root.0));
    let root_path = || match &params.root_path {
        Some(RootPath::String(path)) => Some(PathBuf::from(path)),
        _ => None,
    };
    root_uri.or_else(root_path).into_iter().collect()
}

#[cfg(unix)]
fn process_lives(process_id: i32) -> bool {
    use rustix::process::{Pid, test_kill_process};
    let Some(process_id) = (process_id > 0).then(|| Pid::from_raw(process_id)).flatten() else {
        return false;
    };
    // Another user's process cannot be signalled, but it is alive.
    !matches!(test_kill_process(process_id), Err(rustix::io::Errno::SRCH))
}

/// There is no portable way to ask; the end of the input ends the server all the same.
#[cfg(not(unix))]
fn process_lives(_: i32) -> bool {
    true
}
