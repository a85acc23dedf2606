use std::collections::HashSet;
use std::sync::Mutex;

use super::*;

#[test]
fn every_piece_runs_exactly_once() {
    let two_nodes = Topology::for_tests(&[vec![0], vec![0, 1]]);
    for topology in [Topology::ONE, two_nodes] {
        for n_threads in [1, 2, 5] {
            let pool = Pool::on(n_threads, &topology);
            for n_pieces in [0, 1, 2, 3, 64, 1000] {
                for work_ns in [0, ALONE_NS, WAKE_NS] {
                    let counts: Vec<_> = (0..n_pieces).map(|_| AtomicUsize::new(0)).collect();
                    pool.share(n_pieces, work_ns, |piece_idx| {
                        counts[piece_idx].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }
}

/// Whether all threads take part, sooner or later; each piece gives the others time to come.
fn all_help(pool: &Pool) -> bool {
    (0..2000).any(|_| {
        let threads = Mutex::new(HashSet::new());
        pool.for_each(pool.n_threads(), |_| {
            threads.lock().expect("nobody panics").insert(std::thread::current().id());
            let start = Instant::now();
            while threads.lock().expect("nobody panics").len() < pool.n_threads()
                && start.elapsed() < Duration::from_millis(20)
            {
                std::thread::yield_now();
            }
        });
        threads.into_inner().expect("nobody panics").len() == pool.n_threads()
    })
}

#[test]
fn parked_workers_help_again() {
    let pool = Pool::new(3);
    for announced in [false, true, false] {
        while pool.shared.sleep.0.n_parked.load(Ordering::SeqCst) < 2 {
            std::thread::sleep(SPIN);
        }
        if announced {
            pool.announce();
        }
        assert!(all_help(&pool), "announced: {announced}");
    }
}

#[test]
fn small_work_wakes_nobody_until_it_adds_up() {
    let pool = Pool::new(2);
    let sleep = &pool.shared.sleep.0;
    while sleep.n_parked.load(Ordering::SeqCst) == 0 {
        std::thread::sleep(SPIN);
    }
    let me = std::thread::current().id();
    let alone = |work_ns| pool.share(4, work_ns, |_| assert_eq!(std::thread::current().id(), me));
    (0..1000).for_each(|_| alone(ALONE_NS - 1));
    assert_eq!(pool.shared.unwoken_ns.load(Ordering::Relaxed), 0, "not even published");
    (0..WAKE_NS / ALONE_NS - 1).for_each(|_| alone(ALONE_NS));
    assert_eq!(sleep.n_parked.load(Ordering::SeqCst), 1);
    pool.share(4, ALONE_NS, |_| ());
    assert_eq!(pool.shared.unwoken_ns.load(Ordering::Relaxed), 0, "the last one woke it");
    assert!(all_help(&pool));
}

#[test]
fn a_job_within_a_job_and_jobs_from_two_threads_are_run_too() {
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

/// Four pools of as many threads as would fill the machine, all at once, with work of any size and callers that come
/// and go: nothing may be lost, done twice or stuck, and the data of each job must be seen whole.
#[test]
fn a_machine_with_four_times_too_many_threads_makes_progress() {
    let n_cores = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for seed in 0..4u64 {
            scope.spawn(move || {
                let pool = Pool::new(n_cores.max(2));
                let mut state = seed;
                for job in 0..3000u64 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let n_pieces = (state >> 33) as usize % 40;
                    let input: Vec<u64> = (0..n_pieces as u64).map(|i| i ^ job).collect();
                    let output: Vec<_> = input.iter().map(|_| AtomicU64::new(0)).collect();
                    pool.share(n_pieces, (state >> 40) % (2 * WAKE_NS), |i| {
                        let rounds = if (state >> 50).is_multiple_of(64) { 20_000 } else { 20 };
                        let value = (0..rounds).fold(input[i], |value, _| std::hint::black_box(value + 1));
                        output[i].fetch_add(value, Ordering::Relaxed);
                    });
                    let rounds = if (state >> 50).is_multiple_of(64) { 20_000 } else { 20 };
                    assert!(input.iter().zip(&output).all(|(x, y)| y.load(Ordering::Relaxed) == x + rounds));
                    if job.is_multiple_of(512) {
                        std::thread::sleep(SPIN * 2); // long enough to park
                        pool.announce();
                    }
                }
            });
        }
    });
}

#[test]
fn one_node_binds_nobody_and_two_nodes_bind_every_worker() {
    let wait_for = |pool: &Pool, n: usize| {
        assert!(all_help(pool));
        assert_eq!(pool.n_bound(), n);
    };
    wait_for(&Pool::on(3, &Topology::ONE), 0);
    #[cfg(target_os = "linux")]
    {
        let before = rustix::thread::sched_getaffinity(None).expect("Linux says");
        let usable: Vec<usize> = (0..1024).filter(|cpu| before.is_set(*cpu)).collect();
        let two = Topology::for_tests(&[vec![usable[0]], vec![*usable.last().expect("at least one")]]);
        wait_for(&Pool::on(3, &two), 2);
        assert_eq!(rustix::thread::sched_getaffinity(None).expect("Linux says"), before, "the caller is not bound");
    }
}

#[test]
fn each_thread_claims_its_own_nodes_run_first_and_then_the_others() {
    let two = Topology::for_tests(&[vec![0], vec![0]]);
    let pool = Pool::on(1, &two);
    let order = |home: usize| {
        for (node, next) in pool.shared.next.iter().enumerate() {
            next.0.store(two.part(node, 5).start, Ordering::Relaxed);
        }
        let order = Mutex::new(Vec::new());
        let n_own = pool.shared.claim(home, 5, |i| order.lock().expect("nobody panics").push(i));
        assert_eq!(n_own, 5);
        order.into_inner().expect("nobody panics")
    };
    assert_eq!(order(0), [0, 1, 2, 3, 4]);
    assert_eq!(order(1), [2, 3, 4, 0, 1]);
}
