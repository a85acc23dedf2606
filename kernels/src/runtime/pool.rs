//! Persistent workers that share one job at a time.
//!
//! ```text
//! caller:  publish job, open the latch → claim pieces until none is left → close the latch → wait for those inside
//! worker:  spin on the latch → enter → claim pieces until none is left → leave;   idle for long: park
//! ```
//!
//! Pieces are claimed one by one, so a worker that the system has descheduled costs the pieces it holds and nothing
//! else: one that never entered is not waited for. Workers spin between the jobs of a request and park between
//! requests; [`Pool::announce`] wakes them early. Which thread computes a piece never shows in the result.
//!
//! Deviations: a job too small to be worth a hand-off is not shared, and one too small to be worth a wake-up is shared
//! with those who are awake. When a worker is descheduled while it holds a piece, the caller works alone for a while
//! (`degrade`). Where a machine has several memory nodes, pieces are cut into one run per node, and each thread
//! claims those of its own node first.

mod degrade;
mod latch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::runtime::numa::Topology;
use degrade::Degrade;
use latch::{JobCell, Latch};

/// How long an idle worker spins before it parks. Jobs within a request are less than this apart; keystrokes more.
const SPIN: Duration = Duration::from_micros(200);
/// As [`SPIN`], from an announcement to the first job: the prompt is assembled in between.
const SPIN_ANNOUNCED: Duration = Duration::from_millis(2);
/// Spins of an idle worker between two yields of its processor: about 10 µs, seldom reached within a request.
const YIELD_EVERY: u32 = 1024;
/// Work below this, in ns, is not shared: a hand-off with its two cache-line transfers costs about half as much.
const ALONE_NS: u64 = 1_000;
/// Work, in ns, that accumulates before parked workers are woken. Measured: waking one takes 18 to 34 µs.
const WAKE_NS: u64 = 50_000;

/// Worker threads that live as long as the pool.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    handles: Vec<JoinHandle<()>>,
}

/// A value alone on a pair of cache lines: a thread that spins on one value must not slow down writes to another.
#[derive(Debug, Default)]
#[repr(align(128))]
struct LinePair<T>(T);

#[derive(Debug)]
struct Shared {
    latch: LinePair<Latch>,
    /// The index of the next unclaimed piece in each memory node's run.
    next: Vec<LinePair<AtomicUsize>>,
    job: JobCell,
    /// Held by the caller whose job is shared.
    busy: LinePair<AtomicBool>,
    degrade: Degrade,
    /// Work, in ns, done since the last wake-up while at least one worker was parked.
    unwoken_ns: AtomicU64,
    panicked: AtomicBool,
    sleep: LinePair<Sleep>,
    topology: Topology,
    n_bound: AtomicUsize,
}

#[derive(Debug)]
struct Sleep {
    n_parked: AtomicUsize,
    parked: Vec<AtomicBool>,
    /// The number of announcements so far: a change tells a worker to keep spinning.
    announced: AtomicU32,
    quit: AtomicBool,
}

impl Pool {
    /// `n_threads` threads, the caller's own included; 0: one for each core. Where the machine has several memory
    /// nodes, the workers are spread over them and each stays on its own.
    pub fn new(n_threads: usize) -> Self {
        Self::on(n_threads, Topology::machine())
    }

    /// As [`Pool::new`], on a machine with this topology.
    pub fn on(n_threads: usize, topology: &Topology) -> Self {
        let n_threads =
            if n_threads == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { n_threads };
        let n_threads = n_threads.min(256);
        let shared = Arc::new(Shared {
            latch: LinePair::default(),
            next: (0..topology.n_nodes()).map(|_| LinePair::default()).collect(),
            job: JobCell::default(),
            busy: LinePair::default(),
            degrade: Degrade::default(),
            unwoken_ns: AtomicU64::new(0),
            panicked: AtomicBool::new(false),
            sleep: LinePair(Sleep {
                n_parked: AtomicUsize::new(0),
                parked: (1..n_threads).map(|_| AtomicBool::new(false)).collect(),
                announced: AtomicU32::new(0),
                quit: AtomicBool::new(false),
            }),
            topology: topology.clone(),
            n_bound: AtomicUsize::new(0),
        });
        let handles: Vec<_> = (1..n_threads)
            .map_while(|thread_idx| {
                let shared = Arc::clone(&shared);
                // Thread 0 is the caller. A pool with fewer workers than asked for is slower, not wrong.
                let node = topology.node_of_part(thread_idx, n_threads);
                std::thread::Builder::new()
                    .name(format!("nanochat-{thread_idx}"))
                    .spawn(move || shared.work(thread_idx - 1, node))
                    .ok()
            })
            .collect();
        let threads = handles.iter().map(|handle| handle.thread().clone()).collect();
        Self { shared, threads, handles }
    }

