//! `workspace/didChangeConfiguration`: new settings.

use lsp_types::DidChangeConfigurationParams;

use crate::state::ServerState;

/// Applies the settings that can be used, and loads again where one of them decides what is loaded.
pub(crate) fn did_change(server: &ServerState, params: &DidChangeConfigurationParams) {
    if server.configure(&params.settings) {
        server.load();
    }
}
