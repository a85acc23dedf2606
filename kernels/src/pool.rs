//! Persistent workers that share one job at a time.
//!
//! ```text
//! caller:  publish job, open the gate → claim pieces until none is left → close the gate → wait for those inside
//! worker:  spin on the gate → enter → claim pieces until none is left → leave;   idle for long: park
//! ```
//!
//! Pieces are claimed one by one, so a worker that the system has descheduled costs the pieces it holds and nothing
//! else: one that never entered is not waited for. Workers spin between the jobs of a request and park between
//! requests; [`Pool::announce`] wakes them early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long an idle worker spins before it parks. Jobs within a request are less than this apart; keystrokes more.
const SPIN: Duration = Duration::from_micros(200);

/// The gate packs an epoch (upper 32 bits), whether it is open, and how many workers are inside (lower bits).
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const EPOCH: u64 = 1 << 32;

/// Worker threads that live as long as the pool.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    handles: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    gate: AtomicU64,
    job: JobCell,
    next: AtomicUsize,
    n_parked: AtomicUsize,
    parked: Vec<AtomicBool>,
    quit: AtomicBool,
    busy: AtomicBool,
    panicked: AtomicBool,
}

/// A borrowed closure whose lifetime the gate enforces.
#[derive(Clone, Copy)]
struct Job {
    call: *const (dyn Fn(usize) + Sync),
    n_pieces: usize,
}

struct JobCell(std::cell::UnsafeCell<Option<Job>>);

// SAFETY: written only by the caller that holds `busy`, while the gate is closed and nobody is inside; read only by
// workers inside. The gate's acquire/release pairs order the two.
unsafe impl Sync for JobCell {}
// SAFETY: the pointer inside is dereferenced only while the caller of `for_each` keeps the closure alive.
unsafe impl Send for JobCell {}

impl std::fmt::Debug for JobCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JobCell")
    }
}

impl Pool {
    /// `n_threads` threads, the caller's own included; 0: one for each core.
    pub fn new(n_threads: usize) -> Self {
        let n_threads =
            if n_threads == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { n_threads };
        let n_workers = n_threads.min(256) - 1;
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: JobCell(std::cell::UnsafeCell::new(None)),
            next: AtomicUsize::new(0),
            n_parked: AtomicUsize::new(0),
            parked: (0..n_workers).map(|_| AtomicBool::new(false)).collect(),
            quit: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        let handles: Vec<_> = (0..n_workers)
            .map_while(|worker_idx| {
                let shared = Arc::clone(&shared);
                // A pool with fewer workers than asked for is slower, not wrong.
                std::thread::Builder::new()
                    .name(format!("nanochat-{worker_idx}"))
                    .spawn(move || shared.work(worker_idx))
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

    /// Wakes parked workers, so that they are spinning when the first job comes.
    pub fn announce(&self) {
        if self.shared.n_parked.load(Ordering::SeqCst) == 0 {
            return;
        }
        for (parked, thread) in self.shared.parked.iter().zip(&self.threads) {
            if parked.load(Ordering::SeqCst) {
                thread.unpark();
            }
        }
    }

    /// Calls `piece(i)` once for each `i` in `0..n_pieces`, on whichever thread comes first, and returns when all are
    /// done. A call from within a piece, or from a second thread meanwhile, runs on its own thread alone.
    ///
    /// # Panics
    /// If a piece panics.
    pub fn for_each(&self, n_pieces: usize, piece: impl Fn(usize) + Sync) {
        let alone = self.handles.is_empty() || n_pieces <= 1 || self.shared.busy.swap(true, Ordering::Acquire);
        if alone {
            (0..n_pieces).for_each(piece);
            return;
        }
        let shared = &*self.shared;
        let call: *const (dyn Fn(usize) + Sync + '_) = &piece;
        // SAFETY: only the lifetime changes. The pointer is used by workers inside the gate only, and `Leave` below
        // does not let this function end, by return or by panic, before the gate is closed and empty.
        let call: *const (dyn Fn(usize) + Sync + 'static) = unsafe { std::mem::transmute(call) };
        shared.next.store(0, Ordering::Relaxed);
        shared.panicked.store(false, Ordering::Relaxed);
        // SAFETY: `busy` is ours, the gate is closed and nobody is inside, so nobody reads the cell.
        unsafe { *shared.job.0.get() = Some(Job { call, n_pieces }) };
        let epoch = shared.gate.load(Ordering::Relaxed) & !(EPOCH - 1);
        shared.gate.store(epoch.wrapping_add(EPOCH) | OPEN, Ordering::SeqCst);
        let panicked = std::cell::Cell::new(false);
        let leave = Leave { shared, panicked: &panicked };
        self.announce();
        loop {
            let piece_idx = shared.next.fetch_add(1, Ordering::Relaxed);
            if piece_idx >= n_pieces {
                break;
            }
            piece(piece_idx);
        }
        drop(leave);
        assert!(!panicked.get(), "a worker panicked");
    }
}

/// Closes the gate, waits until it is empty, notes whether a worker panicked and gives the pool back.
struct Leave<'a> {
    shared: &'a Shared,
    panicked: &'a std::cell::Cell<bool>,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let shared = self.shared;
        shared.next.store(usize::MAX / 2, Ordering::Relaxed);
        shared.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut n_spins = 0u32;
        while shared.gate.load(Ordering::Acquire) & INSIDE != 0 {
            n_spins = n_spins.wrapping_add(1);
            // A worker that was descheduled inside gets our core sooner if we give it up.
            if n_spins.is_multiple_of(1 << 12) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        // Before the pool is given back: the next job clears it.
        self.panicked.set(shared.panicked.load(Ordering::Relaxed));
        shared.busy.store(false, Ordering::Release);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::SeqCst);
        for handle in self.handles.drain(..) {
            handle.thread().unpark();
            // A worker catches panics, so joining cannot fail.
            let _ = handle.join();
        }
    }
}

impl Shared {
    fn work(&self, worker_idx: usize) {
        let mut seen = 0;
        let mut idle_since = Instant::now();
        let mut n_spins = 0u32;
        while !self.quit.load(Ordering::Relaxed) {
            let gate = self.gate.load(Ordering::Acquire);
            if gate & OPEN != 0 && gate / EPOCH != seen {
                if self.gate.compare_exchange(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    seen = gate / EPOCH;
                    self.take_part();
                    self.gate.fetch_sub(1, Ordering::AcqRel);
                    (idle_since, n_spins) = (Instant::now(), 0);
                }
                continue;
            }
            n_spins = n_spins.wrapping_add(1);
            if n_spins.is_multiple_of(256) && idle_since.elapsed() > SPIN {
                self.park(worker_idx, seen);
                (idle_since, n_spins) = (Instant::now(), 0);
            }
            std::hint::spin_loop();
        }
    }

    fn take_part(&self) {
        // SAFETY: this worker is inside the gate: the cell was written before the gate opened and is not written
        // again before the worker has left.
        let Some(job) = (unsafe { *self.job.0.get() }) else { return };
        let pieces = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            loop {
                let piece_idx = self.next.fetch_add(1, Ordering::Relaxed);
                if piece_idx >= job.n_pieces {
                    break;
                }
                // SAFETY: the caller of `for_each` keeps the closure alive while a worker is inside the gate.
                unsafe { (*job.call)(piece_idx) };
            }
        }));
        if pieces.is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
    }

