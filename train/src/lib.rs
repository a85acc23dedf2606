//! Workspace to checkpoint.
//!
//! ```text
//! Sources → collect → filter → scrub → dedup → split → tokenizer → shards → documents → QAT steps
//!         → held-out bits/byte → export → signed checkpoint
//! ```
//!
//! Only this crate knows candle. The architecture is `engine::config`; `model` is the differentiable twin of
//! the engine's, with the same file names, and a parity test holds the two together. This crate knows no
//! editor, no terminal and no cargo: progress goes to the caller as [`Event`]s.

pub mod corpus;
pub mod curve;
pub mod device;
pub mod documents;
pub mod export;
pub mod gradients;
pub mod journal;
pub mod learned;
pub mod measure;
pub mod mixture;
pub mod model;
pub mod ops;
pub mod optim;
pub mod packages;
pub mod pass;
pub mod plain;
pub mod pool;
pub mod quantize;
pub mod recipe;
pub mod run;
pub mod schedule;
pub mod state;
pub mod tokenizer;

use std::path::{Path, PathBuf};

use nanochat_engine::{Cancel, Checkpoint, Sources};

pub use device::Device;
pub use recipe::Recipe;

/// What to train and on what.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose code.
    pub sources: Sources,
    /// Name of the recipe, or a path to one (`recipes/*.toml` are built in).
    pub recipe: String,
    /// Where this workspace's training state is kept (`state.nct`, written atomically; resumed from if present).
    pub state_dir: PathBuf,
    /// Start afresh even if there is state.
    pub restart: bool,
    /// Overrides the recipe's seed.
    pub seed: Option<u64>,
    /// Overrides the recipe's number of steps.
    pub steps: Option<usize>,
    /// Stop by the wall clock and decay the rate towards that time; seconds. Not resumable bit for bit: the time begins
    /// anew, from where the saved state's own decay began.
    pub time_budget_s: Option<f64>,
    /// Worker threads; 0: one per core.
    pub threads: usize,
    /// Start from these weights and this tokenizer instead of fresh ones.
    pub base: Option<Checkpoint>,
    /// Paths that no run is to learn from any more. With one, the run begins afresh, without it.
    pub forget: Vec<PathBuf>,
    /// Paths that were to be forgotten and are not any more.
    pub remember: Vec<PathBuf>,
    /// Train on the locked dependencies too whose licences these SPDX identifiers allow (see
    /// [`corpus::licence::PERMISSIVE`]); `None`: on the members alone.
    pub dependencies: Option<Vec<String>>,
    /// Begin with a range test and multiply the recipe's rates by what it finds. A run that goes on keeps what it has.
    pub find_lr: bool,
    /// Where gradients are taken. A run may go on on another one, to other bits.
    pub device: Device,
    /// Train on the corpus in this file, which [`pack`] wrote, in place of the sources. The tokenizer is its own, unless
    /// there is a base.
    pub packed: Option<PathBuf>,
}

/// What [`pack`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Files, those held out among them.
    pub n_files: usize,
    /// Tokens that are trained on.
    pub n_tokens: usize,
}

/// Progress, in the order it happens.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// Files were read and split.
    Collected {
        /// Files trained on.
        n_train_files: usize,
        /// Those among them that are dependencies'.
        n_dependency_files: usize,
        /// Files held out whole.
        n_held_out_files: usize,
        /// Bytes trained on.
        train_bytes: usize,
        /// Files left out, each with a reason.
        skipped: Vec<(PathBuf, String)>,
        /// Secrets that were taken out of the files' text.
        n_scrubbed: usize,
    },
    /// Files of dependencies are trained on beside the workspace's own.
    Replayed {
        /// Files trained on.
        n_train_files: usize,
        /// Files held out whole.
        n_held_out_files: usize,
        /// Bytes trained on.
        train_bytes: usize,
    },
    /// A finished run is gone on from, since only a part of what it learned has changed.
    Updated {
        /// Files that are new or have changed.
        n_changed_files: usize,
        /// Their share of the bytes that are trained on.
        share: f64,
        /// Steps to be made.
        steps: usize,
    },
    /// The tokenizer is ready.
    Tokenizer {
        /// Its size.
        vocab_size: usize,
        /// Held-out bytes per token.
        bytes_per_token: f64,
    },
    /// The files are tokens.
    Tokenised {
        /// Tokens of the files that are trained on.
        n_tokens: usize,
        /// Files that were tokenised; the tokens of the others were kept from before.
        n_files: usize,
        /// Why kept tokens were of no use, where they were damaged.
        damaged: Option<&'static str>,
    },
    /// Training goes on from a saved state.
    Resumed {
        /// Steps done before.
        step: usize,
    },
    /// A step of the range test was made.
    Searched {
        /// Steps of it.
        step: usize,
        /// At most.
        total: usize,
        /// What the recipe's rates were multiplied by.
        rate: f64,
        /// Mean loss of the step, nats per token.
        loss: f64,
    },
    /// The range test is over, and its steps are undone.
    Found {
        /// What the recipe's rates are multiplied by from now on.
        rate: f64,
    },
    /// The numbers ran away: the run is back at the last step to save at and goes on with half of its rates.
    RolledBack {
        /// The step that failed.
        from: usize,
        /// Steps done now.
        step: usize,
        /// What the recipe's rates are multiplied by from now on.
        rate: f64,
    },
    /// The run ends before its last step: what is held out is predicted no better than before.
    Stopped {
        /// Steps done.
        step: usize,
        /// The step whose masters are kept.
        best_step: usize,
        /// Held-out bits per byte of the model alone there.
        bits_per_byte: f64,
    },
    /// A step was made.
    Step {
        /// Steps done.
        step: usize,
        /// Steps in all.
        total: usize,
        /// Tokens seen so far.
        tokens: usize,
        /// Mean loss of the step, nats per token.
        loss: f64,
        /// Held-out bits per byte of the model alone, at the steps where it is measured.
        bits_per_byte: Option<f64>,
        /// Tokens per second of wall clock.
        tokens_per_s: f64,
        /// 6 · parameters · tokens/s as a share of what small products in cache reach on as many cores; `None` on a
        /// GPU, whose peak is not known.
        utilisation: Option<f64>,
        /// Seconds left.
        eta_s: f64,
    },
}

