//! The thread that reads workspace, checkpoint and memory while the server already answers.
//!
//! ```text
//! LoaderCommand → EngineSource::load → engine → worker; readiness → state
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};

use nanochat_engine::Memory;

use crate::settings::Settings;
use crate::tuner::{Tuner, Tuning};
use crate::worker::{Engine, Update, Worker};

/// What decides which engine is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    /// Folders that may be in a workspace; the first that is in one is used.
    pub(crate) folders: Vec<PathBuf>,
    /// The editor's settings.
    pub(crate) settings: Settings,
}

/// Loads engines. The server's is [`crate::completion::source::WorkspaceSource`]; the protocol's tests bring their own.
pub(crate) trait EngineSource: Send + 'static {
    /// A fresh engine, or why there is none.
    fn load(&mut self, setup: &Setup) -> Result<Box<dyn Engine>, SilenceReason>;
    /// Whether `load` would read another checkpoint than the last time. Cheap enough for each request.
    fn has_changed(&mut self) -> bool;
    /// What the last engine computes, where it can be tuned to the machine.
    fn tuning(&self) -> Option<Tuning>;
    /// A memory of the workspace's files as they are now; `None` before there is an engine.
    fn memory(&mut self) -> Option<Arc<Memory>>;
}

/// Why nothing is suggested, as the user reads it; ends with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SilenceReason {
    /// No folder is in a cargo workspace.
    #[error("{0}")]
    NoWorkspace(String),
    /// The engine panicked too often; it is not restarted.
    #[error("the engine crashed repeatedly and is off; restart the language server to try again")]
    Off,
    /// Anything else: no checkpoint, one that cannot be used, loading that failed.
    #[error("{0}")]
    Other(String),
}

/// Whether requests are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Not yet: an engine is being loaded.
    Loading,
    /// The worker has an engine.
    Ready,
    /// With nothing, for this reason.
    Silent(SilenceReason),
}

/// What the server asks the loader to do.
enum LoaderCommand {
    /// Load an engine for this setup.
    Load(Setup),
    /// Load an engine for the last setup.
    Reload,
    /// Reload if the checkpoint's file has changed.
    ReloadIfChanged,
    /// Give the engine a memory of the workspace's files as they are now.
    RefreshMemory,
    /// End the thread.
    Stop,
}

/// A handle on the thread, which ends with the last of its clones.
#[derive(Clone)]
pub(crate) struct Loader(Arc<Sender<LoaderCommand>>);

impl Loader {
    /// Starts the thread. It gives engines to `worker`, and calls `on_readiness` after each load.
    pub(crate) fn spawn(
        source: impl EngineSource,
        worker: Worker,
        on_readiness: impl Fn(Readiness) + Send + 'static,
    ) -> Self {
        let (commands, inbox) = channel();
        let commands = Arc::new(commands);
        let weak = Arc::downgrade(&commands);
        std::thread::Builder::new()
            .name("nanochat-loader".to_owned())
            .spawn(move || run(source, &inbox, &worker, &on_readiness, &weak))
            .expect("the system can start one thread");
        Self(commands)
    }

    /// Loads everything for a new setup.
    pub(crate) fn load(&self, setup: Setup) {
        self.send(LoaderCommand::Load(setup));
    }
    /// Loads everything again for the last setup.
    pub(crate) fn reload(&self) {
        self.send(LoaderCommand::Reload);
    }
    /// Loads everything again if the checkpoint's file has changed.
    pub(crate) fn reload_if_changed(&self) {
        self.send(LoaderCommand::ReloadIfChanged);
    }
    /// Reads the workspace's files again into the engine's memory.
    pub(crate) fn refresh_memory(&self) {
        self.send(LoaderCommand::RefreshMemory);
    }

    /// Ends the thread; it ignores later commands.
    pub(crate) fn stop(&self) {
        self.send(LoaderCommand::Stop);
    }

    fn send(&self, command: LoaderCommand) {
        // The thread catches panics and outlives this handle, unless it was stopped.
        let _ = self.0.send(command);
    }
}

fn run(
    mut source: impl EngineSource,
    inbox: &Receiver<LoaderCommand>,
    worker: &Worker,
    on_readiness: &impl Fn(Readiness),
    commands: &Weak<Sender<LoaderCommand>>,
) {
    let mut setup = None;
    let tuner = Tuner::default();
    while let Ok(first) = inbox.recv() {
        // Commands that arrived during the last one are carried out together.
        let (mut load, mut check, mut refresh) = (false, false, false);
        for command in std::iter::once(first).chain(inbox.try_iter()) {
            match command {
                LoaderCommand::Load(new) => (setup, load) = (Some(new), true),
                LoaderCommand::Reload => load = true,
                LoaderCommand::ReloadIfChanged => check = true,
                LoaderCommand::RefreshMemory => refresh = true,
                LoaderCommand::Stop => return,
            }
        }
        let Some(setup) = &setup else { continue };
        let done = catch_unwind(AssertUnwindSafe(|| {
            if load || (check && source.has_changed()) {
                on_readiness(match source.load(setup) {
                    Ok(engine) => {
                        worker.update(Update::Engine(engine));
                        if let Some(tuning) = source.tuning() {
                            let commands = commands.clone();
                            tuner.loaded(tuning, worker, move || {
                                // The loader may have been stopped meanwhile.
                                let _ = commands.upgrade().map(|commands| commands.send(LoaderCommand::Reload));
                            });
                        }
                        Readiness::Ready
                    }
                    Err(reason) => Readiness::Silent(reason),
                });
            } else if refresh && let Some(memory) = source.memory() {
                worker.update(Update::Memory(memory));
            }
        }));
        if done.is_err() {
            let text = "loading crashed; the server's log on stderr has the location".to_owned();
            on_readiness(Readiness::Silent(SilenceReason::Other(text)));
        }
    }
}
