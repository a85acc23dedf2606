//! Which plan is fastest on this machine, measured, and the table that remembers it.
//!
//! ```text
//! Workload → measure → Tuned ──┐
//! text file ↔ Table ←──────────┴→ Plans → Prepared
//! ```
//!
//! A plan never changes a result, only the time it takes. So a table is believed without proof, but only one of this
//! machine and this version: what it asks for and this processor lacks is replaced by the default.

mod machine;
mod measure;

use serde::{Deserialize, Serialize};

use crate::isa::Isa;
use crate::ternary::matrix::{ScaleGroup, Shape};
use crate::ternary::plan::Plan;

pub use machine::Machine;
pub use measure::{Candidate, Effort, Measured, measure, slowdown};

/// Prompt rows that go through the layers together where nothing was measured: enough to read each weight seldom, few
/// enough for L2.
const PROMPT_BATCH: usize = 96;
/// Models that a table remembers; the oldest goes.
const MAX_MODELS: usize = 16;

/// The products of one model, and how many threads compute them.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The distinct products of a model.
    pub products: Vec<Product>,
    /// Threads that compute them, at least 1.
    pub n_threads: usize,
}

/// A product that a model computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Output features of the matrix.
    pub rows: usize,
    /// Input features of the matrix.
    pub cols: usize,
    /// How weights share scales.
    pub scales: ScaleGroup,
    /// How many of these a token takes.
    pub n: usize,
}

/// The plan picked for one product, and its speed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunedProduct {
    /// The product that was measured.
    pub product: Product,
    /// The routine's [`Isa::name`].
    pub isa: String,
    /// As [`Plan::superblocks_per_piece`].
    pub superblocks_per_piece: usize,
    /// 10⁹ operations (two per weight) a second for one row.
    pub gops_one: f64,
    /// 10⁹ operations a second for 16 rows at once.
    pub gops_many: f64,
}

/// The plans picked for one model and number of threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuned {
    /// The number of threads that was measured.
    pub n_threads: usize,
    /// Seconds since 1970.
    pub measured_at: u64,
    /// Prompt rows that go through the layers together.
    pub prompt_batch: usize,
    /// Whether the machine was too busy for the threads to help each other: piece sizes are then the default, and it
    /// should be measured again.
    pub was_busy: bool,
    /// Time that all products of one token take, in µs.
    pub token_us: f64,
    /// The picks, in the order of the workload.
    pub products: Vec<TunedProduct>,
}

/// The measurements of one machine, as stored in its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The machine that was measured.
    pub machine: Machine,
    /// One entry for each model and number of threads, oldest first.
    #[serde(default)]
    pub models: Vec<Tuned>,
}

/// Why a table cannot be used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// It was measured by another version.
    #[error("it is of version {found}, not {expected}")]
    Stale {
        /// The version in the table.
        found: String,
        /// The version of this crate.
        expected: String,
    },
    /// It was measured on another machine.
    #[error("it is of `{found}`, not of `{expected}`")]
    Foreign {
        /// The machine in the table.
        found: String,
        /// This machine.
        expected: String,
    },
    /// Nothing was measured for these products and threads.
    #[error("it knows nothing of this model with {n_threads} threads")]
    Unknown {
        /// The number of threads asked for.
        n_threads: usize,
    },
    /// It holds a figure that no measurement could have given.
    #[error("it holds an impossible figure")]
    Nonsense,
}

/// The plan for each matrix of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Plans {
    default: Plan,
    picked: Vec<(Shape, Plan)>,
    prompt_batch: usize,
}

impl Plans {
    /// One plan for all.
    pub fn uniform(plan: Plan) -> Self {
        Self { default: plan, picked: Vec::new(), prompt_batch: PROMPT_BATCH }
    }

    /// For a matrix.
    pub fn plan(&self, shape: Shape) -> Plan {
        let picked = self.picked.iter().find(|(picked, _)| *picked == shape);
        picked.map_or(self.default, |(_, plan)| *plan)
    }

    /// For everything that is not a ternary product: the routine that computes most of them.
    pub fn isa(&self) -> Isa {
        self.default.isa
    }

    /// Prompt rows that go through the layers together.
    pub fn prompt_batch(&self) -> usize {
        self.prompt_batch
    }
}

impl Default for Plans {
    /// What is right without a measurement.
    fn default() -> Self {
        Self::uniform(Plan::default())
    }
}

impl Table {
    /// An empty one.
    pub fn new(machine: Machine) -> Self {
        Self { machine, models: Vec::new() }
    }

    /// What was measured for a workload on this machine by this version.
    pub fn find(&self, machine: &Machine, workload: &Workload) -> Result<&Tuned, Unfit> {
        self.machine.check(machine)?;
        let is_it = |tuned: &&Tuned| {
            tuned.n_threads == workload.n_threads
                && tuned.products.iter().map(|tuned| tuned.product).eq(workload.products.iter().copied())
        };
        let unknown = || Unfit::Unknown { n_threads: workload.n_threads };
        let tuned = self.models.iter().rfind(is_it).ok_or_else(unknown)?;
        if tuned.is_sound() { Ok(tuned) } else { Err(Unfit::Nonsense) }
    }

    /// Remembers a measurement in place of an older one of the same.
    pub fn put(&mut self, tuned: Tuned) {
        let of =
            |tuned: &Tuned| (tuned.n_threads, tuned.products.iter().map(|tuned| tuned.product).collect::<Vec<_>>());
        self.models.retain(|old| of(old) != of(&tuned));
        self.models.push(tuned);
        let n_over = self.models.len().saturating_sub(MAX_MODELS);
        self.models.drain(..n_over);
    }
}

impl Tuned {
    /// What to do. A routine that this processor lacks is replaced by its best one.
    pub fn plans(&self) -> Plans {
        let available = Isa::available();
        let plan = |tuned: &TunedProduct| {
            let isa = available.iter().find(|isa| isa.name() == tuned.isa);
            isa.map_or_else(Plan::default, |isa| Plan { isa: *isa, superblocks_per_piece: tuned.superblocks_per_piece })
        };
        let shape = |product: Product| Shape { rows: product.rows, cols: product.cols };
        let picked: Vec<_> = self.products.iter().map(|tuned| (shape(tuned.product), plan(tuned))).collect();
        let weight = |isa: Isa| {
            let of = self.products.iter().zip(&picked).filter(|(_, (_, plan))| plan.isa == isa);
            of.fold(0usize, |sum, (tuned, (shape, _))| {
                sum.saturating_add(tuned.product.n.saturating_mul(shape.rows).saturating_mul(shape.cols))
            })
        };
        let isa = available.into_iter().max_by_key(|isa| weight(*isa)).unwrap_or_else(Isa::best);
        Plans { default: Plan { isa, ..Plan::default() }, picked, prompt_batch: self.prompt_batch }
    }

    /// Whether the figures could have been measured. Products are compared with the caller's own elsewhere.
    fn is_sound(&self) -> bool {
        let is_figure = |x: f64| x.is_finite() && x > 0.0;
        (8..=1024).contains(&self.prompt_batch)
            && is_figure(self.token_us)
            && !self.products.is_empty()
            && self.products.iter().all(|tuned| {
                (1..=1024).contains(&tuned.superblocks_per_piece)
                    && is_figure(tuned.gops_one)
                    && is_figure(tuned.gops_many)
            })
    }
}

#[cfg(test)]
mod tests;
