//! `textDocument/inlineCompletion`: a position to at most one suggestion.
//!
//! ```text
//! the shown suggestion typed through? → its rest, at once
//! otherwise → query → worker → still wanted, confident and visible? → ghost text
//! ```
//!
//! The answer is `[]`, never `null`, when there is nothing to suggest: Neovim keeps an old suggestion on `null`. A
//! request that arrives during the first load waits for its outcome, for up to [`LOADING_TIMEOUT`].

use std::sync::Arc;
use std::time::Duration;

use lsp_types::{
    InlineCompletionItem, InlineCompletionParams, InlineCompletionResponse, InlineCompletionTriggerKind, MessageType,
    Range,
};
use nanochat_engine::{Cancel, Completion, Limits};
use tokio::sync::oneshot;

use crate::completion::ghost::{self, Shown};
use crate::context::{self, CursorText, SelectedItem};
use crate::loader::Readiness;
use crate::settings::Settings;
use crate::state::ServerState;
use crate::worker::Job;

/// How long a request waits for an engine that is being loaded. Editors do not repeat a request by themselves, but
/// nobody looks at the same position much longer.
pub(crate) const LOADING_TIMEOUT: Duration = Duration::from_secs(3);

/// Answers a request, after the engine has where it is needed.
pub(crate) async fn handle(server: &ServerState, params: &InlineCompletionParams) -> InlineCompletionResponse {
    let item = match start(server, params) {
        RequestOutcome::Nothing => None,
        RequestOutcome::Immediate(item) => Some(item),
        RequestOutcome::Pending(mut pending) => {
            let answer = &mut pending.answer;
            let completion = match pending.timeout {
                None => answer.await,
                Some(timeout) => tokio::time::timeout(timeout, answer).await.unwrap_or(Ok(None)),
            };
            // An error means that a newer request took this one's place.
            finish(server, &pending, completion.unwrap_or_default())
        }
    };
    let items: Vec<InlineCompletionItem> = item.into_iter().collect();
    items.into()
}

/// What a request has led to, before the engine answers.
enum RequestOutcome {
    /// There is nothing to suggest.
    Nothing,
    /// The rest of the suggestion that is already shown.
    Immediate(InlineCompletionItem),
    /// The worker has it.
    Pending(Box<Pending>),
}

/// A request that the worker has.
struct Pending {
    answer: oneshot::Receiver<Option<Completion>>,
    /// How long to wait for the answer; `None` is for as long as it takes.
    timeout: Option<Duration>,
    guard: CancelOnDrop,
    uri: String,
    /// The text that the engine completes.
    text: Arc<CursorText>,
    /// The selected item of the editor's menu, which the suggestion continues; usually empty.
    selected_text: String,
    /// What the suggestion replaces.
    range: Range,
    /// A suggestion with a lower confidence is not shown.
    min_confidence: f32,
}

/// Cancels the work when the request is dropped, which is how tower-lsp delivers `$/cancelRequest`.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Answers from the shown suggestion where it can, and otherwise gives the request to the worker.
fn start(server: &ServerState, params: &InlineCompletionParams) -> RequestOutcome {
    let uri = &params.text_document_position_params.text_document.uri.0;
    let position = params.text_document_position_params.position;
    server.loader().reload_if_changed();
    let mut state = server.lock();
    state.counters.requests += 1;
    let encoding = state.encoding;
    let Some(document) = state.documents.get(uri) else { return RequestOutcome::Nothing };
    if !document.is_in_sync {
        server.notify(MessageType::Warning, format!("{uri} is out of sync with the editor; reopen it"), true);
        return RequestOutcome::Nothing;
    }
    let cursor = document.offset(position, encoding);
    let info = params.context.selected_completion_info.as_ref();
    let selected = info.and_then(|info| SelectedItem::new(info, document, position, encoding));
    let range = match (&selected, info) {
        (Some(_), Some(info)) => info.range,
        _ => {
            let end = document.position(cursor, encoding);
            Range { start: end, end }
        }
    };
    let Some(query) = context::query(&state.documents, uri, cursor, selected.as_ref()) else {
        return RequestOutcome::Nothing;
    };
    let selected_text = selected.map(|selected| selected.text).unwrap_or_default();
    let rest = state.shown.get(uri).and_then(|shown| shown.rest(&query.text));
    if let Some(rest) = rest.map(str::to_owned) {
        server.worker().abandon(uri);
        state.counters.shown += 1;
        state.counters.typed_through += 1;
        return RequestOutcome::Immediate(ghost::item(selected_text + &rest, range));
    }
    let timeout = match state.readiness {
        Readiness::Ready => None,
        Readiness::Loading if !state.setup.folders.is_empty() => Some(LOADING_TIMEOUT),
        _ => return RequestOutcome::Nothing,
    };
    let Settings { max_tokens, max_lines, min_confidence, .. } = state.setup.settings;
    let is_invoked = params.context.trigger_kind == InlineCompletionTriggerKind::Invoked;
    let min_confidence = if is_invoked { 0.0 } else { min_confidence as f32 / 100.0 };
    let limits = Limits { max_tokens, max_lines, ..Limits::default() };
    let cancel = Cancel::new();
    let (sender, answer) = oneshot::channel();
    let text = Arc::clone(&query.text);
    let job = Job { document: uri.clone(), query, limits, cancel: cancel.clone(), answer: sender };
    server.worker().submit(job);
    let guard = CancelOnDrop(cancel);
    let uri = uri.clone();
    RequestOutcome::Pending(Box::new(Pending {
        answer,
        timeout,
        guard,
        uri,
        text,
        selected_text,
        range,
        min_confidence,
    }))
}

/// Decides whether a completion is shown, and remembers it if so.
fn finish(server: &ServerState, pending: &Pending, completion: Option<Completion>) -> Option<InlineCompletionItem> {
    let mut state = server.lock();
    // An edit or a newer request since then has set the flag, under this very lock or before it.
    if pending.guard.0.is_cancelled() {
        return None;
    }
    let completion = completion?;
    if completion.confidence < pending.min_confidence {
        state.counters.withheld += 1;
        return None;
    }
    let text = ghost::visible(&completion.text)?.to_owned();
    state.shown.insert(pending.uri.clone(), Shown { at: Arc::clone(&pending.text), text: text.clone() });
    state.counters.shown += 1;
    Some(ghost::item(format!("{}{text}", pending.selected_text), pending.range))
}
