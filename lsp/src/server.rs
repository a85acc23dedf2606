//! The protocol: each method of it, and the state that they share.
//!
//! Notifications change the state before they wait for anything, so the state is that of the order in which the
//! editor wrote. No method waits for the client. A question is answered with `[]`, never `null`: Neovim keeps
//! an old suggestion on `null`. One that comes while the first load is under way waits for its verdict, though not
//! long.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use lsp_types::{
    DidChangeConfigurationParams, DidChangeTextDocumentParams, DidCloseTextDocumentParams, DidOpenTextDocumentParams,
    DidSaveTextDocumentParams, ExecuteCommandOptions, ExecuteCommandParams, InitializeParams, InitializeResult,
    InlineCompletionItem, InlineCompletionParams, InlineCompletionResponse, InlineCompletionTriggerKind, LspAny,
    MessageType, Range, RootPath, ServerCapabilities, ServerInfo, TextDocumentSyncKind, TextDocumentSyncOptions,
    WorkspaceFolders,
};
use nanochat_engine::{Cancel, Completion, Limits};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tower_lsp::jsonrpc::{Error, Result};
use tower_lsp::{Client, LanguageServer};

use crate::context::{self, Query, Selected};
use crate::documents::{Applied, Documents, Encoding};
use crate::ghost::{self, ACCEPTED, Shown};
use crate::loader::{Loader, Readiness, Setup, Silence, Source};
use crate::settings::Settings;
use crate::uri;
use crate::worker::{Job, Worker};

/// Tells what the server is doing and what it counted.
const STATUS: &str = "nanochat.status";
/// Engine failures after which it is not started again.
const MAX_PANICS: u32 = 3;
/// How long a question waits for an engine that is being loaded: editors do not ask again by themselves, but nobody
/// looks at the same place much longer.
const HOLD: Duration = Duration::from_secs(3);

/// What everybody shares: the state, the threads and the way to the user's ear.
pub(crate) struct Desk {
    state: Mutex<State>,
    worker: Worker,
    loader: OnceLock<Loader>,
    notices: UnboundedSender<Notice>,
    editor: AtomicI32,
    is_shut_down: AtomicBool,
}

/// What the notifications change.
struct State {
    documents: Documents,
    encoding: Encoding,
    setup: Setup,
    readiness: Readiness,
    shown: HashMap<String, Shown>,
    counts: Counts,
}

/// Counted on this machine and told to nobody but its user.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    /// Questions asked.
    requests: u64,
    /// Questions answered with a suggestion.
    shown: u64,
    /// Suggestions that were too improbable to be shown.
    withheld: u64,
    /// Of those shown, answered from the last suggestion, of which the user had typed the beginning.
    typed_through: u64,
    /// Suggestions accepted.
    accepted: u64,
    /// Characters of these.
    accepted_characters: u64,
}

/// A word to the user.
pub(crate) struct Notice {
    kind: MessageType,
    text: String,
    /// Shown where the user looks, and not only logged.
    is_urgent: bool,
}

/// Passes each notice on, once.
pub(crate) async fn tell_client(client: Client, mut notices: UnboundedReceiver<Notice>) {
    let mut told = HashSet::new();
    while let Some(Notice { kind, text, is_urgent }) = notices.recv().await {
        if !told.insert(text.clone()) {
            continue;
        }
        if is_urgent {
            client.show_message(kind, format!("nanochat: {text}")).await;
        } else {
            client.log_message(kind, text).await;
        }
    }
}

impl Desk {
    /// Starts the threads. What the receiver gets is for the client.
    pub(crate) fn new(source: impl Source) -> (Arc<Self>, UnboundedReceiver<Notice>) {
        let (notices, inbox) = unbounded_channel();
        let desk = Arc::new_cyclic(|desk: &std::sync::Weak<Self>| {
            let desk = desk.clone();
            let n_panics = AtomicU32::new(0);
            let on_panic = move || {
                if let Some(desk) = desk.upgrade() {
                    desk.engine_failed(n_panics.fetch_add(1, Ordering::Relaxed) + 1);
                }
            };
            let state = State {
                documents: Documents::default(),
                encoding: Encoding::Utf16,
                setup: Setup::default(),
                readiness: Readiness::Loading,
                shown: HashMap::new(),
                counts: Counts::default(),
            };
            Self {
                state: Mutex::new(state),
                worker: Worker::spawn(on_panic),
                loader: OnceLock::new(),
                notices,
                editor: AtomicI32::new(0),
                is_shut_down: AtomicBool::new(false),
            }
        });
        let weak = Arc::downgrade(&desk);
        let tell = move |readiness| {
            if let Some(desk) = weak.upgrade() {
                desk.set_readiness(readiness);
            }
        };
        let loader = Loader::spawn(source, desk.worker.clone(), tell);
        desk.loader.set(loader).unwrap_or_else(|_| unreachable!("it is set here only"));
        (desk, inbox)
    }

