//! What the caller asks of a run.

use std::path::PathBuf;

use nanochat_engine::{Checkpoint, Sources};

use crate::backend::Device;

/// What to train, on which code, and where the state of the run is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The code to train on: the packages of a workspace.
    pub sources: Sources,
    /// Name of a built-in recipe, or a path to a recipe file.
    pub recipe: String,
    /// Folder of this workspace's training state (`state.nct` and others, written atomically). A run that was
    /// interrupted is resumed from there, a finished one updated.
    pub state_dir: PathBuf,
    /// Start over even if there is a saved state.
    pub restart: bool,
    /// Overrides the recipe's seed.
    pub seed: Option<u64>,
    /// Overrides the recipe's number of steps.
    pub steps: Option<usize>,
    /// Train for this many seconds of wall-clock time, with the learning rate decaying towards their end. Not resumable
    /// bit for bit: each call has the whole time, and starts from where the decay of the saved state began.
    pub time_budget_s: Option<f64>,
    /// Worker threads; 0 means one per core.
    pub threads: usize,
    /// Start from the weights and the tokenizer of this checkpoint instead of fresh ones.
    pub base: Option<Checkpoint>,
    /// Paths to forget: neither this run nor any later one trains on them. A newly forgotten path restarts the run, so
    /// that nothing of it is left in the weights.
    pub forget: Vec<PathBuf>,
    /// Forgotten paths to train on again.
    pub remember: Vec<PathBuf>,
    /// Train also on the locked dependencies whose licences these SPDX identifiers allow (see
    /// [`PERMISSIVE`](crate::data::licence::PERMISSIVE)); `None` trains on the workspace's members alone.
    pub dependencies: Option<Vec<String>>,
    /// Find the learning rates first, by a range test, and scale the recipe's by the result. A resumed run keeps the
    /// rates it has.
    pub find_lr: bool,
    /// Device that gradients are computed on. A run may be resumed on another one, but then ends with other bits.
    pub device: Device,
    /// Train on the packed corpus in this file, written by [`pack`](crate::pack), in place of the sources. The
    /// tokenizer is the file's own, unless there is a base.
    pub packed: Option<PathBuf>,
}
