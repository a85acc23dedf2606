//! Options to a task: reads the recipe, collects the corpus, decides where to start, and turns files into tokens.

use std::path::Path;
use std::sync::Arc;

use nanochat_engine::Tokenizer;
use nanochat_engine::checkpoint::Fingerprint;

use super::resume::{self, Plan, Start};
use super::task::{Settings, Task, tokenizer_of};
use crate::data::corpus::{CollectRequest, Corpus};
use crate::data::forgotten::Forgotten;
use crate::data::learned::Learned;
use crate::data::licence::{Allowed, PERMISSIVE};
use crate::data::shards::{self, Shards};
use crate::data::tokenizer;
use crate::pool::Pool;
use crate::state;
use crate::state_dir::Lock;
use crate::{Event, Options, PackedCorpus, Recipe, TrainError};

/// Collects the corpus, plans the start and tokenises. Takes the lock of the state folder, which the task keeps.
pub(super) fn prepare(options: &Options, events: &mut dyn FnMut(Event)) -> Result<(Task, Start), TrainError> {
    let mut recipe = recipe(options)?;
    let lock = Lock::take(&options.state_dir)?;
    let workers = Pool::new(options.threads)?;
    let Collected { corpus, tokenizer: packed_tokenizer, forgets } = collect(options, &recipe, &workers)?;
    report(&corpus, events);
    let restart = options.restart || forgets;
    let base_hash = options.base.as_ref().map(|base| base.manifest.hash()).unwrap_or_default();
    let Plan { corpus, start, since, changes } = resume::plan(options, &recipe, corpus, &base_hash, restart)?;
    let mut time_budget_s = options.time_budget_s;
    if let Some(changes) = &changes {
        recipe.schedule.steps = resume::update_steps(options.steps, recipe.schedule.steps, changes);
        time_budget_s = time_budget_s.filter(|_| !changes.changed.is_empty());
        let n_changed_files = changes.changed.len();
        events(Event::Updated { n_changed_files, share: changes.share, steps: recipe.schedule.steps });
    }
    let tokenizer = match (&start, &options.base) {
        (Start::Resume(state) | Start::Update(state), _) => Arc::new(tokenizer_of(state)?),
        (Start::Fresh, Some(base)) => base.tokenizer.clone(),
        (Start::Fresh, None) => Arc::new(match packed_tokenizer {
            Some(tokenizer) => tokenizer,
            None => learn_tokenizer(&corpus, &recipe)?,
        }),
    };
    let (shards, stats) = Shards::of(&options.state_dir, &corpus, &tokenizer, &workers)?;
    events(Event::Tokenised {
        n_tokens: shards.n_tokens(shards.trained()),
        n_files: stats.n_tokenised,
        damaged: stats.damaged,
    });
    let root = options.sources.root.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut task = Task {
        fingerprint: Fingerprint::of(corpus.trained().map(|file| file.text.as_str())),
        learned: Learned::of(&corpus),
        shards: Arc::new(shards),
        recipe,
        corpus,
        tokenizer,
        base: options.base.clone(),
        base_hash,
        since,
        changes,
        settings: Settings {
            state_dir: options.state_dir.clone(),
            model_id: root.filter(|name| !name.is_empty()).unwrap_or_else(|| "workspace".to_owned()),
            n_threads: options.threads,
            device: options.device,
            find_lr: options.find_lr,
            time_budget_s,
            _lock: lock,
        },
    };
    task.corpus.release_texts();
    Ok((task, start))
}

/// See [`super::pack`].
pub(super) fn pack(options: &Options, path: &Path, events: &mut dyn FnMut(Event)) -> Result<PackedCorpus, TrainError> {
    let recipe = recipe(options)?;
    let _lock = Lock::take(&options.state_dir)?;
    let workers = Pool::new(options.threads)?;
    let (corpus, _) = collect_sources(options, &recipe, &workers)?;
    report(&corpus, events);
    let tokenizer = match &options.base {
        Some(base) => base.tokenizer.clone(),
        None => Arc::new(learn_tokenizer(&corpus, &recipe)?),
    };
    let shards = Shards::write(path, &corpus, &tokenizer, &workers)?;
    Ok(PackedCorpus { n_files: shards.documents().len(), n_tokens: shards.n_tokens(shards.trained()) })
}