    /// Threads that share a job, the caller's included.
    pub fn n_threads(&self) -> usize {
        self.handles.len() + 1
    }

    /// Wakes parked workers and keeps all spinning for 2 ms, so that they are ready when the first job arrives.
    pub fn announce(&self) {
        if !self.shared.degrade.is_paused() {
            self.shared.sleep.0.announced.fetch_add(1, Ordering::Relaxed);
            self.wake();
        }
    }

    /// Whether the caller currently runs jobs alone because the machine is busy.
    pub(crate) fn is_degraded(&self) -> bool {
        self.shared.degrade.is_paused()
    }

    fn wake(&self) {
        let sleep = &self.shared.sleep.0;
        if sleep.n_parked.load(Ordering::SeqCst) == 0 {
            return;
        }
        for (parked, thread) in sleep.parked.iter().zip(&self.threads) {
            if parked.load(Ordering::SeqCst) {
                thread.unpark();
            }
        }
    }

    /// Calls `piece(i)` once for each `i` in `0..n_pieces`, on whichever thread claims it first, and returns when all
    /// are done. A call from within a piece, or from a second thread at the same time, runs on its own thread alone.
    ///
    /// # Panics
    /// If a piece panics.
    pub fn for_each(&self, n_pieces: usize, piece: impl Fn(usize) + Sync) {
        self.share(n_pieces, WAKE_NS, piece);
    }

    /// As [`Pool::for_each`], for work that would take one thread about `work_ns`: very small jobs are not shared, and
    /// small ones only with workers that are awake. A wrong estimate costs time and nothing else.
    ///
    /// # Panics
    /// If a piece panics.
    pub fn share(&self, n_pieces: usize, work_ns: u64, piece: impl Fn(usize) + Sync) {
        let shared = &*self.shared;
        let alone = n_pieces <= 1
            || self.handles.is_empty()
            || work_ns < ALONE_NS
            || shared.degrade.is_alone()
            || shared.busy.0.swap(true, Ordering::Acquire);
        if alone {
            (0..n_pieces).for_each(piece);
            return;
        }
        for (node, next) in shared.next.iter().enumerate() {
            next.0.store(shared.topology.part(node, n_pieces).start, Ordering::Relaxed);
        }
        shared.panicked.store(false, Ordering::Relaxed);
        // SAFETY: `busy` is ours, so the latch is closed and nobody is inside. `JobGuard` below does not let this
        // function end, by return or by panic, before the latch is closed and empty again, so `piece` outlives its use.
        unsafe { shared.job.set(&piece, n_pieces) };
        shared.latch.0.open();
        let mut guard = JobGuard { shared, n_own: 0, started: degrade::ticks(), panicked: false };
        let is_awake = shared.sleep.0.n_parked.load(Ordering::SeqCst) == 0;
        if !is_awake && shared.unwoken_ns.fetch_add(work_ns, Ordering::Relaxed).saturating_add(work_ns) >= WAKE_NS {
            shared.unwoken_ns.store(0, Ordering::Relaxed);
            self.wake();
        }
        guard.n_own = shared.claim(shared.topology.current_node(), n_pieces, &piece);
        guard.finish();
        if guard.n_own < n_pieces {
            shared.degrade.note_help();
        } else if is_awake {
            shared.degrade.note_no_help();
        }
        let panicked = guard.panicked;
        std::mem::forget(guard);
        assert!(!panicked, "a worker panicked");
    }

    /// Workers that bound themselves to a memory node.
    #[cfg(test)]
    fn n_bound(&self) -> usize {
        self.shared.n_bound.load(Ordering::SeqCst)
    }
}

