//! Working alone while the machine is busy.
//!
//! A worker that loses its processor while it holds a piece makes the caller wait for a time slice, a thousand times a
//! piece. The caller notices: after its own last piece it should wait for one more piece at most. A worker that has no
//! processor at all, or shares its caller's, claims no pieces.
//!
//! ```text
//! wait > 4 · own time per piece + some 30 µs, or 256 jobs in a row without help       a stall
//! stall         → the next `pause` jobs are done alone; pause grows fourfold, from 64 up to 1,024 jobs
//! as many jobs that had to wait, but not for long → pause halves
//! ```
//!
//! 64 jobs are two or three tokens and 1,024 a completion, so stalls cost little; a machine that stays busy ends up
//! with one thread and a trial now and then, its workers asleep. Nothing but time depends on it.

use std::sync::atomic::{AtomicU32, Ordering};

const FIRST_PAUSE: u32 = 64;
const LONGEST_PAUSE: u32 = 1 << 10;
const N_WITHOUT_HELP: u32 = 256;
/// Ticks that any wait may take: 20 to 50 µs of the time-stamp counter.
const GRACE: u64 = if cfg!(target_arch = "x86_64") { 100_000 } else { 30_000 };

/// Written only by the caller that holds the pool. Others may read values that do not match each other, which changes
/// only which thread computes a piece.
#[derive(Debug, Default)]
pub(super) struct Degrade {
    alone_left: AtomicU32,
    pause: AtomicU32,
    n_good: AtomicU32,
    n_without_help: AtomicU32,
}

impl Degrade {
    /// Whether the caller runs the next job alone; counts that job.
    pub(super) fn is_alone(&self) -> bool {
        let left = self.alone_left.load(Ordering::Relaxed);
        if left > 0 {
            self.alone_left.store(left - 1, Ordering::Relaxed);
        }
        left > 0
    }

    /// Whether the caller currently runs jobs alone, so that workers need not be awake. On a busy machine a spinning
    /// worker would only take time from its own caller.
    pub(super) fn is_paused(&self) -> bool {
        self.alone_left.load(Ordering::Relaxed) > 0
    }

    /// Records a job that the caller ran without help, though the workers were awake.
    pub(super) fn note_no_help(&self) {
        let n = self.n_without_help.load(Ordering::Relaxed) + 1;
        self.n_without_help.store(n % N_WITHOUT_HELP, Ordering::Relaxed);
        if n == N_WITHOUT_HELP {
            self.pause();
        }
    }

    /// Records a job that at least one worker helped with.
    pub(super) fn note_help(&self) {
        if self.n_without_help.load(Ordering::Relaxed) > 0 {
            self.n_without_help.store(0, Ordering::Relaxed);
        }
    }

    /// Records a job that ended with a wait: how many pieces the caller ran itself, the ticks that took, and the ticks
    /// it then waited.
    pub(super) fn record_wait(&self, n_own: usize, own: u64, waited: u64) {
        let Some(per_piece) = own.checked_div(n_own as u64) else { return };
        let pause = self.pause.load(Ordering::Relaxed);
        if waited > 4 * per_piece + GRACE {
            self.pause();
        } else if pause > 0 {
            let n_good = self.n_good.load(Ordering::Relaxed) + 1;
            if n_good < pause {
                self.n_good.store(n_good, Ordering::Relaxed);
            } else {
                self.n_good.store(0, Ordering::Relaxed);
                self.pause.store(if pause > FIRST_PAUSE { pause / 2 } else { 0 }, Ordering::Relaxed);
            }
        }
    }

    fn pause(&self) {
        let pause = (self.pause.load(Ordering::Relaxed) * 4).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.pause.store(pause, Ordering::Relaxed);
        self.alone_left.store(pause, Ordering::Relaxed);
        self.n_good.store(0, Ordering::Relaxed);
    }
}

/// A clock that costs 8 ns where `Instant` costs 20; two to three readings a job count.
#[cfg(target_arch = "x86_64")]
pub(super) fn ticks() -> u64 {
    // SAFETY: every x86-64 has the time-stamp counter.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Nanoseconds since the first call.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn ticks() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_makes_the_caller_work_alone_for_longer_and_good_jobs_for_shorter() {
        let degrade = Degrade::default();
        let n_alone = |degrade: &Degrade| (0..).take_while(|_| degrade.is_alone()).count();
        assert_eq!(n_alone(&degrade), 0);
        degrade.record_wait(4, 4_000, GRACE + 4_000); // just as long as it may
        assert_eq!(n_alone(&degrade), 0);
        for expected in [64, 256, 1024] {
            degrade.record_wait(4, 4_000, GRACE + 4_001);
            assert_eq!(n_alone(&degrade), expected);
        }
        (0..1024 + 512).for_each(|_| degrade.record_wait(4, 4_000, 10));
        degrade.record_wait(4, 4_000, GRACE * 10);
        assert_eq!(n_alone(&degrade), 1024, "halved twice by good jobs, fourfold by the stall");
        (0..2048).for_each(|_| degrade.record_wait(4, 4_000, 10));
        degrade.record_wait(4, 4_000, GRACE * 10);
        assert_eq!(n_alone(&degrade), 64, "all is forgiven");
        (0..40).for_each(|_| degrade.record_wait(4, 4_000, u64::MAX / 2));
        assert_eq!(n_alone(&degrade), LONGEST_PAUSE as usize);
        degrade.record_wait(0, 0, u64::MAX); // a caller that got no piece has nothing to compare with
        assert_eq!(n_alone(&degrade), 0);
    }

    #[test]
    fn workers_that_never_help_stay_parked_for_a_while() {
        let degrade = Degrade::default();
        for _ in 0..3 {
            (1..N_WITHOUT_HELP).for_each(|_| degrade.note_no_help());
            degrade.note_help();
        }
        assert!(!degrade.is_paused());
        (0..N_WITHOUT_HELP).for_each(|_| degrade.note_no_help());
        assert!(degrade.is_paused());
    }
}
