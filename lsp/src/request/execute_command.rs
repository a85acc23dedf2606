//! `workspace/executeCommand`: the sign that a suggestion was accepted, and the server's status.

use lsp_types::{ExecuteCommandParams, LspAny};
use serde_json::{Value, json};
use tower_lsp::jsonrpc::{Error, Result};

use crate::completion::ghost::ACCEPTED;
use crate::loader::Readiness;
use crate::state::ServerState;

/// Answers what the server is doing and what it has counted: `{state, reason, counts}`.
pub(crate) const STATUS: &str = "nanochat.status";

/// Runs one of the commands that `initialize` announced.
pub(crate) fn handle(server: &ServerState, params: ExecuteCommandParams) -> Result<Option<LspAny>> {
    match params.command.as_str() {
        ACCEPTED => {
            let n_characters = params.arguments.and_then(|arguments| arguments.first()?.as_u64()).unwrap_or(0);
            let counters = &mut server.lock().counters;
            counters.accepted += 1;
            counters.accepted_characters = counters.accepted_characters.saturating_add(n_characters);
            Ok(None)
        }
        STATUS => Ok(Some(status(server))),
        other => Err(Error::invalid_params(format!("unknown command `{other}`; expected {ACCEPTED} or {STATUS}"))),
    }
}

fn status(server: &ServerState) -> Value {
    let state = server.lock();
    let (name, reason) = match &state.readiness {
        Readiness::Loading => ("loading", None),
        Readiness::Ready => ("ready", None),
        Readiness::Silent(reason) => ("silent", Some(reason.to_string())),
    };
    json!({ "state": name, "reason": reason, "counts": state.counters })
}
