//! The thread that reads workspace, checkpoint and memory while the server already answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};

use nanochat_engine::Memory;

use crate::settings::Settings;
use crate::tuner::{Tuner, Tuning};
use crate::worker::{Engine, Update, Worker};

/// What there is to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    /// Folders that may lie in a workspace; the first that does is taken.
    pub(crate) folders: Vec<PathBuf>,
    /// The editor's settings.
    pub(crate) settings: Settings,
}

/// Reads engines. The server's is [`crate::local::LocalSource`].
pub(crate) trait Source: Send + 'static {
    /// A fresh engine, or why there is none.
    fn load(&mut self, setup: &Setup) -> Result<Box<dyn Engine>, Silence>;
    /// Whether `load` would read another checkpoint than the last time. Cheap.
    fn has_changed(&mut self) -> bool;
    /// What the last engine computes, where it can be tuned to the machine.
    fn tuning(&self) -> Option<Tuning>;
    /// What the workspace's files say now; `None` before there is an engine.
    fn memory(&mut self) -> Option<Arc<Memory>>;
}

/// Why nothing is suggested, for the user to read; ends with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Silence {
    /// No folder is in a cargo workspace.
    #[error("{0}")]
    NoWorkspace(String),
    /// The engine failed too often; nothing starts it again.
    #[error("the engine failed again and again and is off; restart the language server to try once more")]
    Off,
    /// Anything else: no checkpoint, one that cannot be used, loading that failed.
    #[error("{0}")]
    Other(String),
}

/// Whether questions are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Not yet.
    Loading,
    /// Yes.
    Ready,
    /// No.
    Silent(Silence),
}

/// A wish of the server.
enum Wish {
    Load(Setup),
    Reload,
    Check,
    Remember,
    Stop,
}

/// A handle on the thread, which ends with the last of its clones.
#[derive(Clone)]
pub(crate) struct Loader(Arc<Sender<Wish>>);

impl Loader {
    /// Starts the thread. It gives engines to `worker`, and `tell` hears of each change of readiness.
    pub(crate) fn spawn(source: impl Source, worker: Worker, tell: impl Fn(Readiness) + Send + 'static) -> Self {
        let (wishes, inbox) = channel();
        let wishes = Arc::new(wishes);
        let reload = Arc::downgrade(&wishes);
        std::thread::Builder::new()
            .name("nanochat-loader".to_owned())
            .spawn(move || run(source, &inbox, &worker, &tell, &reload))
            .expect("the system gives one thread");
        Self(wishes)
    }

    /// Reads everything anew.
    pub(crate) fn load(&self, setup: Setup) {
        self.wish(Wish::Load(setup));
    }
    /// Reads everything anew, as set up before.
    pub(crate) fn reload(&self) {
        self.wish(Wish::Reload);
    }
    /// Reads the checkpoint anew if its file changed.
    pub(crate) fn check(&self) {
        self.wish(Wish::Check);
    }
    /// Reads the workspace's files anew.
    pub(crate) fn remember(&self) {
        self.wish(Wish::Remember);
    }

    /// Ends the thread; wishes after this one are not met.
    pub(crate) fn stop(&self) {
        self.wish(Wish::Stop);
    }

    fn wish(&self, wish: Wish) {
        // The thread catches panics and outlives this handle, unless it was stopped.
        let _ = self.0.send(wish);
    }
}

fn run(
    mut source: impl Source,
    inbox: &Receiver<Wish>,
    worker: &Worker,
    tell: &impl Fn(Readiness),
    wishes: &Weak<Sender<Wish>>,
) {
    let mut setup = None;
    let tuner = Tuner::default();
    while let Ok(first) = inbox.recv() {
        // Wishes that came in the meantime are met together.
        let (mut load, mut check, mut remember) = (false, false, false);
        for wish in std::iter::once(first).chain(inbox.try_iter()) {
            match wish {
                Wish::Load(new) => (setup, load) = (Some(new), true),
                Wish::Reload => load = true,
                Wish::Check => check = true,
                Wish::Remember => remember = true,
                Wish::Stop => return,
            }
        }
        let Some(setup) = &setup else { continue };
        let done = catch_unwind(AssertUnwindSafe(|| {
            if load || (check && source.has_changed()) {
                tell(match source.load(setup) {
                    Ok(engine) => {
                        worker.update(Update::Engine(engine));
                        if let Some(tuning) = source.tuning() {
                            let wishes = wishes.clone();
                            tuner.loaded(tuning, worker, move || {
                                // The loader may have been stopped meanwhile.
                                let _ = wishes.upgrade().map(|wishes| wishes.send(Wish::Reload));
                            });
                        }
                        Readiness::Ready
                    }
                    Err(silence) => Readiness::Silent(silence),
                });
            } else if remember && let Some(memory) = source.memory() {
                worker.update(Update::Memory(memory));
            }
        }));
        if done.is_err() {
            let failed = "loading failed inside nanochat; its log on stderr says where".to_owned();
            tell(Readiness::Silent(Silence::Other(failed)));
        }
    }
}
