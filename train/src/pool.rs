//! Workers over which a step is spread. What a piece of work computes does not depend on which worker runs it,
//! nor on how many there are.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A few workers, each with a thread pool of its own: a matrix product inside one stays on its core.
pub struct Pool {
    workers: Vec<rayon::ThreadPool>,
}

impl Pool {
    /// `n_threads` workers; 0: one per core.
    pub fn new(n_threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let n_threads = match n_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let workers = (0..n_threads).map(|_| rayon::ThreadPoolBuilder::new().num_threads(1).build());
        Ok(Self { workers: workers.collect::<Result<_, _>>()? })
    }

    /// Number of workers.
    pub fn n_workers(&self) -> usize {
        self.workers.len()
    }

    /// Computes `f(0), …, f(n − 1)` on all workers; the results are in this order.
    pub fn map<R: Send>(&self, n: usize, f: impl Fn(usize) -> R + Sync) -> Vec<R> {
        let next = AtomicUsize::new(0);
        let results: Vec<Mutex<Option<R>>> = (0..n).map(|_| Mutex::new(None)).collect();
        std::thread::scope(|scope| {
            for worker in self.workers.iter().take(n) {
                scope.spawn(|| {
                    worker.install(|| {
                        loop {
                            let idx = next.fetch_add(1, Ordering::Relaxed);
                            if idx >= n {
                                break;
                            }
                            let result = f(idx);
                            *results[idx].lock().expect("no holder panics") = Some(result);
                        }
                    });
                });
            }
        });
        let take = |result: Mutex<Option<R>>| result.into_inner().expect("no holder panics");
        results.into_iter().map(|result| take(result).expect("every index was visited")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order() {
        let pool = Pool::new(3).expect("threads start");
        assert_eq!(pool.map(100, |i| i * i), (0..100).map(|i| i * i).collect::<Vec<_>>());
    }
}