/// The recipe with the options' overrides.
fn recipe(options: &Options) -> Result<Recipe, TrainError> {
    let mut recipe = Recipe::load(&options.recipe)?;
    recipe.check_served(&options.recipe)?;
    recipe.seed = options.seed.unwrap_or(recipe.seed);
    recipe.schedule.steps = options.steps.unwrap_or(recipe.schedule.steps).max(1);
    Ok(recipe)
}

fn learn_tokenizer(corpus: &Corpus, recipe: &Recipe) -> Result<Tokenizer, TrainError> {
    Ok(tokenizer::learn(corpus.trained().map(|file| file.text.as_str()), recipe.model.vocab_size)?)
}

/// Reports what was collected.
fn report(corpus: &Corpus, events: &mut dyn FnMut(Event)) {
    events(Event::Collected {
        n_train_files: corpus.trained().count(),
        n_dependency_files: corpus.dependencies.len(),
        n_held_out_files: corpus.held_out.len(),
        train_bytes: corpus.train_bytes(),
        skipped: corpus.skipped.clone(),
        n_scrubbed: corpus.n_scrubbed,
    });
    if !corpus.replay.is_empty() {
        events(Event::Replayed {
            n_train_files: corpus.replay.len(),
            n_held_out_files: corpus.general.len(),
            train_bytes: corpus.replay.iter().map(|file| file.text.len()).sum(),
        });
    }
}

/// The files of a run.
struct Collected {
    corpus: Corpus,
    /// The tokenizer of a packed corpus.
    tokenizer: Option<Tokenizer>,
    /// Whether a path is to be forgotten that no earlier run was to forget.
    forgets: bool,
}

fn collect(options: &Options, recipe: &Recipe, workers: &Pool) -> Result<Collected, TrainError> {
    Ok(match &options.packed {
        Some(path) => {
            let (corpus, tokenizer) = shards::unpack(path)?;
            Collected { corpus, tokenizer: Some(tokenizer), forgets: false }
        }
        None => {
            let (corpus, forgets) = collect_sources(options, recipe, workers)?;
            Collected { corpus, tokenizer: None, forgets }
        }
    })
}

/// Collects the corpus from the sources. True if a path is to be forgotten that no earlier run was to forget. Saves the
/// forgotten paths for later runs.
fn collect_sources(options: &Options, recipe: &Recipe, workers: &Pool) -> Result<(Corpus, bool), TrainError> {
    let root = &options.sources.root;
    let mut forgotten = Forgotten::load(&options.state_dir)?;
    let n_before = forgotten.paths().count();
    for path in &options.forget {
        if !forgotten.add(root, path) {
            let reason = "it is outside the workspace; give a file or a folder in it, relative to its root";
            return Err(TrainError::Path { path: path.clone(), reason });
        }
    }
    let forgets = forgotten.paths().count() > n_before;
    for path in &options.remember {
        if !forgotten.remove(root, path) {
            return Err(TrainError::Path { path: path.clone(), reason: "it was not forgotten" });
        }
    }
    // Replayed code is trained on too, so it must have the same licences as dependencies that are asked for.
    let permissive: Option<Vec<String>> =
        (recipe.data.replay_share > 0.0).then(|| PERMISSIVE.iter().map(|name| (*name).to_owned()).collect());
    let allowed = options.dependencies.as_ref().or(permissive.as_ref()).map(|list| Allowed::new(list)).transpose()?;
    let request = CollectRequest {
        sources: &options.sources,
        dependencies: allowed.as_ref(),
        forgotten: &forgotten,
        held_out_share: recipe.data.held_out_share,
        seed: recipe.seed,
    };
    let corpus = Corpus::collect(&request, workers)?;
    if forgets {
        // No later run may continue from weights that have learned it, even if this one is stopped before its first
        // save.
        state::remove(&options.state_dir)?;
    }
    if !options.forget.is_empty() || !options.remember.is_empty() {
        forgotten.save(&options.state_dir)?;
    }
    let is_replayed = options.dependencies.is_none() && recipe.data.replay_share > 0.0;
    Ok((if is_replayed { corpus.replayed(&options.sources, recipe.seed) } else { corpus }, forgets))
}
