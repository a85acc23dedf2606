//! Measures the way decoding runs: all matrices of a model in turn, so that each is read from the same level of the
//! memory hierarchy as in use.
//!
//! ```text
//! drop the routines that are much slower than the best on one small product
//! until the time is over:  for each routine × piece size:  one token (1 row), one short prompt (16 rows)
//! for product:  pick the plan with the least 24 · (1 row) + (16 rows), the work of a keystroke
//!               (only among plans of the default piece size if the machine was busy)
//! until the time is over:  for each prompt batch:  one layer;      pick the smallest within 2 % of the best
//! ```
//!
//! All times are minima, since other load on the machine only adds time.

use std::time::{Duration, Instant};

use super::{Product, Tuned, TunedProduct, Workload};
use crate::isa::Isa;
use crate::output::Write;
use crate::rows::Int8Rows;
use crate::runtime::pool::Pool;
use crate::ternary::matrix::{Shape, TernaryMatrix};
use crate::ternary::plan::Plan;
use crate::ternary::prepared::Prepared;

/// Tokens that a keystroke generates, and those that it adds to the prompt: the weights of the two figures.
const N_GENERATED: f64 = 24.0;
const N_NEW: usize = 16;
/// A routine this much slower than the best on one product is not measured any further.
const TOO_SLOW: f64 = 1.6;
/// How much faster than the default something must be to be preferred: less is noise.
const MARGIN: f64 = 0.98;
/// Memory for copies of the matrices: more than the caches hold, and little enough to spare.
const MAX_BYTES: usize = 24 << 20;
const PIECE_SIZES: [usize; 4] = [1, 2, 4, 8];
const PROMPT_BATCHES: [usize; 6] = [32, 48, 64, 96, 128, 192];

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Time for all of it, not counting the packing of the matrices. Each candidate gets two rounds even if that takes
    /// longer.
    pub time: Duration,
    /// Seconds since 1970, for the record.
    pub now: u64,
}

/// What one plan reached on one product.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The product that was computed.
    pub product: Product,
    /// The plan that computed it.
    pub plan: Plan,
    /// 10⁹ operations (two per weight) a second for one row.
    pub gops_one: f64,
    /// 10⁹ operations a second for 16 rows at once.
    pub gops_many: f64,
    /// Whether this plan was picked for the product.
    pub is_picked: bool,
}

/// The result of measuring a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The entry for the table.
    pub tuned: Tuned,
    /// Every plan that was measured, product by product.
    pub candidates: Vec<Candidate>,
}