    /// The thread that computes.
    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Whether the editor said `shutdown`.
    pub(crate) fn is_shut_down(&self) -> bool {
        self.is_shut_down.load(Ordering::Acquire)
    }

    /// Ends the server with this process. One that cannot be seen from here (of another machine or container) is
    /// not waited for.
    pub(crate) fn watch(&self, process_id: i32) {
        if process_lives(process_id) {
            self.editor.store(process_id, Ordering::Release);
        }
    }

    /// False once the process that is watched has ended.
    pub(crate) fn editor_lives(&self) -> bool {
        match self.editor.load(Ordering::Acquire) {
            0 => true,
            process_id => process_lives(process_id),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each method leaves the state whole, also when one panics between two changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loader(&self) -> &Loader {
        self.loader.get().expect("`new` sets it before anybody has the desk")
    }

    fn say(&self, kind: MessageType, text: impl Into<String>, is_urgent: bool) {
        // The receiver lives as long as the server does.
        let _ = self.notices.send(Notice { kind, text: text.into(), is_urgent });
    }

    fn set_readiness(&self, readiness: Readiness) {
        let mut state = self.state();
        if state.readiness == Readiness::Silent(Silence::Off) {
            return;
        }
        state.readiness = readiness.clone();
        drop(state);
        if self.consider() {
            return;
        }
        match &readiness {
            Readiness::Loading => {}
            Readiness::Ready => self.say(MessageType::Info, "ready", false),
            Readiness::Silent(silence) => {
                // Questions that waited for the verdict are answered with nothing.
                self.worker.abandon_all();
                self.say(MessageType::Warning, silence.to_string(), true);
            }
        }
    }

    fn engine_failed(&self, n_panics: u32) {
        if n_panics < MAX_PANICS {
            self.say(MessageType::Error, "the engine failed and is started again; its log on stderr says where", false);
            self.set_readiness(Readiness::Loading);
            self.loader().reload();
        } else {
            self.set_readiness(Readiness::Silent(Silence::Off));
            self.loader().stop();
        }
    }

    /// Takes in settings. Returns whether what is loaded depends on one that changed.
    fn configure(&self, value: &Value) -> bool {
        let mut state = self.state();
        let before = state.setup.settings.clone();
        let (settings, complaints) = before.updated(value);
        state.setup.settings = settings.clone();
        drop(state);
        for complaint in complaints {
            self.say(MessageType::Warning, complaint, false);
        }
        let Settings { trusted, dependencies, threads, cache_megabytes, data_dir, .. } = &before;
        settings.trusted != *trusted
            || settings.dependencies != *dependencies
            || settings.threads != *threads
            || settings.cache_megabytes != *cache_megabytes
            || settings.data_dir != *data_dir
    }

    /// Reads everything anew, once there is a folder to read.
    fn load(&self) {
        let setup = self.state().setup.clone();
        if !setup.folders.is_empty() {
            self.loader().load(setup);
        }
    }

    /// Lets the folders of open files stand in where the editor's folders are in no workspace. Returns whether that
    /// gave the loader something new to read.
    fn consider(&self) -> bool {
        let mut state = self.state();
        let State { documents, setup, readiness, .. } = &mut *state;
        let is_lost = matches!(readiness, Readiness::Silent(Silence::NoWorkspace(_)));
        let mut folders = if setup.folders.is_empty() || is_lost { documents.folders() } else { BTreeSet::new() };
        folders.retain(|folder| !setup.folders.contains(folder));
        if folders.is_empty() {
            return false;
        }
        setup.folders.extend(folders);
        *readiness = Readiness::Loading;
        drop(state);
        self.load();
        true
    }

    fn ask(&self, params: &InlineCompletionParams) -> Asked {
        let address = &params.text_document_position_params.text_document.uri.0;
        let position = params.text_document_position_params.position;
        self.loader().check();
        let mut state = self.state();
        state.counts.requests += 1;
        let encoding = state.encoding;
        let Some(document) = state.documents.get(address) else { return Asked::Nothing };
        if !document.in_step {
            self.say(MessageType::Warning, format!("{address} is out of step; reopen it"), true);
            return Asked::Nothing;
        }
        let cursor = document.offset(position, encoding);
        let info = params.context.selected_completion_info.as_ref();
        let selected = info.and_then(|info| Selected::new(info, document, position, encoding));
        let range = match (&selected, info) {
            (Some(_), Some(info)) => info.range,
            _ => {
                let end = document.position(cursor, encoding);
                Range { start: end, end }
            }
        };
        let Some(query) = context::query(&state.documents, address, cursor, selected.as_ref()) else {
            return Asked::Nothing;
        };
        let begins_with = selected.map(|selected| selected.text).unwrap_or_default();
        let rest = state.shown.get(address).and_then(|shown| shown.rest(&query.prefix, &query.suffix));
        if let Some(rest) = rest.map(str::to_owned) {
            self.worker.abandon(address);
            state.counts.shown += 1;
            state.counts.typed_through += 1;
            return Asked::Known(ghost::item(begins_with + &rest, range));
        }
        let patience = match state.readiness {
            Readiness::Ready => None,
            Readiness::Loading if !state.setup.folders.is_empty() => Some(HOLD),
            _ => return Asked::Nothing,
        };
        let Settings { max_tokens, max_lines, min_confidence, .. } = state.setup.settings;
        let is_asked_for = params.context.trigger_kind == InlineCompletionTriggerKind::Invoked;
        let least_confidence = if is_asked_for { 0.0 } else { min_confidence as f32 / 100.0 };
        let limits = Limits { max_tokens, max_lines, ..Limits::default() };
        let cancel = Cancel::new();
        let (answer, arrival) = oneshot::channel();
        let (document, question) = (address.clone(), query.clone());
        self.worker.submit(Job { document, query, limits, cancel: cancel.clone(), answer });
        let guard = CancelOnDrop(cancel);
        let address = address.clone();
        Asked::Waiting(Box::new(Waiting {
            arrival,
            patience,
            guard,
            address,
            question,
            begins_with,
            range,
            least_confidence,
        }))
    }

    fn show(&self, waiting: &Waiting, completion: Option<Completion>) -> Option<InlineCompletionItem> {
        let mut state = self.state();
        // An edit or a newer question since then set the flag, under this very lock or before it.
        if waiting.guard.0.is_cancelled() {
            return None;
        }
        let completion = completion?;
        if completion.confidence < waiting.least_confidence {
            state.counts.withheld += 1;
            return None;
        }
        let text = ghost::visible(&completion.text)?.to_owned();
        let Query { prefix, suffix, .. } = waiting.question.clone();
        state.shown.insert(waiting.address.clone(), Shown { prefix, suffix, text: text.clone() });
        state.counts.shown += 1;
        Some(ghost::item(format!("{}{text}", waiting.begins_with), waiting.range))
    }

    fn status(&self) -> Value {
        let state = self.state();
        let (name, reason) = match &state.readiness {
            Readiness::Loading => ("loading", None),
            Readiness::Ready => ("ready", None),
            Readiness::Silent(silence) => ("silent", Some(silence.to_string())),
        };
        json!({ "state": name, "reason": reason, "counts": state.counts })
    }
}

/// What becomes of a question.
enum Asked {
    /// Nothing to say.
    Nothing,
    /// Answered at once.
    Known(InlineCompletionItem),
    /// With the worker.
    Waiting(Box<Waiting>),
}

/// A question with the worker.
struct Waiting {
    arrival: oneshot::Receiver<Option<Completion>>,
    /// How long to wait; `None` is for as long as it takes.
    patience: Option<Duration>,
    guard: CancelOnDrop,
    address: String,
    question: Query,
    begins_with: String,
    range: Range,
    /// A suggestion that is less probable is not shown.
    least_confidence: f32,
}

/// Stops the work when the request is dropped: that is how the protocol's cancellation arrives here.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The server, one method of the protocol each.
pub(crate) struct Nanochat {
    desk: Arc<Desk>,
}

impl Nanochat {
    /// A server at a desk.
    pub(crate) fn new(desk: Arc<Desk>) -> Self {
        Self { desk }
    }
}

impl LanguageServer for Nanochat {
    async fn initialize(&self, params: InitializeParams) -> Result<InitializeResult> {
        if let Some(process_id) = params.process_id {
            self.desk.watch(process_id);
        }
        let offered = params.capabilities.general.as_ref().and_then(|general| general.position_encodings.as_deref());
        let encoding = Encoding::negotiate(offered);
        let mut state = self.desk.state();
        state.encoding = encoding;
        state.setup.folders = folders(&params);
        drop(state);
        self.desk.configure(&params.initialization_options.unwrap_or_default());
        self.desk.load();
        Ok(InitializeResult {
            capabilities: capabilities(encoding),
            server_info: Some(ServerInfo {
                name: "nanochat".to_owned(),
                version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            }),
        })
    }

    async fn shutdown(&self) -> Result<()> {
        self.desk.is_shut_down.store(true, Ordering::Release);
        self.desk.worker.abandon_all();
        Ok(())
    }

    async fn did_open(&self, params: DidOpenTextDocumentParams) {
        let document = params.text_document;
        let mut state = self.desk.state();
        state.documents.open(&document.uri.0, document.version, &document.text);
        state.shown.remove(&document.uri.0);
        self.desk.worker.abandon(&document.uri.0);
        drop(state);
        self.desk.consider();
    }

    async fn did_change(&self, params: DidChangeTextDocumentParams) {
        let address = params.text_document.text_document_identifier.uri.0;
        let version = params.text_document.version;
        let mut state = self.desk.state();
        let encoding = state.encoding;
        let applied = state.documents.change(&address, version, &params.content_changes, encoding);
        self.desk.worker.abandon(&address);
        drop(state);
        if applied != Applied::Yes {
            tracing::warn!(?applied, version, "an edit was not applied");
        }
    }

    async fn did_save(&self, _: DidSaveTextDocumentParams) {
        let is_ready = self.desk.state().readiness == Readiness::Ready;
        // A manifest may have been mended, or there is new text to remember.
        if is_ready { self.desk.loader().remember() } else { self.desk.loader().reload() }
    }

    async fn did_close(&self, params: DidCloseTextDocumentParams) {
        let address = params.text_document.uri.0;
        let mut state = self.desk.state();
        state.documents.close(&address);
        state.shown.remove(&address);
        self.desk.worker.abandon(&address);
    }

    async fn did_change_configuration(&self, params: DidChangeConfigurationParams) {
        if self.desk.configure(&params.settings) {
            self.desk.load();
        }
    }

    async fn inline_completion(&self, params: InlineCompletionParams) -> Result<Option<InlineCompletionResponse>> {
        let item = match self.desk.ask(&params) {
            Asked::Nothing => None,
            Asked::Known(item) => Some(item),
            Asked::Waiting(mut waiting) => {
                let arrival = &mut waiting.arrival;
                let completion = match waiting.patience {
                    None => arrival.await,
                    Some(patience) => tokio::time::timeout(patience, arrival).await.unwrap_or(Ok(None)),
                };
                // An error is a question that was superseded.
                self.desk.show(&waiting, completion.unwrap_or_default())
            }
        };
        let items: Vec<InlineCompletionItem> = item.into_iter().collect();
        Ok(Some(items.into()))
    }

    async fn execute_command(&self, params: ExecuteCommandParams) -> Result<Option<LspAny>> {
        match params.command.as_str() {
            ACCEPTED => {
                let n_characters = params.arguments.and_then(|arguments| arguments.first()?.as_u64()).unwrap_or(0);
                let counts = &mut self.desk.state().counts;
                counts.accepted += 1;
                counts.accepted_characters = counts.accepted_characters.saturating_add(n_characters);
                Ok(None)
            }
            STATUS => Ok(Some(self.desk.status())),
            other => {
                Err(Error::invalid_params(format!("command `{other}` is not known; there are {ACCEPTED}, {STATUS}")))
            }
        }
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

/// The folders that the editor has open, by the newest of the protocol's three ways to say it.
#[expect(deprecated, reason = "older editors say it in the older ways")]
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
    // Another user's process cannot be signalled, but lives.
    !matches!(test_kill_process(process_id), Err(rustix::io::Errno::SRCH))
}

/// Without a way to ask, the end of the input is what tells.
#[cfg(not(unix))]
fn process_lives(_: i32) -> bool {
    true
}

#[cfg(test)]
mod tests;
