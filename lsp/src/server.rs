//! The language server as tower-lsp sees it: each method delegates to [`crate::lifecycle`] or [`crate::request`].
//!
//! Notifications change the state before they await anything, so the state follows the order in which the editor
//! wrote. No method waits for the client.

use std::sync::Arc;

use lsp_types::{
    DidChangeConfigurationParams, DidChangeTextDocumentParams, DidCloseTextDocumentParams, DidOpenTextDocumentParams,
    DidSaveTextDocumentParams, ExecuteCommandParams, InitializeParams, InitializeResult, InlineCompletionParams,
    InlineCompletionResponse, LspAny,
};
use tower_lsp::LanguageServer;
use tower_lsp::jsonrpc::Result;

use crate::lifecycle;
use crate::request::{configuration, document_sync, execute_command, inline_completion};
use crate::state::ServerState;

/// The implementation of the protocol's methods over one shared state.
pub(crate) struct NanochatServer {
    state: Arc<ServerState>,
}

impl NanochatServer {
    /// A server over `state`.
    pub(crate) fn new(state: Arc<ServerState>) -> Self {
        Self { state }
    }
}

impl LanguageServer for NanochatServer {
    async fn initialize(&self, params: InitializeParams) -> Result<InitializeResult> {
        Ok(lifecycle::initialize(&self.state, params))
    }

    async fn shutdown(&self) -> Result<()> {
        lifecycle::shutdown(&self.state);
        Ok(())
    }

    async fn did_open(&self, params: DidOpenTextDocumentParams) {
        document_sync::did_open(&self.state, params);
    }

    async fn did_change(&self, params: DidChangeTextDocumentParams) {
        document_sync::did_change(&self.state, params);
    }

    async fn did_save(&self, _: DidSaveTextDocumentParams) {
        document_sync::did_save(&self.state);
    }

    async fn did_close(&self, params: DidCloseTextDocumentParams) {
        document_sync::did_close(&self.state, params);
    }

    async fn did_change_configuration(&self, params: DidChangeConfigurationParams) {
        configuration::did_change(&self.state, &params);
    }

    async fn inline_completion(&self, params: InlineCompletionParams) -> Result<Option<InlineCompletionResponse>> {
        Ok(Some(inline_completion::handle(&self.state, &params).await))
    }

    async fn execute_command(&self, params: ExecuteCommandParams) -> Result<Option<LspAny>> {
        execute_command::handle(&self.state, params)
    }
}

#[cfg(test)]
mod tests;