/// Measures a workload on weights of its own. `progress` is called with the fraction done, 0 to 1. Returns `None` once
/// `stop` returns true; it is called every few milliseconds.
///
/// # Panics
/// If the workload has no products, or one that no matrix can have.
pub fn measure(
    workload: &Workload,
    effort: Effort,
    progress: &mut dyn FnMut(f64),
    stop: &dyn Fn() -> bool,
) -> Option<Measured> {
    assert!(!workload.products.is_empty(), "a model has products");
    let mut fixtures = Vec::new();
    for isa in candidate_isas(workload) {
        fixtures.push(Fixture::new(workload, MAX_BYTES, |_| Plan { isa, ..Plan::default() }, stop)?);
    }
    let plans: Vec<(usize, Plan)> = (fixtures.iter().enumerate())
        .flat_map(|(fixture, Fixture { matrices, .. })| {
            let Plan { isa, .. } = matrices[0][0].plan();
            PIECE_SIZES.map(|superblocks_per_piece| (fixture, Plan { isa, superblocks_per_piece }))
        })
        .collect();
    // [plan][product], ns
    let mut one = vec![vec![f64::INFINITY; workload.products.len()]; plans.len()];
    let mut many = one.clone();
    let start = Instant::now();
    let share = effort.time.mul_f64(0.75);
    let (mut n_rounds, mut n_busy) = (0, 0);
    while n_rounds < 2 || start.elapsed() < share {
        for (plan_idx, (fixture, plan)) in plans.iter().enumerate() {
            if stop() {
                return None;
            }
            let fixture = &mut fixtures[*fixture];
            fixture.set_superblocks_per_piece(plan.superblocks_per_piece);
            fixture.pass(1, fixture.n_layers, &mut one[plan_idx]);
            fixture.pass(N_NEW, 1, &mut many[plan_idx]);
            n_busy += usize::from(fixture.pool.is_degraded());
        }
        n_rounds += 1;
        progress((start.elapsed().as_secs_f64() / effort.time.as_secs_f64()).min(0.75));
    }
    drop(fixtures);
    let plans: Vec<Plan> = plans.into_iter().map(|(_, plan)| plan).collect();
    let score = |plan: usize, product: usize| N_GENERATED * one[plan][product] + many[plan][product];
    // What is best for one thread alone is large pieces, which would leave nothing to share on a machine that is quiet.
    let was_busy = 2 * n_busy > n_rounds * plans.len();
    let default = plans.iter().position(|plan| *plan == Plan::default()).unwrap_or(0);
    let picks: Vec<usize> = (0..workload.products.len())
        .map(|product| {
            let is_allowed =
                |plan: &usize| !was_busy || plans[*plan].superblocks_per_piece == Plan::default().superblocks_per_piece;
            let best =
                (0..plans.len()).filter(is_allowed).min_by(|a, b| score(*a, product).total_cmp(&score(*b, product)));
            best.filter(|best| score(*best, product) < MARGIN * score(default, product)).unwrap_or(default)
        })
        .collect();

    let mut fixture = Fixture::new(workload, 0, |product| plans[picks[product]], stop)?;
    let mut batches = PROMPT_BATCHES.map(|n_rows| (n_rows, f64::INFINITY));
    n_rounds = 0;
    while n_rounds < 2 || start.elapsed() < effort.time {
        for (n_rows, ns_per_row) in &mut batches {
            if stop() {
                return None;
            }
            let mut ns = vec![f64::INFINITY; workload.products.len()];
            fixture.pass(*n_rows, 1, &mut ns);
            let weighed = ns.iter().zip(&workload.products).map(|(ns, product)| ns * product.n as f64);
            *ns_per_row = ns_per_row.min(weighed.sum::<f64>() / *n_rows as f64);
        }
        n_rounds += 1;
        progress((start.elapsed().as_secs_f64() / effort.time.as_secs_f64()).min(1.0));
    }
    let least = batches.iter().map(|(_, ns)| *ns).fold(f64::INFINITY, f64::min);
    let prompt_batch = batches.iter().find(|(_, ns)| *ns <= least / MARGIN).map_or(super::PROMPT_BATCH, |(n, _)| *n);

    let gops = |product: &Product, n_rows: usize, ns: f64| (2 * product.rows * product.cols * n_rows) as f64 / ns;
    let candidates: Vec<_> = (workload.products.iter().enumerate())
        .flat_map(|(product_idx, product)| (0..plans.len()).map(move |plan| (product_idx, product, plan)))
        .map(|(product_idx, product, plan)| Candidate {
            product: *product,
            plan: plans[plan],
            gops_one: gops(product, 1, one[plan][product_idx]),
            gops_many: gops(product, N_NEW, many[plan][product_idx]),
            is_picked: picks[product_idx] == plan,
        })
        .collect();
    let products = candidates.iter().filter(|candidate| candidate.is_picked).map(|picked| TunedProduct {
        product: picked.product,
        isa: picked.plan.isa.name().to_owned(),
        superblocks_per_piece: picked.plan.superblocks_per_piece,
        gops_one: picked.gops_one,
        gops_many: picked.gops_many,
    });
    let token_ns = (workload.products.iter().zip(&picks).enumerate())
        .map(|(product_idx, (product, plan))| one[*plan][product_idx] * product.n as f64);
    let tuned = Tuned {
        n_threads: workload.n_threads,
        measured_at: effort.now,
        prompt_batch,
        was_busy,
        token_us: token_ns.sum::<f64>() / 1e3,
        products: products.collect(),
    };
    Some(Measured { tuned, candidates })
}

/// How many times slower (or, below 1, faster) a token is now than when it was measured: the least of some 50 ms of
/// trying. `None` once `stop` returns true.
///
/// # Panics
/// As [`measure`].
pub fn slowdown(workload: &Workload, tuned: &Tuned, stop: &dyn Fn() -> bool) -> Option<f64> {
    let plans = tuned.plans();
    let plan = |product: usize| {
        let Product { rows, cols, .. } = workload.products[product];
        plans.plan(Shape { rows, cols })
    };
    let mut fixture = Fixture::new(workload, MAX_BYTES, plan, stop)?;
    let mut ns = vec![f64::INFINITY; workload.products.len()];
    let start = Instant::now();
    let mut n_rounds = 0;
    while n_rounds < 5 || start.elapsed() < Duration::from_millis(50) {
        if stop() {
            return None;
        }
        fixture.pass(1, fixture.n_layers, &mut ns);
        n_rounds += 1;
    }
    let token_ns: f64 = ns.iter().zip(&workload.products).map(|(ns, product)| ns * product.n as f64).sum();
    Some(token_ns / 1e3 / tuned.token_us)
}

