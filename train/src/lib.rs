//! Workspace to checkpoint: trains a model on a workspace's code.
//!
//! ```text
//! Options → prepare (corpus, tokenizer, shards) → resume → steps (quantisation-aware) → finish (calibrate, measure)
//!         → Outcome: a checkpoint to sign, with its held-out bits per byte
//! ```
//!
//! Only this crate knows candle. The architecture is described by `engine::model::config`; [`model`] is the
//! differentiable twin of the engine's, and a parity test compares the two. This crate knows no editor, no terminal and
//! no cargo: progress is reported to the caller as [`Event`]s.

// The interface: what a caller gives and gets.
pub mod options;
pub mod event;
pub mod outcome;
pub mod error;
// One run from start to finish, and the recipe that describes it.
pub mod run;
pub mod recipe;
// From source files to training batches.
pub mod data;
// From masters and a batch to gradients.
pub mod model;
pub mod backend;
pub mod ops;
pub mod quantize;
// From gradients to new masters.
pub mod optim;
pub mod schedule;
pub mod lr_finder;
// From masters to a checkpoint and its figures.
pub mod export;
pub mod measure;
// Files in the state folder.
pub mod state_dir;
pub mod state;
pub mod journal;
pub mod curve;
// Threads and memory of this process.
pub mod pool;
pub mod process;

pub use backend::Device;
pub use error::TrainError;
pub use event::Event;
pub use measure::HeldOut;
pub use options::Options;
pub use outcome::{Outcome, PackedCorpus};
pub use process::peak_memory;
pub use recipe::Recipe;
pub use run::{pack, train};