    fn park(&self, worker_idx: usize, seen: u64) {
        self.parked[worker_idx].store(true, Ordering::SeqCst);
        self.n_parked.fetch_add(1, Ordering::SeqCst);
        // Looked at after the mark is set: a job published before is seen here, one published after sees the mark.
        let gate = self.gate.load(Ordering::SeqCst);
        if (gate & OPEN == 0 || gate / EPOCH == seen) && !self.quit.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.parked[worker_idx].store(false, Ordering::SeqCst);
        self.n_parked.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_runs_exactly_once() {
        for n_threads in [1, 2, 5] {
            let pool = Pool::new(n_threads);
            for n_pieces in [0, 1, 2, 3, 64, 1000] {
                let counts: Vec<_> = (0..n_pieces).map(|_| AtomicUsize::new(0)).collect();
                pool.for_each(n_pieces, |piece_idx| {
                    counts[piece_idx].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn parked_workers_take_part_again() {
        let pool = Pool::new(3);
        for _ in 0..3 {
            std::thread::sleep(SPIN * 20);
            // Each piece waits for the others, so all three threads must take one.
            let n_here = AtomicUsize::new(0);
            let deadline = Instant::now() + Duration::from_secs(20);
            pool.for_each(3, |_| {
                n_here.fetch_add(1, Ordering::SeqCst);
                while n_here.load(Ordering::SeqCst) < 3 && Instant::now() < deadline {
                    std::thread::yield_now();
                }
            });
            assert!(Instant::now() < deadline, "a worker did not wake");
        }
    }

    #[test]
    fn a_job_within_a_job_and_from_two_threads_is_done_too() {
        let pool = Pool::new(2);
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        pool.for_each(4, |_| {
                            pool.for_each(3, |_| {
                                count.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 2 * 500 * 4 * 3);
    }

    #[test]
    fn a_panic_in_a_piece_reaches_the_caller_and_leaves_the_pool_usable() {
        let pool = Pool::new(2);
        for _ in 0..20 {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.for_each(8, |piece_idx| assert_ne!(piece_idx, 5));
            }));
            assert!(outcome.is_err());
            let count = AtomicUsize::new(0);
            pool.for_each(8, |_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 8);
        }
    }
}
