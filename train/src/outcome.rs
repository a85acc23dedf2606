//! Results of a run, and of packing a corpus.

use std::path::PathBuf;

use nanochat_engine::Checkpoint;

use crate::measure::{Gain, HeldOut};

/// The result of training. The caller signs and stores the checkpoint.
#[derive(Debug)]
pub struct Outcome {
    /// Ready to sign; `manifest.version` is 0 and `sections` empty until then.
    pub checkpoint: Checkpoint,
    /// Held-out figures before training, of the base or of fresh weights; zeros if the run was interrupted before they
    /// were measured.
    pub before: HeldOut,
    /// Held-out figures after training; equal to `before` where `finished` is false, as an interrupted run is not
    /// measured.
    pub after: HeldOut,
    /// Bits per byte saved since `before`; `None` for an interrupted run, and where the held-out files are fewer than
    /// two or not the same as before.
    pub gain: Option<Gain>,
    /// Files held out whole, relative to the workspace. Empty for a workspace of a single file, whose last part is held
    /// out instead.
    pub held_out: Vec<PathBuf>,
    /// False if the run was interrupted: its state is saved, and the next run resumes it.
    pub finished: bool,
    /// Drawing of the loss curve, in the state folder; only a finished run has one.
    pub curve: Option<PathBuf>,
}

/// Size of the file that [`pack`](crate::pack) wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedCorpus {
    /// Number of files, held-out ones included.
    pub n_files: usize,
    /// Number of tokens to train on.
    pub n_tokens: usize,
}
