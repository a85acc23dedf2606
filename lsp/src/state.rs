//! What the requests and notifications share: the documents, the settings, the threads, and the messages to the user.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use lsp_types::MessageType;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tower_lsp::Client;

use crate::completion::ghost::Shown;
use crate::documents::{Documents, Encoding};
use crate::loader::{EngineSource, Loader, Readiness, Setup, SilenceReason};
use crate::settings::Settings;
use crate::worker::Worker;

/// Engine panics after which it is not restarted.
const MAX_PANICS: u32 = 3;

/// The state of one server. Each request holds it by reference; only what [`ServerState::lock`] guards changes often.
pub(crate) struct ServerState {
    editor: Mutex<EditorState>,
    worker: Worker,
    loader: OnceLock<Loader>,
    notices: UnboundedSender<Notice>,
    /// The id of the process that is watched; 0 is none.
    pub(crate) editor_process: AtomicI32,
    /// Whether the editor sent `shutdown`.
    pub(crate) is_shut_down: AtomicBool,
}

/// What the editor has sent to the server, and what the server has shown.
pub(crate) struct EditorState {
    /// The open documents.
    pub(crate) documents: Documents,
    /// What the columns of positions count, as agreed in `initialize`.
    pub(crate) encoding: Encoding,
    /// The folders and settings that the next load uses.
    pub(crate) setup: Setup,
    /// Whether there is an engine.
    pub(crate) readiness: Readiness,
    /// The last suggestion in each document, by URI.
    pub(crate) shown: HashMap<String, Shown>,
    /// Usage since the server was started.
    pub(crate) counters: Counters,
}

/// Usage counters. They stay on this machine and only the user sees them, as the field `counts` of the status.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Counters {
    /// Requests for a completion.
    pub(crate) requests: u64,
    /// Requests answered with a suggestion.
    pub(crate) shown: u64,
    /// Suggestions whose confidence was too low to show them.
    pub(crate) withheld: u64,
    /// Requests answered with the rest of the shown suggestion, whose start the user had typed; part of `shown`.
    pub(crate) typed_through: u64,
    /// Suggestions accepted.
    pub(crate) accepted: u64,
    /// Characters of the accepted suggestions.
    pub(crate) accepted_characters: u64,
}

/// A message to the user.
pub(crate) struct Notice {
    kind: MessageType,
    text: String,
    /// Whether it pops up, rather than only being logged.
    is_prominent: bool,
}

/// Passes each distinct notice on to the client once.
pub(crate) async fn forward_notices(client: Client, mut notices: UnboundedReceiver<Notice>) {
    let mut sent = HashSet::new();
    while let Some(Notice { kind, text, is_prominent }) = notices.recv().await {
        if !sent.insert(text.clone()) {
            continue;
        }
        if is_prominent {
            client.show_message(kind, format!("nanochat: {text}")).await;
        } else {
            client.log_message(kind, text).await;
        }
    }
}

impl ServerState {
    /// Starts the worker and the loader. The receiver's notices are for [`forward_notices`].
    pub(crate) fn new(source: impl EngineSource) -> (Arc<Self>, UnboundedReceiver<Notice>) {
        let (notices, inbox) = unbounded_channel();
        let server = Arc::new_cyclic(|server: &Weak<Self>| {
            let server = server.clone();
            let n_panics = AtomicU32::new(0);
            let on_panic = move || {
                if let Some(server) = server.upgrade() {
                    server.engine_panicked(n_panics.fetch_add(1, Ordering::Relaxed) + 1);
                }
            };
            let editor = EditorState {
                documents: Documents::default(),
                encoding: Encoding::Utf16,
                setup: Setup::default(),
                readiness: Readiness::Loading,
                shown: HashMap::new(),
                counters: Counters::default(),
            };
            Self {
                editor: Mutex::new(editor),
                worker: Worker::spawn(on_panic),
                loader: OnceLock::new(),
                notices,
                editor_process: AtomicI32::new(0),
                is_shut_down: AtomicBool::new(false),
            }
        });
        let weak = Arc::downgrade(&server);
        let on_readiness = move |readiness| {
            if let Some(server) = weak.upgrade() {
                server.set_readiness(readiness);
            }
        };
        let loader = Loader::spawn(source, server.worker.clone(), on_readiness);
        server.loader.set(loader).unwrap_or_else(|_| unreachable!("it is set here only"));
        (server, inbox)
    }

    /// The thread that runs the engine.
    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// The thread that loads engines.
    pub(crate) fn loader(&self) -> &Loader {
        self.loader.get().expect("`new` sets it before it returns the state")
    }

    /// Exclusive access to what the notifications change. Never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, EditorState> {
        // Each method leaves the state whole, even when one panics between two changes.
        self.editor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the user a message that pops up if `is_prominent`, and that is logged otherwise.
    pub(crate) fn notify(&self, kind: MessageType, text: impl Into<String>, is_prominent: bool) {
        // The receiver lives as long as the server does.
        let _ = self.notices.send(Notice { kind, text: text.into(), is_prominent });
    }

    /// Takes in settings. Returns whether one that decides what is loaded has changed.
    pub(crate) fn configure(&self, value: &Value) -> bool {
        let mut state = self.lock();
        let before = state.setup.settings.clone();
        let (settings, complaints) = before.updated(value);
        state.setup.settings = settings.clone();
        drop(state);
        for complaint in complaints {
            self.notify(MessageType::Warning, complaint, false);
        }
        let Settings { trusted, dependencies, threads, cache_megabytes, data_dir, .. } = &before;
        settings.trusted != *trusted
            || settings.dependencies != *dependencies
            || settings.threads != *threads
            || settings.cache_megabytes != *cache_megabytes
            || settings.data_dir != *data_dir
    }

    /// Loads everything again, once there is a folder to look in.
    pub(crate) fn load(&self) {
        let setup = self.lock().setup.clone();
        if !setup.folders.is_empty() {
            self.loader().load(setup);
        }
    }

    /// Adds the folders of the open files where none of the editor's folders is in a workspace. Returns whether that
    /// gave the loader something new to read.
    pub(crate) fn adopt_folders_of_open_files(&self) -> bool {
        let mut state = self.lock();
        let EditorState { documents, setup, readiness, .. } = &mut *state;
        let has_no_workspace = matches!(readiness, Readiness::Silent(SilenceReason::NoWorkspace(_)));
        let mut folders =
            if setup.folders.is_empty() || has_no_workspace { documents.folders() } else { BTreeSet::new() };
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

    fn set_readiness(&self, readiness: Readiness) {
        let mut state = self.lock();
        if state.readiness == Readiness::Silent(SilenceReason::Off) {
            return;
        }
        state.readiness = readiness.clone();
        drop(state);
        if self.adopt_folders_of_open_files() {
            return;
        }
        match &readiness {
            Readiness::Loading => {}
            Readiness::Ready => self.notify(MessageType::Info, "ready", false),
            Readiness::Silent(reason) => {
                // Requests that waited for the load are answered with nothing.
                self.worker.abandon_all();
                self.notify(MessageType::Warning, reason.to_string(), true);
            }
        }
    }

    fn engine_panicked(&self, n_panics: u32) {
        if n_panics < MAX_PANICS {
            let text = "the engine crashed and is being restarted; the server's log on stderr has the location";
            self.notify(MessageType::Error, text, false);
            self.set_readiness(Readiness::Loading);
            self.loader().reload();
        } else {
            self.set_readiness(Readiness::Silent(SilenceReason::Off));
            self.loader().stop();
        }
    }
}
