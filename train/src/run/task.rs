//! What a run works on: everything that is fixed before its first step.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nanochat_engine::checkpoint::Fingerprint;
use nanochat_engine::{Checkpoint, Config, Tokenizer};

use crate::data::Corpus;
use crate::data::documents::Documents;
use crate::data::learned::{Changes, Learned};
use crate::data::mixture::Mixture;
use crate::data::packages::Packages;
use crate::data::shards::{Shards, Split};
use crate::model::Params;
use crate::pool::Pool;
use crate::state::{Shapes, State};
use crate::state_dir::{Lock, StateError};
use crate::{Device, Event, Recipe, TrainError};

/// Recipe, corpus and settings of a run.
pub(super) struct Task {
    /// With the options' overrides.
    pub(super) recipe: Recipe,
    /// Without the texts that are trained on: these are in `shards`.
    pub(super) corpus: Corpus,
    /// The corpus as tokens.
    pub(super) shards: Arc<Shards>,
    /// Fingerprint of the training texts.
    pub(super) fingerprint: Fingerprint,
    /// Names and hashes of the corpus's files, for a later update of this run.
    pub(super) learned: Learned,
    pub(super) tokenizer: Arc<Tokenizer>,
    /// The checkpoint whose weights the run starts from, instead of fresh ones.
    pub(super) base: Option<Checkpoint>,
    /// Hash of the base's manifest; empty without a base.
    pub(super) base_hash: String,
    /// Hash of the corpus of the finished run that this one updates.
    pub(super) since: Option<String>,
    /// What is new in the corpus since then.
    pub(super) changes: Option<Changes>,
    pub(super) settings: Settings,
}

/// The options that the stages after the preparation need.
pub(super) struct Settings {
    pub(super) state_dir: PathBuf,
    /// Identifies the model in its manifest: the name of the workspace's folder.
    pub(super) model_id: String,
    /// As in [`crate::Options::threads`].
    pub(super) n_threads: usize,
    pub(super) device: Device,
    pub(super) find_lr: bool,
    pub(super) time_budget_s: Option<f64>,
    /// Keeps other trainers away from `state_dir` until the run ends.
    pub(super) _lock: Lock,
}

impl Task {
    /// Size of the vocabulary, and what a token stands for on the held-out text.
    pub(super) fn tokenizer_event(&self) -> Event {
        let Task { corpus, shards, tokenizer, .. } = self;
        let n_tokens = shards.n_tokens(shards.trained().end..shards.documents().len());
        let bytes_per_token = corpus.held_out_bytes() as f64 / n_tokens.max(1) as f64;
        Event::Tokenizer { vocab_size: tokenizer.vocab_size(), bytes_per_token }
    }

    /// Masters before the first step: the base's, or fresh ones.
    pub(super) fn initial_params(&self) -> Params {
        let mut params = match &self.base {
            Some(base) => Params::from_weights(&base.weights.unpack()),
            None => Params::init(&config(None, &self.recipe, self.tokenizer.vocab_size()), self.recipe.seed),
        };
        params.weights = self.recipe.weights;
        params
    }

    /// What sequences are drawn from. In an update, twice as many come from the new text as from the rest.
    pub(super) fn mixture(&self, pool: &Pool) -> Mixture {
        let Task { recipe, shards, tokenizer, changes, .. } = self;
        let data = &recipe.data;
        let is_new = |name: &str| changes.as_ref().is_some_and(|changes| changes.changed.contains(name));
        let (mut new, mut old, mut replayed) = (Vec::new(), Vec::new(), Vec::new());
        for (idx, document) in shards.documents().iter().enumerate().filter(|(_, document)| document.n_bytes > 0) {
            match document.split {
                Split::Train if is_new(&document.name) => new.push(idx),
                Split::Train | Split::Dependency => old.push(idx),
                Split::Replay => replayed.push(idx),
                Split::HeldOut | Split::General => {}
            }
        }
        // Held-out text must not be seen in a snippet either.
        let is_seen = |split: Split| !matches!(split, Split::HeldOut | Split::General);
        let names = shards.documents().iter().map(|document| is_seen(document.split).then_some(&*document.name));
        let packages = Arc::new(Packages::of(names, |idx| shards.text(idx, tokenizer), pool));
        let own = 1.0 - data.replay_share;
        let (of_new, of_old) = if new.is_empty() { (0.0, own) } else { (own * 2.0 / 3.0, own / 3.0) };
        let parts = [(of_new, new), (of_old, old), (data.replay_share, replayed)];
        let parts = parts.into_iter().filter(|(_, documents)| !documents.is_empty()).map(|(share, documents)| {
            let (tokenizer, shards, packages) = (tokenizer.clone(), shards.clone(), packages.clone());
            (share, Documents::from_shards(tokenizer, shards, documents, packages, data, recipe.seed))
        });
        Mixture::new(parts.collect(), recipe.seed)
    }

    /// Reads a state of this run's model; `None` if there is none.
    pub(super) fn load_state(&self, name: &str) -> Result<Option<State>, StateError> {
        load_state(&self.settings.state_dir, name, self.base.as_ref(), &self.recipe)
    }

    /// Whether a state belongs to this run: the same recipe, corpus and base, and an update of the same run.
    pub(super) fn owns(&self, state: &State) -> bool {
        let Task { recipe, corpus, base_hash, settings, .. } = self;
        let belongs = state.check(&settings.state_dir, &recipe.hash(), &corpus.hash, base_hash).is_ok();
        belongs && state.since == self.since
    }

    /// Files held out whole, by name.
    pub(super) fn held_out_files(&self) -> Vec<PathBuf> {
        match self.corpus.within_one_file {
            true => Vec::new(),
            false => self.corpus.held_out.iter().map(|file| file.name.clone().into()).collect(),
        }
    }
}

/// Reads the state `name` of a run by `recipe` from `base`; `None` if there is none.
pub(super) fn load_state(
    state_dir: &Path,
    name: &str,
    base: Option<&Checkpoint>,
    recipe: &Recipe,
) -> Result<Option<State>, StateError> {
    let shapes = |vocab_size| {
        let config = config(base, recipe, vocab_size);
        config.validate().ok()?;
        let params = Params::init(&config, 0);
        Some(Shapes {
            lengths: params.list.iter().map(|param| param.values.len()).collect(),
            has_averages: recipe.optimizer.ema > 0.0,
            moments: recipe.optimizer.moments(&params),
        })
    };
    State::load(state_dir, name, shapes)
}

fn config(base: Option<&Checkpoint>, recipe: &Recipe, vocab_size: usize) -> Config {
    match base {
        Some(base) => base.weights.config().clone(),
        None => Config { vocab_size, ..recipe.model.clone() },
    }
}

/// Turns merges back into the tokenizer that they are of.
pub(super) fn tokenizer_of(state: &State) -> Result<Tokenizer, TrainError> {
    let tokenizer = Tokenizer::from_merges(state.merges.clone());
    Ok(tokenizer.map_err(|e| crate::data::tokenizer::TokenizerError { reason: e.to_string() })?)
}
