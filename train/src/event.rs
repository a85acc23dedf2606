//! Progress that a run reports to its caller.

use std::path::PathBuf;

/// Progress of a run, in the order in which it happens.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// The files are read and split.
    Collected {
        /// Number of files to train on.
        n_train_files: usize,
        /// How many of these belong to dependencies.
        n_dependency_files: usize,
        /// Number of files held out whole.
        n_held_out_files: usize,
        /// Bytes to train on.
        train_bytes: usize,
        /// Files left out, each with the reason.
        skipped: Vec<(PathBuf, String)>,
        /// Number of secrets removed from the text of the files.
        n_scrubbed: usize,
    },
    /// Files of dependencies are replayed, so that the base model does not forget them.
    Replayed {
        /// Number of replayed files.
        n_train_files: usize,
        /// Number of dependencies' files held out whole.
        n_held_out_files: usize,
        /// Bytes of the replayed files.
        train_bytes: usize,
    },
    /// The run updates a finished one, as only part of its corpus has changed.
    Updated {
        /// Number of files that are new or have changed.
        n_changed_files: usize,
        /// Their share of the training bytes.
        share: f64,
        /// Number of steps of the update.
        steps: usize,
    },
    /// The tokenizer is ready.
    Tokenizer {
        /// Number of tokens in the vocabulary.
        vocab_size: usize,
        /// Bytes per token on the held-out text.
        bytes_per_token: f64,
    },
    /// The files are tokenised.
    Tokenised {
        /// Number of tokens to train on.
        n_tokens: usize,
        /// Number of files tokenised now; the others had stored tokens.
        n_files: usize,
        /// What is wrong with the stored tokens, if they were damaged.
        damaged: Option<&'static str>,
    },
    /// Training continues from a saved state.
    Resumed {
        /// Number of steps already done.
        step: usize,
    },
    /// The learning-rate range test made a step.
    Searched {
        /// Number of steps of the test so far.
        step: usize,
        /// Upper bound of the number of its steps.
        total: usize,
        /// Factor on the recipe's learning rates in this step.
        rate: f64,
        /// Mean loss of the step, nats per token.
        loss: f64,
    },
    /// The range test has finished, and its steps are undone.
    Found {
        /// Factor on the recipe's learning rates from now on.
        rate: f64,
    },
    /// The loss diverged: the run is back at its last saved step and continues at half of its rates.
    RolledBack {
        /// The step that diverged.
        from: usize,
        /// Number of steps done after going back.
        step: usize,
        /// Factor on the recipe's learning rates from now on.
        rate: f64,
    },
    /// Early stopping: the held-out text is predicted no better than at an earlier step.
    Stopped {
        /// Number of steps done.
        step: usize,
        /// The step whose weights are kept.
        best_step: usize,
        /// Held-out bits per byte of the model alone at that step.
        bits_per_byte: f64,
    },
    /// A training step was made.
    Step {
        /// Number of steps done.
        step: usize,
        /// Total number of steps of the run; an estimate under a time budget.
        total: usize,
        /// Number of training tokens seen so far.
        tokens: usize,
        /// Mean loss of the step, nats per token.
        loss: f64,
        /// Held-out bits per byte of the model alone, at the steps where they are measured.
        bits_per_byte: Option<f64>,
        /// Training tokens per second of wall-clock time.
        tokens_per_s: f64,
        /// 6 · parameters · tokens/s as a share of the throughput of small matrix products in cache on as many cores;
        /// `None` on a GPU, whose peak is not known.
        utilisation: Option<f64>,
        /// Estimated seconds left.
        eta_s: f64,
    },
}
