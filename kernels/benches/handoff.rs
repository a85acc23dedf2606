//! What the pool costs: a job of next to nothing, alone and shared; waking; and a decoder's jobs with other busy
//! threads.
//!
//! `cargo bench -p nanochat-kernels --bench handoff`

#![expect(clippy::print_stdout, reason = "a benchmark's output is its figures")]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nanochat_kernels::Pool;

/// Median and minimum of many rounds, in ns.
fn rounds(n: usize, mut round: impl FnMut() -> f64) -> (f64, f64) {
    let mut all: Vec<f64> = (0..n).map(|_| round()).collect();
    all.sort_by(f64::total_cmp);
    (all[n / 2], all[0])
}

fn ns_per_job(n_jobs: u32, mut job: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..n_jobs).for_each(|_| job());
    start.elapsed().as_nanos() as f64 / f64::from(n_jobs)
}

/// About `n` ns of arithmetic at 4 GHz.
fn work(n: u32) {
    let sum = (0..4 * n).fold(0u32, |sum, i| black_box(sum.wrapping_add(i)));
    black_box(sum);
}

fn main() {
    let pool = Pool::new(0);
    let report = |what: &str, (median, minimum): (f64, f64)| println!("{what:<52} {median:>9.0} ns  {minimum:>9.0} ns");
    println!("{:<52} {:>12}  {:>12}", format!("{} threads", pool.n_threads()), "median", "minimum");
    pool.announce();
    report("alone (too little work)", rounds(100, || ns_per_job(1000, || pool.share(2, 0, |_| work(1)))));
    report("shared, 2 empty pieces", rounds(100, || ns_per_job(1000, || pool.for_each(2, |_| work(1)))));
    report("shared, 16 empty pieces", rounds(100, || ns_per_job(1000, || pool.for_each(16, |_| work(1)))));
    report("1 thread, 8 pieces of 1 µs", rounds(50, || ns_per_job(200, || (0..8).for_each(|_| work(1000)))));
    report("shared, 8 pieces of 1 µs", rounds(50, || ns_per_job(200, || pool.for_each(8, |_| work(1000)))));
    let cold = |announced: bool| {
        rounds(100, || {
            std::thread::sleep(Duration::from_millis(5));
            if announced {
                pool.announce();
                work(100_000);
            }
            ns_per_job(1, || pool.for_each(64, |_| work(1000)))
        })
    };
    report("64 pieces of 1 µs after a pause, not announced", cold(false));
    report("the same, announced 100 µs before", cold(true));

    // A request: 200 tokens, 25 jobs each of 8 pieces of 0.5 µs, 100 µs together.
    let request = |pool: &Pool| {
        pool.announce();
        ns_per_job(200, || (0..25).for_each(|_| pool.for_each(8, |_| work(500))))
    };
    let one = Pool::new(1);
    let pool = Pool::new(0);
    for n_neighbours in [0, 1, pool.n_threads()] {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..n_neighbours {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        work(1000);
                    }
                });
            }
            let (mut alone, mut shared) = (Vec::new(), Vec::new());
            for _ in 0..60 {
                alone.push(request(&one));
                shared.push(request(&pool));
            }
            stop.store(true, Ordering::Relaxed);
            for (what, mut all) in [("1 thread", alone), ("pool", shared)] {
                all.sort_by(f64::total_cmp);
                let figures = (all[all.len() / 2], all[0]);
                report(&format!("a token with {n_neighbours} busy threads, {what}"), figures);
            }
        });
    }
}