/// Closes the latch, waits until it is empty, notes whether a worker panicked and releases the pool.
struct JobGuard<'a> {
    shared: &'a Shared,
    n_own: usize,
    started: u64,
    panicked: bool,
}

impl JobGuard<'_> {
    fn finish(&mut self) {
        let shared = self.shared;
        for next in &shared.next {
            next.0.store(usize::MAX / 2, Ordering::Relaxed);
        }
        if !shared.latch.0.close() {
            let waiting = degrade::ticks();
            shared.latch.0.wait_until_empty();
            // The time-stamp counters of two processors may differ a little.
            let (own, waited) = (waiting.saturating_sub(self.started), degrade::ticks().saturating_sub(waiting));
            shared.degrade.record_wait(self.n_own, own, waited);
        }
        // Before the pool is released: the next job clears it.
        self.panicked = shared.panicked.load(Ordering::Relaxed);
        shared.busy.0.store(false, Ordering::Release);
    }
}

impl Drop for JobGuard<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.sleep.0.quit.store(true, Ordering::SeqCst);
        for handle in self.handles.drain(..) {
            handle.thread().unpark();
            // A worker catches panics, so joining cannot fail.
            let _ = handle.join();
        }
    }
}

impl Shared {
    fn work(&self, worker_idx: usize, node: usize) {
        if self.topology.bind(node) {
            self.n_bound.fetch_add(1, Ordering::SeqCst);
        }
        let sleep = &self.sleep.0;
        let mut seen = 0;
        let mut announced = sleep.announced.load(Ordering::Relaxed);
        let (mut idle_since, mut patience, mut n_spins) = (Instant::now(), SPIN, 0u32);
        loop {
            if let Some(epoch) = self.latch.0.enter(seen) {
                seen = epoch;
                self.help(node);
                self.latch.0.leave();
                (idle_since, patience, n_spins) = (Instant::now(), SPIN, 0);
                continue;
            }
            n_spins = n_spins.wrapping_add(1);
            if n_spins.is_multiple_of(YIELD_EVERY) {
                // On a fully loaded machine, the thread that waits for this processor may be the caller.
                std::thread::yield_now();
            }
            if n_spins.is_multiple_of(64) {
                if sleep.quit.load(Ordering::Relaxed) {
                    return;
                }
                let latest = sleep.announced.load(Ordering::Relaxed);
                if latest != announced {
                    (announced, idle_since, patience) = (latest, Instant::now(), SPIN_ANNOUNCED);
                } else if self.degrade.is_paused() || (n_spins.is_multiple_of(256) && idle_since.elapsed() > patience) {
                    self.park(worker_idx, seen);
                    (idle_since, patience) = (Instant::now(), SPIN);
                }
            }
            std::hint::spin_loop();
        }
    }

    fn help(&self, node: usize) {
        // SAFETY: this worker is inside the latch.
        let Some(job) = (unsafe { self.job.get() }) else { return };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // SAFETY: the caller keeps the closure alive while a worker is inside the latch.
            self.claim(node, job.n_pieces, |piece_idx| unsafe { job.call(piece_idx) });
        }));
        if outcome.is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
    }

    /// Claims and runs pieces until none is left, those of memory node `home` first. Returns how many it ran.
    fn claim(&self, home: usize, n_pieces: usize, piece: impl Fn(usize)) -> usize {
        let n_nodes = self.next.len();
        let mut n_own = 0;
        for step in 0..n_nodes {
            let node = (home + step) % n_nodes;
            let end = self.topology.part(node, n_pieces).end;
            loop {
                let piece_idx = self.next[node].0.fetch_add(1, Ordering::Relaxed);
                if piece_idx >= end {
                    break;
                }
                piece(piece_idx);
                n_own += 1;
            }
        }
        n_own
    }

    fn park(&self, worker_idx: usize, seen: u64) {
        let sleep = &self.sleep.0;
        sleep.parked[worker_idx].store(true, Ordering::SeqCst);
        sleep.n_parked.fetch_add(1, Ordering::SeqCst);
        // Checked after the flag is set: a job published before is seen here, one published after sees the flag.
        if !self.latch.0.is_open_and_new(seen) && !sleep.quit.load(Ordering::SeqCst) {
            std::thread::park();
        }
        sleep.parked[worker_idx].store(false, Ordering::SeqCst);
        sleep.n_parked.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
