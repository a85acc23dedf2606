//! Why a run fails.

use std::path::PathBuf;

use crate::backend::BackendError;
use crate::data::corpus::CorpusError;
use crate::data::licence::UnknownLicence;
use crate::data::shards::ShardError;
use crate::data::tokenizer::TokenizerError;
use crate::recipe::RecipeError;
use crate::state_dir::StateError;

/// Why training did not start or did not finish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A path to forget or to remember that does not belong to this workspace.
    #[error("{path}: {reason}")]
    Path {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it, and what to give instead.
        reason: &'static str,
    },
    /// The sources give no corpus.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// The recipe cannot be used.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The list of licences cannot be used.
    #[error(transparent)]
    Licence(#[from] UnknownLicence),
    /// The tokens cannot be stored or read back.
    #[error(transparent)]
    Shards(#[from] ShardError),
    /// The saved state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// No tokenizer could be learned from the training files.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The loss diverged at all learning rates that were tried.
    #[error(
        "the loss diverged at step {step}, even at lower rates; lower the rates of [optimizer] in the recipe, or let --find-lr do it, and pass --restart"
    )]
    Diverged {
        /// The step at which the run was given up.
        step: usize,
    },
    /// The weights cannot be packed.
    #[error(
        "the trained weights cannot be packed ({0}): the rates are too high; lower the rates of [optimizer] in the recipe and pass --restart"
    )]
    Weights(#[from] nanochat_engine::checkpoint::SectionError),
    /// The device cannot be used, or a tensor operation on it failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Worker threads could not be started.
    #[error("starting worker threads: {0}; try fewer with --threads")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

impl From<candle_core::Error> for TrainError {
    fn from(error: candle_core::Error) -> Self {
        Self::Backend(error.into())
    }
}
