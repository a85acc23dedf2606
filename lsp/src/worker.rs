//! The thread that computes. A newer question about a document takes the place of the older one.
//!
//! ```text
//! submit → slot of the document (the older is cancelled) → Engine::complete → answer
//! ```
//!
//! Questions that come before there is an engine wait for it.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nanochat_engine::complete::CompleteError;
use nanochat_engine::{Cancel, Completion, Limits, Memory};
use tokio::sync::oneshot;

use crate::context::Query;

/// What answers questions. The server's is [`crate::local::Local`]; the protocol's tests bring their own.
pub(crate) trait Engine: Send {
    /// A completion, or `None` where silence is better.
    fn complete(
        &mut self,
        query: &Query,
        limits: &Limits,
        cancel: &Cancel,
    ) -> Result<Option<Completion>, CompleteError>;
    /// Replaces what it remembers of the workspace.
    fn set_memory(&mut self, memory: Arc<Memory>);
}

/// News for the worker from the loader.
pub(crate) enum Update {
    /// Answers from now on.
    Engine(Box<dyn Engine>),
    /// The workspace's text changed.
    Memory(Arc<Memory>),
}

/// One question.
pub(crate) struct Job {
    /// The document it is about.
    pub(crate) document: String,
    /// The question.
    pub(crate) query: Query,
    /// When to stop.
    pub(crate) limits: Limits,
    /// Set when nobody wants the answer any more.
    pub(crate) cancel: Cancel,
    /// Where the answer goes; dropped without one when the question is superseded.
    pub(crate) answer: oneshot::Sender<Option<Completion>>,
}

/// A handle on the thread. Clones share it.
#[derive(Clone)]
pub(crate) struct Worker(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    news: Condvar,
}

#[derive(Default)]
struct Queue {
    updates: VecDeque<Update>,
    /// Oldest first, at most one a document.
    jobs: Vec<Job>,
    /// The flag of the newest job of each document, waiting or running.
    latest: HashMap<String, Cancel>,
    is_closed: bool,
    /// Set by the next question.
    quiet: Option<Cancel>,
}

impl Worker {
    /// Starts the thread. `on_panic` is called on it when the engine panicked and was dropped.
    pub(crate) fn spawn(on_panic: impl Fn() + Send + 'static) -> Self {
        let shared = Arc::new(Shared { queue: Mutex::default(), news: Condvar::new() });
        let worker = Self(Arc::clone(&shared));
        std::thread::Builder::new()
            .name("nanochat-worker".to_owned())
            .spawn(move || run(&shared, &on_panic))
            .expect("the system gives one thread");
        worker
    }

    /// Asks a question, and forgets the one before about the same document.
    pub(crate) fn submit(&self, job: Job) {
        let mut queue = self.0.lock();
        queue.disturb();
        if let Some(older) = queue.latest.insert(job.document.clone(), job.cancel.clone()) {
            older.cancel();
        }
        queue.jobs.retain(|waiting| waiting.document != job.document);
        queue.jobs.push(job);
        self.0.news.notify_one();
    }

    /// Forgets what was asked about a document.
    pub(crate) fn abandon(&self, document: &str) {
        let mut queue = self.0.lock();
        if let Some(cancel) = queue.latest.remove(document) {
            cancel.cancel();
        }
        queue.jobs.retain(|waiting| waiting.document != document);
    }

    /// Forgets everything that was asked.
    pub(crate) fn abandon_all(&self) {
        let mut queue = self.0.lock();
        queue.latest.drain().for_each(|(_, cancel)| cancel.cancel());
        queue.jobs.clear();
    }

    /// Brings news; it is taken in before the next question.
    pub(crate) fn update(&self, update: Update) {
        self.0.lock().updates.push_back(update);
        self.0.news.notify_one();
    }

    /// Ends the thread after the question it is at.
    pub(crate) fn close(&self) {
        self.abandon_all();
        let mut queue = self.0.lock();
        queue.disturb();
        queue.is_closed = true;
        self.0.news.notify_one();
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.lock().is_closed
    }

    /// A flag that the next question sets, and closing.
    pub(crate) fn until_asked(&self) -> Cancel {
        self.0.lock().quiet.insert(Cancel::new()).clone()
    }
}

impl Queue {
    fn disturb(&mut self) {
        if let Some(quiet) = self.quiet.take() {
            quiet.cancel();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while the lock is held, and each field is whole at any time.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do next; `None` once closed. Of several documents, the one asked about last is where the user is.
    fn next(&self, has_engine: bool) -> Option<Next> {
        let mut queue = self.lock();
        loop {
            if queue.is_closed {
                return None;
            }
            if let Some(update) = queue.updates.pop_front() {
                return Some(Next::Update(update));
            }
            if has_engine && let Some(job) = queue.jobs.pop() {
                return Some(Next::Job(job));
            }
            queue = self.news.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

enum Next {
    Update(Update),
    Job(Job),
}

fn run(shared: &Shared, on_panic: &impl Fn()) {
    let mut engine: Option<Box<dyn Engine>> = None;
    while let Some(next) = shared.next(engine.is_some()) {
        let done = catch_unwind(AssertUnwindSafe(|| match next {
            Next::Update(Update::Engine(new)) => engine = Some(new),
            Next::Update(Update::Memory(memory)) => {
                if let Some(engine) = &mut engine {
                    engine.set_memory(memory);
                }
            }
            Next::Job(job) => {
                if let Some(engine) = &mut engine {
                    answer(job, engine.as_mut());
                }
            }
        }));
        if done.is_err() {
            // Its caches may be half written; a fresh one is asked for.
            engine = None;
            on_panic();
        }
    }
}

fn answer(job: Job, engine: &mut dyn Engine) {
    let started = Instant::now();
    if job.cancel.is_cancelled() {
        return;
    }
    let completion = match engine.complete(&job.query, &job.limits, &job.cancel) {
        Ok(completion) => completion,
        Err(error) => {
            tracing::debug!(%error, "no answer");
            None
        }
    };
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    if let Some(Completion { n_reused, n_prompt, n_generated, confidence, .. }) = completion {
        tracing::debug!(n_reused, n_prompt, n_generated, confidence, milliseconds, "answered");
    }
    // Whoever asked may be gone; then nobody minds.
    let _ = job.answer.send(completion);
}