/// What training ends with. The caller signs and stores the checkpoint.
#[derive(Debug)]
pub struct Outcome {
    /// Ready to sign; `manifest.version` is 0 and `sections` empty until then.
    pub checkpoint: Checkpoint,
    /// Held-out figures before (untrained, or the base); zeros where it was interrupted before they were taken.
    pub before: HeldOut,
    /// After; equal to `before` where `finished` is false: an interrupted run is not measured.
    pub after: HeldOut,
    /// How much of `before` was saved; `None` where it was interrupted, or where the files that it judges by are fewer than two or
    /// others than before.
    pub gain: Option<measure::Gain>,
    /// The files that were held out whole, relative to the workspace. Empty for a workspace of a single file,
    /// whose last part is held out instead.
    pub held_out: Vec<PathBuf>,
    /// False if it was interrupted: the state is saved and the next run goes on.
    pub finished: bool,
    /// A drawing of how the loss fell, beside the state; a finished run has one.
    pub curve: Option<PathBuf>,
}

/// Bits per byte of held-out text that neither training nor the calibration of the blend has seen: half of the
/// held-out files, as the engine scores them.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct HeldOut {
    /// Model alone.
    pub model: f64,
    /// Memory alone, over the training files.
    pub memory: f64,
    /// The blend.
    pub blend: f64,
    /// What the unigram distribution of the held-out tokens themselves would cost: a model that has learned
    /// nothing but frequencies cannot be below it.
    pub unigram: f64,
    /// Model alone, on held-out files of dependencies, where such files are trained on beside the workspace's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub general: Option<f64>,
}

/// Why training did not start or did not end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// There is no Rust code to train on.
    #[error("no .rs file to train on under {root}, or all are left out; is it a cargo workspace?")]
    Empty {
        /// The workspace's root.
        root: PathBuf,
    },
    /// A path to be forgotten, or to be remembered, is none of this workspace's.
    #[error("{path}: {reason}")]
    Path {
        /// As it was given.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is too little to hold anything out.
    #[error("{bytes} bytes of Rust are too few to train on and to judge by; train a larger workspace")]
    TooSmall {
        /// Bytes there are.
        bytes: usize,
    },
    /// The recipe cannot be used.
    #[error(transparent)]
    Recipe(#[from] recipe::RecipeError),
    /// The list of licences cannot be used.
    #[error(transparent)]
    Licence(#[from] corpus::licence::UnknownLicence),
    /// The tokens cannot be kept.
    #[error(transparent)]
    Shards(#[from] corpus::shards::ShardError),
    /// The saved state cannot be used.
    #[error(transparent)]
    State(#[from] state::StateError),
    /// No tokenizer came of the training files.
    #[error("learning the tokenizer failed: {reason}")]
    Tokenizer {
        /// Why.
        reason: String,
    },
    /// The numbers ran away.
    #[error(
        "the loss of step {step} ran away however the rates were lowered; lower the rates of [optimizer] in the recipe, or let --find-lr do it, and pass --restart"
    )]
    Diverged {
        /// The step.
        step: usize,
    },
    /// The weights cannot be packed.
    #[error(
        "the trained weights cannot be packed ({0}): the rates are too high; lower the rates of [optimizer] in the recipe and pass --restart"
    )]
    Weights(#[from] nanochat_engine::checkpoint::SectionError),
    /// This binary cannot use the device.
    #[error(
        "this binary was built without `{feature}`; build one with `train/cuda/build.sh`, or with `cargo install --path cargo-nanochat --features {feature}` where the CUDA toolkit is installed"
    )]
    NotBuilt {
        /// The cargo feature it lacks.
        feature: &'static str,
    },
    /// There is no such device, or it cannot be used.
    #[error("no CUDA device can be used: {0}; see whether `nvidia-smi` lists one, or train with --device cpu")]
    Device(candle_core::Error),
    /// The device's operations do not know this architecture.
    #[error(
        "the model has {n_streams} residual streams, and training on a device knows one; set model.n_streams to 1 in the recipe, or train with --device cpu"
    )]
    Streams {
        /// How many it has.
        n_streams: usize,
    },
    /// A tensor operation failed.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
    /// Worker threads could not be started.
    #[error("starting worker threads: {0}; try fewer with --threads")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// The most memory that this process ever held, in bytes; `None` where the system does not say.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// Writes what would be trained on, as tokens, to a file by itself: for [`Options::packed`] on another machine. A tokenizer
/// is learned as for a run that begins afresh, or is the base's.
pub fn pack(options: &Options, path: &Path, events: &mut dyn FnMut(Event)) -> Result<Packed, TrainError> {
    run::pack(options, path, events)
}

/// Trains. Saves its state and returns early, with `finished: false`, when cancelled.
pub fn train(options: &Options, events: &mut dyn FnMut(Event), cancel: &Cancel) -> Result<Outcome, TrainError> {
    options.device.check()?;
    run::train(options, events, cancel)
}
