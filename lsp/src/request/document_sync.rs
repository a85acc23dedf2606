//! `textDocument/didOpen`, `didChange`, `didSave` and `didClose`: the open documents stay equal to the editor's.
//!
//! An edit cancels the completion of its document that is under way: it would answer for an older text.

use lsp_types::{DidChangeTextDocumentParams, DidCloseTextDocumentParams, DidOpenTextDocumentParams, TextDocumentItem};

use crate::documents::EditOutcome;
use crate::loader::Readiness;
use crate::state::ServerState;

/// Opens a document. Its folder may lead to the workspace where the editor's folders do not.
pub(crate) fn did_open(server: &ServerState, params: DidOpenTextDocumentParams) {
    let TextDocumentItem { uri, version, text, .. } = params.text_document;
    let mut state = server.lock();
    state.documents.open(&uri.0, version, &text);
    state.shown.remove(&uri.0);
    server.worker().abandon(&uri.0);
    drop(state);
    server.adopt_folders_of_open_files();
}

/// Applies an edit.
pub(crate) fn did_change(server: &ServerState, params: DidChangeTextDocumentParams) {
    let uri = params.text_document.text_document_identifier.uri.0;
    let version = params.text_document.version;
    let mut state = server.lock();
    let encoding = state.encoding;
    let outcome = state.documents.change(&uri, version, &params.content_changes, encoding);
    server.worker().abandon(&uri);
    drop(state);
    if outcome != EditOutcome::Applied {
        tracing::warn!(?outcome, version, "an edit was not applied");
    }
}

/// Reads the workspace again: there is new text to remember, or a manifest was repaired.
pub(crate) fn did_save(server: &ServerState) {
    let is_ready = server.lock().readiness == Readiness::Ready;
    if is_ready { server.loader().refresh_memory() } else { server.loader().reload() }
}

/// Forgets a document, and the suggestion that was shown in it.
pub(crate) fn did_close(server: &ServerState, params: DidCloseTextDocumentParams) {
    let uri = params.text_document.uri.0;
    let mut state = server.lock();
    state.documents.close(&uri);
    state.shown.remove(&uri);
    server.worker().abandon(&uri);
}