/// Matrices of the workload's shapes, as many as decoding reads or as memory allows.
struct Fixture {
    pool: Pool,
    n_layers: usize,
    /// `[product][layer]`.
    matrices: Vec<Vec<Prepared>>,
    y: Vec<f32>,
}

impl Fixture {
    /// As many layers as fit into `max_bytes`, but at least one.
    fn new(
        workload: &Workload,
        max_bytes: usize,
        plan: impl Fn(usize) -> Plan,
        stop: &dyn Fn() -> bool,
    ) -> Option<Self> {
        let products = &workload.products;
        let layer_bytes: usize = products.iter().map(|product| product.rows * product.cols / 4).sum();
        let n_layers = products.iter().map(|product| product.n).max().unwrap_or(1);
        let n_layers = n_layers.min(max_bytes / layer_bytes.max(1)).max(1);
        let mut matrices = Vec::new();
        for (product_idx, product) in products.iter().enumerate() {
            let matrix = matrix(product);
            let mut layers = Vec::new();
            for _ in 0..n_layers {
                if stop() {
                    return None;
                }
                layers.push(Prepared::new(&[&matrix], plan(product_idx)));
            }
            matrices.push(layers);
        }
        Some(Self { pool: Pool::new(workload.n_threads), n_layers, matrices, y: Vec::new() })
    }

    fn set_superblocks_per_piece(&mut self, n: usize) {
        for matrix in self.matrices.iter_mut().flatten() {
            matrix.set_superblocks_per_piece(n);
        }
    }

    /// Runs `n_rows` rows through `n_layers` layers. Lowers each product's least time, in ns.
    fn pass(&mut self, n_rows: usize, n_layers: usize, least: &mut [f64]) {
        let inputs: Vec<_> =
            self.matrices.iter().map(|layers| input(&self.pool, n_rows, layers[0].shape().cols)).collect();
        let widest = self.matrices.iter().map(|layers| layers[0].shape().rows).max().unwrap_or(0);
        self.y.resize(n_rows * widest, 0.0);
        let mut total = vec![0.0; least.len()];
        self.pool.announce();
        for layer in 0..n_layers {
            for (product, matrices) in self.matrices.iter().enumerate() {
                let matrix = &matrices[layer];
                let y = &mut self.y[..n_rows * matrix.shape().rows];
                let start = Instant::now();
                matrix.gemm(&self.pool, &inputs[product], y, Write::Store);
                total[product] += start.elapsed().as_nanos() as f64;
            }
        }
        for (least, total) in least.iter_mut().zip(total) {
            *least = least.min((total / n_layers as f64).max(1.0));
        }
    }
}

/// Those within reach of the best on the smallest product.
fn candidate_isas(workload: &Workload) -> Vec<Isa> {
    let Some(product) = workload.products.iter().min_by_key(|product| product.rows * product.cols) else {
        return vec![];
    };
    let (matrix, pool) = (matrix(product), Pool::new(1));
    let x = input(&pool, 1, product.cols);
    let mut y = vec![0.0; product.rows];
    let times: Vec<_> = Isa::available()
        .into_iter()
        .map(|isa| {
            let prepared = Prepared::new(&[&matrix], Plan { isa, ..Plan::default() });
            let mut least = f64::INFINITY;
            for _ in 0..9 {
                let start = Instant::now();
                prepared.gemm(&pool, &x, &mut y, Write::Store);
                least = least.min(start.elapsed().as_nanos() as f64);
            }
            (isa, least)
        })
        .collect();
    let best = times.iter().map(|(_, ns)| *ns).fold(f64::INFINITY, f64::min);
    let is_candidate = |(isa, ns): &(Isa, f64)| *ns <= TOO_SLOW * best || *isa == Isa::best();
    times.iter().filter(|time| is_candidate(time)).map(|(isa, _)| *isa).collect()
}

fn matrix(product: &Product) -> TernaryMatrix {
    let Product { rows, cols, scales, .. } = *product;
    let shape = Shape { rows, cols };
    let trits = (0..rows * cols).map(|i| ((i.wrapping_mul(0x9E37_79B9) >> 13) % 3) as i8 - 1).collect();
    TernaryMatrix::from_trits(shape, scales, trits, vec![0.01; scales.n_scales(shape)])
        .expect("a product has the shape of a matrix")
}

fn input(pool: &Pool, n_rows: usize, cols: usize) -> Int8Rows {
    let x: Vec<f32> = (0..n_rows * cols).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 16 & 0xFF) as f32 - 127.5).collect();
    let mut rows = Int8Rows::new(cols);
    rows.quantize(Isa::best(), pool, &x);
    rows
}
