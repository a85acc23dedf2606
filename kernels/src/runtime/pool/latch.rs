//! The latch: which workers may use the job, and how long its closure must live.
//!
//! One word packs an epoch (upper 32 bits), whether the latch is open (bit 31) and how many workers are inside. Its
//! life is `closed, 0 inside → open → closed, n inside → closed, 0 inside`, and only the holder of the pool's `busy`
//! opens and closes it.
//!
//! Why every interleaving is sound (one caller C, any workers W; every step below is one atomic operation on the word):
//!
//! ```text
//! C1 write job, next  C2 open: epoch + 1, OPEN, release   C3 claim pieces   C4 close: & !OPEN   C5 wait: inside = 0
//! W1 load             W2 enter: compare-exchange load → load + 1, acquire   W3 read job, claim  W4 leave: − 1, release
//! ```
//!
//! - *The job is read whole.* W2 succeeds only on a word with OPEN set, which only C2 writes, and later words of the
//!   same epoch are read-modify-writes of it: each continues C2's release sequence, so W2's acquire sees C1.
//! - *The job is never read after its end.* If W2 comes before C4 in the word's order, C4 leaves inside > 0 and C5
//!   waits for W4, whose release C5's acquire sees. If C4 comes first, the word that W2 compares with is gone (OPEN is
//!   clear) and W2 fails. The same word cannot come back, since each C2 raises the epoch; the epoch wraps after 2³²
//!   jobs, and a worker does not sit between W1 and W2 for that long (at 1 µs a job: 71 minutes descheduled between two
//!   instructions, waking at the one epoch in 2³²; even then it enters an open latch, which is what the latch allows).
//! - *The job is not rewritten under a reader.* C1 needs `busy`, which is released after C5: nobody is inside.
//! - *No worker sleeps through a job it was to be woken for.* A worker marks itself parked, then reads the word; the
//!   caller writes the word (C2), then looks for marks. All four are sequentially consistent, so at least one sees the
//!   other. A job published without a look (work not worth a wake-up) is done by the caller, who waits only for those
//!   inside.
//! - *The caller never waits for a worker that will not leave.* Inside counts only workers between W2 and W4, which
//!   finish pieces and block on nothing. A panic in a piece is caught before W4.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU64, Ordering};

const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const EPOCH: u64 = 1 << 32;

/// Spins before the processor is given up, again and again, about 20 µs: longer than most pieces.
const SPINS: u32 = 1 << 11;

#[derive(Debug, Default)]
pub(super) struct Latch(AtomicU64);

impl Latch {
    pub(super) fn open(&self) {
        // Closed and empty, so nobody else writes the word now.
        let epoch = self.0.load(Ordering::Relaxed) & !(EPOCH - 1);
        self.0.store(epoch.wrapping_add(EPOCH) | OPEN, Ordering::SeqCst);
    }

    /// Admits no more workers. Returns whether none is inside.
    pub(super) fn close(&self) -> bool {
        self.0.fetch_and(!OPEN, Ordering::AcqRel) & INSIDE == 0
    }

    /// Returns when those inside have left. A worker that was descheduled inside gets a processor sooner if this thread
    /// gives up its own.
    pub(super) fn wait_until_empty(&self) {
        let mut n_spins = 0u32;
        while self.0.load(Ordering::Acquire) & INSIDE != 0 {
            n_spins = n_spins.saturating_add(1);
            if n_spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }

    /// Enters if the latch is open for a job other than the one seen last; returns its epoch.
    pub(super) fn enter(&self, seen: u64) -> Option<u64> {
        let word = self.0.load(Ordering::Acquire);
        if word & OPEN == 0 || word / EPOCH == seen {
            return None;
        }
        let entered = self.0.compare_exchange(word, word + 1, Ordering::AcqRel, Ordering::Relaxed);
        entered.is_ok().then_some(word / EPOCH)
    }

    pub(super) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether there is a job newer than `seen`. Sequentially consistent: see the module.
    pub(super) fn is_open_and_new(&self, seen: u64) -> bool {
        let word = self.0.load(Ordering::SeqCst);
        word & OPEN != 0 && word / EPOCH != seen
    }
}

/// A borrowed closure whose lifetime the latch enforces.
#[derive(Clone, Copy)]
pub(super) struct Job {
    call: *const (dyn Fn(usize) + Sync),
    pub(super) n_pieces: usize,
}

impl Job {
    /// # Safety
    /// The closure that was given to [`JobCell::set`] is alive.
    pub(super) unsafe fn call(&self, piece_idx: usize) {
        // SAFETY: the caller's promise.
        unsafe { (*self.call)(piece_idx) }
    }
}

#[derive(Default)]
pub(super) struct JobCell(UnsafeCell<Option<Job>>);

// SAFETY: written only by the caller that holds `busy`, while the latch is closed and nobody is inside; read only by
// workers inside. The latch's acquire/release pairs order the two.
unsafe impl Sync for JobCell {}
// SAFETY: the pointer inside is dereferenced only while the caller of `Pool::share` keeps the closure alive.
unsafe impl Send for JobCell {}

impl JobCell {
    /// # Safety
    /// The latch is closed and nobody is inside; `piece` lives until that is so again.
    pub(super) unsafe fn set(&self, piece: &(dyn Fn(usize) + Sync), n_pieces: usize) {
        let call: *const (dyn Fn(usize) + Sync + '_) = piece;
        // SAFETY: only the lifetime changes; the caller promises that it is long enough.
        let call: *const (dyn Fn(usize) + Sync + 'static) = unsafe { std::mem::transmute(call) };
        // SAFETY: nobody is inside, so nobody reads the cell.
        unsafe { *self.0.get() = Some(Job { call, n_pieces }) };
    }

    /// # Safety
    /// The calling worker is inside the latch.
    pub(super) unsafe fn get(&self) -> Option<Job> {
        // SAFETY: the cell was written before the latch opened and is not written again before the worker has left.
        unsafe { *self.0.get() }
    }
}

impl std::fmt::Debug for JobCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JobCell")
    }
}
