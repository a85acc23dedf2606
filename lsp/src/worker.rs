//! The thread that runs the engine. A newer request for a document replaces the older one.
//!
//! ```text
//! submit → the document's slot (the older job is cancelled) → Engine::complete → answer
//! ```
//!
//! Jobs that arrive before there is an engine wait for it.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nanochat_engine::complete::CompleteError;
use nanochat_engine::{Cancel, Completion, Limits, Memory};
use tokio::sync::oneshot;

use crate::context::Query;

/// Computes completions. The server's is [`crate::completion::engine::WorkspaceEngine`]; the protocol's tests bring
/// their own.
pub(crate) trait Engine: Send {
    /// A completion, or `None` where it is better to suggest nothing.
    fn complete(
        &mut self,
        query: &Query,
        limits: &Limits,
        cancel: &Cancel,
    ) -> Result<Option<Completion>, CompleteError>;
    /// Replaces the memory of the workspace's files.
    fn set_memory(&mut self, memory: Arc<Memory>);
}

/// What the loader changes in the worker.
pub(crate) enum Update {
    /// A new engine, for this job and all later ones.
    Engine(Box<dyn Engine>),
    /// A new memory of the workspace's files, for the engine that is there.
    Memory(Arc<Memory>),
}

/// One request for a completion.
pub(crate) struct Job {
    /// The URI of its document.
    pub(crate) document: String,
    /// What the engine may look at.
    pub(crate) query: Query,
    /// How long the completion may get.
    pub(crate) limits: Limits,
    /// Set when the answer is no longer wanted.
    pub(crate) cancel: Cancel,
    /// Where the answer goes; dropped without one when the job is superseded.
    pub(crate) answer: oneshot::Sender<Option<Completion>>,
}

/// A handle on the thread; its clones share the thread.
#[derive(Clone)]
pub(crate) struct Worker(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    updates: VecDeque<Update>,
    /// Oldest first, at most one per document.
    jobs: Vec<Job>,
    /// The flag of the newest job of each document, waiting or running.
    latest: HashMap<String, Cancel>,
    is_closed: bool,
    /// Set by the next job, for whoever works only while there is none.
    idle: Option<Cancel>,
}

impl Worker {
    /// Starts the thread, which calls `on_panic` after the engine has panicked and was dropped.
    pub(crate) fn spawn(on_panic: impl Fn() + Send + 'static) -> Self {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new() });
        let worker = Self(Arc::clone(&shared));
        std::thread::Builder::new()
            .name("nanochat-worker".to_owned())
            .spawn(move || run(&shared, &on_panic))
            .expect("the system can start one thread");
        worker
    }

    /// Queues a job, and cancels the one before it for the same document.
    pub(crate) fn submit(&self, job: Job) {
        let mut queue = self.0.lock();
        queue.end_idle();
        if let Some(older) = queue.latest.insert(job.document.clone(), job.cancel.clone()) {
            older.cancel();
        }
        queue.jobs.retain(|waiting| waiting.document != job.document);
        queue.jobs.push(job);
        self.0.changed.notify_one();
    }

    /// Cancels the job for a document, if there is one.
    pub(crate) fn abandon(&self, document: &str) {
        let mut queue = self.0.lock();
        if let Some(cancel) = queue.latest.remove(document) {
            cancel.cancel();
        }
        queue.jobs.retain(|waiting| waiting.document != document);
    }

    /// Cancels all jobs.
    pub(crate) fn abandon_all(&self) {
        let mut queue = self.0.lock();
        queue.latest.drain().for_each(|(_, cancel)| cancel.cancel());
        queue.jobs.clear();
    }

    /// Applies an update before the next job.
    pub(crate) fn update(&self, update: Update) {
        self.0.lock().updates.push_back(update);
        self.0.changed.notify_one();
    }

    /// Ends the thread after the job that it is running.
    pub(crate) fn close(&self) {
        self.abandon_all();
        let mut queue = self.0.lock();
        queue.end_idle();
        queue.is_closed = true;
        self.0.changed.notify_one();
    }

    /// Whether [`Worker::close`] was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.lock().is_closed
    }

    /// A flag that the next job sets, and so does closing.
    pub(crate) fn cancelled_by_next_job(&self) -> Cancel {
        self.0.lock().idle.insert(Cancel::new()).clone()
    }
}

impl Queue {
    fn end_idle(&mut self) {
        if let Some(idle) = self.idle.take() {
            idle.cancel();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while the lock is held, and each field is whole at any time.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do next; `None` once closed. Of several documents, the one with the newest job is where the user is.
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
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
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
            // Its caches may be half written; the state has a fresh one loaded.
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
            tracing::debug!(%error, "no completion");
            None
        }
    };
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    if let Some(Completion { n_reused, n_prompt, n_generated, confidence, .. }) = completion {
        tracing::debug!(n_reused, n_prompt, n_generated, confidence, milliseconds, "answered");
    }
    // The request may have been dropped; then nobody reads the answer.
    let _ = job.answer.send(completion);
}
