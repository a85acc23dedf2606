//! One run from sources to outcome: step by step, saved on the way, resumed bit for bit.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use nanochat_engine::checkpoint::{Fingerprint, Manifest, PackedWeights, Record, Training};
use nanochat_engine::memory::Blend;
use nanochat_engine::{Cancel, Checkpoint, Config, Tokenizer};

use crate::backend::Backend;
use crate::data::Batch;
use crate::data::corpus::{CollectRequest, Corpus};
use crate::data::documents::Documents;
use crate::data::forgotten::Forgotten;
use crate::data::learned::{Changes, Learned};
use crate::data::licence::{self, Allowed};
use crate::data::mixture::Mixture;
use crate::data::packages::Packages;
use crate::data::shards::{self, Shards, Split};
use crate::data::tokenizer::{self, TokenizerError};
use crate::journal::{Journal, StepEntry};
use crate::lr_finder::RangeTest;
use crate::measure::{self, Figures, ValidationSet};
use crate::model::{Graph, Params};
use crate::ops::MatmulPrecision;
use crate::optim::{Moments, Update, moments};
use crate::pool::Pool;
use crate::schedule::Schedule;
use crate::state::{self, Best, Shapes, Snapshot, State};
use crate::state_dir::Lock;
use crate::{Device, Event, Options, Outcome, PackedCorpus, Recipe, TrainError, curve, export};

/// Trains. Saves its state and returns early, with `finished: false`, when cancelled.
pub fn train(options: &Options, events: &mut dyn FnMut(Event), cancel: &Cancel) -> Result<Outcome, TrainError> {
    options.device.check()?;
    let mut recipe = recipe(options)?;
    let _lock = Lock::take(&options.state_dir)?;
    let workers = Pool::new(options.threads)?;
    let (corpus, packed_tokenizer, forgets) = match &options.packed {
        Some(path) => {
            let (corpus, tokenizer) = shards::unpack(path)?;
            (corpus, Some(tokenizer), false)
        }
        None => {
            let (corpus, forgets) = collect(options, &recipe, &workers)?;
            (corpus, None, forgets)
        }
    };
    collected(&corpus, events);
    let base_hash = options.base.as_ref().map(|base| base.manifest.hash()).unwrap_or_default();
    let Plan { corpus, begin, since, changes } =
        plan(options, &recipe, corpus, &base_hash, options.restart || forgets)?;
    let mut time_budget_s = options.time_budget_s;
    if let Some(changes) = &changes {
        recipe.schedule.steps = update_steps(options, &recipe, changes);
        time_budget_s = time_budget_s.filter(|_| !changes.changed.is_empty());
        let n_changed_files = changes.changed.len();
        events(Event::Updated { n_changed_files, share: changes.share, steps: recipe.schedule.steps });
    }
    let tokenizer = match (&begin, &options.base) {
        (Begin::Resume(state) | Begin::Update(state), _) => Arc::new(
            Tokenizer::from_merges(state.merges.clone()).map_err(|e| TokenizerError { reason: e.to_string() })?,
        ),
        (Begin::Fresh, Some(base)) => base.tokenizer.clone(),
        (Begin::Fresh, None) => Arc::new(match packed_tokenizer {
            Some(tokenizer) => tokenizer,
            None => learn_tokenizer(&corpus, &recipe)?,
        }),
    };
    let (shards, made) = Shards::of(&options.state_dir, &corpus, &tokenizer, &workers)?;
    drop(workers);
    events(Event::Tokenised {
        n_tokens: shards.n_tokens(shards.trained()),
        n_files: made.n_tokenised,
        damaged: made.damaged,
    });
    let mut task = Task {
        fingerprint: Fingerprint::of(corpus.trained().map(|file| file.text.as_str())),
        learned: Learned::of(&corpus),
        shards: Arc::new(shards),
        recipe,
        corpus,
        tokenizer,
        base_hash,
        since,
        changes,
        time_budget_s,
    };
    task.corpus.release_texts();
    let mut run = Run::new(options, task)?;
    events(run.tokenizer_event());
    let is_resumed = matches!(begin, Begin::Resume(_));
    match begin {
        Begin::Resume(state) => {
            run.resume(*state);
            events(Event::Resumed { step: run.step });
        }
        Begin::Update(state) => {
            run.restore(state.now);
            (run.step, run.moments) = (0, run.task.recipe.optimizer.moments(&run.params));
            run.rate = state.rate;
        }
        Begin::Fresh => {}
    }
    if !is_resumed {
        match run.measure(run.first_blend(), cancel)? {
            Some((_, figures)) => run.before = figures,
            None => return run.unfinished(),
        }
        if options.find_lr && !run.find_rate(events, cancel)? {
            return run.unfinished();
        }
    }
    if run.steps(options, events, cancel)? { run.finish(options, cancel) } else { run.unfinished() }
}

/// Writes the tokens of the corpus to a file of its own, for [`Options::packed`] on another machine. The tokenizer is learned
/// as for a fresh run, or is the base's.
pub fn pack(options: &Options, path: &Path, events: &mut dyn FnMut(Event)) -> Result<PackedCorpus, TrainError> {
    let recipe = recipe(options)?;
    let _lock = Lock::take(&options.state_dir)?;
    let workers = Pool::new(options.threads)?;
    let (corpus, _) = collect(options, &recipe, &workers)?;
    collected(&corpus, events);
    let tokenizer = match &options.base {
        Some(base) => base.tokenizer.clone(),
        None => Arc::new(learn_tokenizer(&corpus, &recipe)?),
    };
    let shards = Shards::write(path, &corpus, &tokenizer, &workers)?;
    Ok(PackedCorpus { n_files: shards.documents().len(), n_tokens: shards.n_tokens(shards.trained()) })
}

/// The recipe with what overrides it.
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

/// Says what there is.
fn collected(corpus: &Corpus, events: &mut dyn FnMut(Event)) {
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

/// What is trained on and what is judged by, and whether something is to be forgotten that no run before was to forget.
/// Keeps what is to be forgotten for the runs to come.
fn collect(options: &Options, recipe: &Recipe, workers: &Pool) -> Result<(Corpus, bool), TrainError> {
    let root = &options.sources.root;
    let mut forgotten = Forgotten::load(&options.state_dir)?;
    let n_before = forgotten.paths().count();
    for path in &options.forget {
        if !forgotten.add(root, path) {
            let reason = "it lies outside the workspace; give a file or a folder in it, relative to its root";
            return Err(TrainError::Path { path: path.clone(), reason });
        }
    }
    let forgets = forgotten.paths().count() > n_before;
    for path in &options.remember {
        if !forgotten.remove(root, path) {
            return Err(TrainError::Path { path: path.clone(), reason: "it was not forgotten" });
        }
    }
    // What is replayed is trained on too: by the same licences as where that is asked for.
    let permissive: Option<Vec<String>> =
        (recipe.data.replay_share > 0.0).then(|| licence::PERMISSIVE.iter().map(|name| (*name).to_owned()).collect());
    let allowed = options.dependencies.as_ref().or(permissive.as_ref()).map(|list| Allowed::new(list)).transpose()?;
    let wanted = CollectRequest {
        sources: &options.sources,
        dependencies: allowed.as_ref(),
        forgotten: &forgotten,
        held_out_share: recipe.data.held_out_share,
        seed: recipe.seed,
    };
    let corpus = Corpus::collect(&wanted, workers)?;
    if forgets {
        // No later run may go on from what has learned it, even if this one is stopped before its first save.
        state::remove(&options.state_dir)?;
    }
    if !options.forget.is_empty() || !options.remember.is_empty() {
        forgotten.save(&options.state_dir)?;
    }
    let is_replayed = options.dependencies.is_none() && recipe.data.replay_share > 0.0;
    Ok((if is_replayed { corpus.replayed(&options.sources, recipe.seed) } else { corpus }, forgets))
}

/// What a run begins with, and over which corpus.
struct Plan {
    corpus: Corpus,
    begin: Begin,
    /// Hash of the corpus that the weights had learned before.
    since: Option<String>,
    /// What is new in it.
    changes: Option<Changes>,
}

enum Begin {
    /// Fresh weights, or those of the base.
    Fresh,
    /// A run that was saved.
    Resume(Box<State>),
    /// The weights of a finished one.
    Update(Box<State>),
}

fn plan(
    options: &Options,
    recipe: &Recipe,
    corpus: Corpus,
    base_hash: &str,
    is_afresh: bool,
) -> Result<Plan, TrainError> {
    let plan = |corpus, begin| Plan { corpus, begin, since: None, changes: None };
    if is_afresh {
        return Ok(plan(corpus, Begin::Fresh));
    }
    let Some(state) = load(options, state::FILE_NAME, recipe)?.map(Box::new) else {
        return Ok(plan(corpus, Begin::Fresh));
    };
    let learned = Learned::load(&options.state_dir)?;
    let check = |corpus: &Corpus| state.check(&options.state_dir, &recipe.hash(), &corpus.hash, base_hash);
    if !state.finished {
        // One that went on from a finished run has that one's sides.
        let learned = learned.filter(|learned| state.since.as_ref() == Some(&learned.corpus));
        let corpus = learned.as_ref().map_or(corpus.clone(), |learned| learned.keep_sides(corpus));
        check(&corpus)?;
        let changes = learned.and_then(|learned| learned.changes(&corpus));
        let since = state.since.clone();
        return Ok(Plan { corpus, begin: Begin::Resume(state), since, changes });
    }
    let Some(learned) = learned.filter(|learned| learned.corpus == state.corpus) else {
        // Nothing is lost by a fresh start: what a finished run made is in its checkpoint.
        return Ok(match check(&corpus) {
            Ok(()) => plan(corpus, Begin::Resume(state)),
            Err(_) => plan(corpus, Begin::Fresh),
        });
    };
    let kept = learned.keep_sides(corpus.clone());
    if check(&kept).is_ok() {
        // Of an update the steps are those of what had changed; a whole run's would be another run.
        let changes = state.since.is_some().then(Changes::none);
        return Ok(Plan { corpus: kept, since: state.since.clone(), begin: Begin::Resume(state), changes });
    }
    let is_alike = state.recipe == recipe.hash() && state.base == base_hash;
    Ok(match learned.changes(&kept).filter(|_| is_alike) {
        Some(changes) => {
            let since = Some(state.corpus.clone());
            Plan { corpus: kept, begin: Begin::Update(state), since, changes: Some(changes) }
        }
        None => plan(corpus, Begin::Fresh),
    })
}

/// The least steps that learn anything new.
const LEAST_UPDATE: usize = 12;
/// How much longer than its share of a whole run what has changed is trained on: little text needs more passes.
const UPDATE_GAIN: f64 = 4.0;

fn update_steps(options: &Options, recipe: &Recipe, changes: &Changes) -> usize {
    let steps = recipe.schedule.steps;
    match (options.steps, changes.changed.is_empty()) {
        (_, true) => 0,
        (Some(steps), _) => steps,
        (None, _) => {
            ((steps as f64 * UPDATE_GAIN * changes.share).ceil() as usize).clamp(LEAST_UPDATE.min(steps), steps)
        }
    }
}

fn load(options: &Options, name: &str, recipe: &Recipe) -> Result<Option<State>, TrainError> {
    let shapes = |vocab_size| {
        let config = config(options, recipe, vocab_size);
        config.validate().ok()?;
        let params = Params::init(&config, 0);
        Some(Shapes {
            lengths: params.list.iter().map(|param| param.values.len()).collect(),
            has_averages: recipe.optimizer.ema > 0.0,
            moments: recipe.optimizer.moments(&params),
        })
    };
    Ok(State::load(&options.state_dir, name, shapes)?)
}

fn config(options: &Options, recipe: &Recipe, vocab_size: usize) -> Config {
    match &options.base {
        Some(base) => base.weights.config().clone(),
        None => Config { vocab_size, ..recipe.model.clone() },
    }
}

/// What a run is to do.
struct Task {
    recipe: Recipe,
    /// Without the texts that are trained on.
    corpus: Corpus,
    shards: Arc<Shards>,
    fingerprint: Fingerprint,
    learned: Learned,
    tokenizer: Arc<Tokenizer>,
    base_hash: String,
    /// See [`Plan`].
    since: Option<String>,
    changes: Option<Changes>,
    time_budget_s: Option<f64>,
}

impl Task {
    /// What sequences are drawn from. Where only a part is new, twice as many come from it as from the rest.
    fn mixture(&self, pool: &Pool) -> Mixture {
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
        // What is held out is not to be seen in a snippet either.
        let is_seen = |split: Split| !matches!(split, Split::HeldOut | Split::General);
        let names = shards.documents().iter().map(|document| is_seen(document.split).then_some(&*document.name));
        let packages = Arc::new(Packages::of(names, |idx| shards.text(idx, tokenizer), pool));
        let own = 1.0 - data.replay_share;
        let (of_new, of_old) = if new.is_empty() { (0.0, own) } else { (own * 2.0 / 3.0, own / 3.0) };
        let parts = [(of_new, new), (of_old, old), (data.replay_share, replayed)];
        let parts = parts.into_iter().filter(|(_, places)| !places.is_empty()).map(|(share, places)| {
            let (tokenizer, shards, packages) = (tokenizer.clone(), shards.clone(), packages.clone());
            (share, Documents::from_shards(tokenizer, shards, places, packages, data, recipe.seed))
        });
        Mixture::new(parts.collect(), recipe.seed)
    }
}

/// Everything between the first and the last step.
struct Run {
    task: Task,
    base: Option<Checkpoint>,
    model_id: String,
    n_threads: usize,
    matmul: MatmulPrecision,
    pool: Pool,
    mixture: Mixture,
    watch: ValidationSet,
    /// Of dependencies, where they are replayed.
    general: Option<ValidationSet>,
    params: Params,
    moments: Moments,
    /// Running averages of the masters, where the recipe takes them.
    averages: Vec<Vec<f32>>,
    backend: Backend,
    step: usize,
    tokens: usize,
    stable: Option<Snapshot>,
    best: Option<Best>,
    before: Figures,
    /// What the recipe's rates are multiplied by.
    rate: f64,
    journal: Journal,
    /// Of the CPU; `None` where gradients are taken elsewhere.
    peak_gflops: Option<f64>,
}

/// The least that the recipe's rates are multiplied by before a run that runs away is given up.
const LEAST_RATE: f64 = 1.0 / 64.0;

impl Run {
    fn new(options: &Options, task: Task) -> Result<Self, TrainError> {
        let Task { recipe, corpus, tokenizer, .. } = &task;
        let data = &recipe.data;
        let (matmul, pool) = (recipe.precision.resolve(), Pool::new(options.threads)?);
        let mut params = match &options.base {
            Some(base) => Params::from_weights(&base.weights.unpack()),
            None => Params::init(&config(options, recipe, tokenizer.vocab_size()), recipe.seed),
        };
        params.weights = recipe.weights;
        let n_parts = data.sequences / data.micro_sequences;
        let mut backend = Backend::for_device(options.device, &params, n_parts, data.seq_len)?;
        backend.entropy = recipe.entropy;
        // What a run may stop by must not be what it is judged by.
        let (calibration, report) = measure::halves(&corpus.held_out);
        let watched = if calibration.is_empty() { report } else { calibration };
        let watch = |files| ValidationSet::new(tokenizer, files, data.seq_len, recipe.measure.sequences);
        let root = options.sources.root.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(Self {
            peak_gflops: (options.device == Device::Cpu).then(|| matmul.precision.gflops() * pool.n_workers() as f64),
            matmul,
            mixture: task.mixture(&pool),
            pool,
            watch: watch(&watched),
            general: (!corpus.general.is_empty()).then(|| watch(&corpus.general)),
            moments: recipe.optimizer.moments(&params),
            averages: match recipe.optimizer.ema > 0.0 {
                true => params.list.iter().map(|param| param.values.clone()).collect(),
                false => Vec::new(),
            },
            backend,
            params,
            base: options.base.clone(),
            model_id: root.filter(|name| !name.is_empty()).unwrap_or_else(|| "workspace".to_owned()),
            n_threads: options.threads,
            step: 0,
            tokens: 0,
            stable: None,
            best: None,
            before: Figures::default(),
            rate: 1.0,
            journal: Journal::new(&options.state_dir),
            task,
        })
    }

    fn tokenizer_event(&self) -> Event {
        let Task { corpus, shards, tokenizer, .. } = &self.task;
        let n_tokens = shards.n_tokens(shards.trained().end..shards.documents().len());
        let bytes_per_token = corpus.held_out_bytes() as f64 / n_tokens.max(1) as f64;
        Event::Tokenizer { vocab_size: tokenizer.vocab_size(), bytes_per_token }
    }

    /// Goes on from a state. One that is in the decay of a shorter run goes back to where that decay began:
    /// raising the rate again from a decayed model would throw away what the decay gained.
    fn resume(&mut self, state: State) {
        let State { now, stable, best, before, rate, .. } = state;
        (self.before, self.rate, self.best) = (before, rate, best);
        let schedule = &self.task.recipe.schedule;
        let (now, stable) = match stable {
            Some(stable) if Clock::goes_beyond(stable.step, schedule, self.task.time_budget_s) => {
                self.best = self.best.take().filter(|best| best.step <= stable.step);
                (stable, None)
            }
            stable => (now, stable),
        };
        self.restore(now);
        self.stable = stable;
    }

    fn restore(&mut self, snapshot: Snapshot) {
        (self.step, self.tokens) = (snapshot.step, snapshot.tokens);
        for (param, values) in self.params.list.iter_mut().zip(snapshot.values) {
            param.values = values;
        }
        (self.averages, self.moments) = (snapshot.averages, snapshot.moments);
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            step: self.step,
            tokens: self.tokens,
            values: self.params.list.iter().map(|param| param.values.clone()).collect(),
            averages: self.averages.clone(),
            moments: self.moments.clone(),
        }
    }

    /// The masters that are measured and exported: their averages, where the recipe takes them.
    fn served(&self) -> Cow<'_, Params> {
        if self.averages.is_empty() {
            return Cow::Borrowed(&self.params);
        }
        let mut served = self.params.clone();
        served.list.iter_mut().zip(&self.averages).for_each(|(param, average)| param.values.clone_from(average));
        Cow::Owned(served)
    }

    /// Whether as many measurements as the recipe bears were no better than the best.
    fn is_out_of_patience(&self) -> bool {
        let measure = &self.task.recipe.measure;
        let since = |best: &Best| (self.step - best.step.min(self.step)) / measure.every;
        measure.patience > 0 && self.best.as_ref().is_some_and(|best| since(best) >= measure.patience)
    }

    /// Makes steps at growing rates, undoes them and keeps the rate at which they did best. False if it was cancelled.
    fn find_rate(&mut self, events: &mut dyn FnMut(Event), cancel: &Cancel) -> Result<bool, TrainError> {
        let begin = self.snapshot();
        let mut test = RangeTest::default();
        while let Some(rate) = test.next() {
            if cancel.is_cancelled() {
                break;
            }
            let Some(loss) = self.one_step(rate)? else { break };
            test.push(loss);
            events(Event::Searched { step: self.step, total: RangeTest::STEPS, rate, loss });
        }
        self.restore(begin);
        if cancel.is_cancelled() {
            return Ok(false);
        }
        self.rate = test.best();
        events(Event::Found { rate: self.rate });
        Ok(true)
    }

    fn earlier(&self, options: &Options) -> Result<Option<State>, TrainError> {
        let Task { recipe, corpus, base_hash, .. } = &self.task;
        let Some(state) = load(options, state::EARLIER_NAME, recipe)? else { return Ok(None) };
        let is_ours = state.check(&options.state_dir, &recipe.hash(), &corpus.hash, base_hash).is_ok();
        Ok(is_ours.then_some(state).filter(|state| state.since == self.task.since))
    }

    /// Goes back to the last step whose number is one to save at, with half of the rates.
    fn roll_back(&mut self, options: &Options, events: &mut dyn FnMut(Event)) -> Result<(), TrainError> {
        let (from, rate) = (self.step, self.rate / 2.0);
        if rate < LEAST_RATE {
            return Err(TrainError::Diverged { step: from });
        }
        let earlier = self.earlier(options)?.ok_or(TrainError::Diverged { step: from })?; // somebody has removed it
        self.restore(earlier.now);
        (self.stable, self.best, self.rate) = (earlier.stable, earlier.best, rate);
        self.save(options, state::FILE_NAME, false)?;
        self.journal.begin(self.step)?;
        events(Event::RolledBack { from, step: self.step, rate });
        Ok(())
    }

    fn save(&self, options: &Options, name: &str, finished: bool) -> Result<(), TrainError> {
        let Task { recipe, corpus, tokenizer, base_hash, since, .. } = &self.task;
        let state = State {
            recipe: recipe.hash(),
            corpus: corpus.hash.clone(),
            base: base_hash.clone(),
            merges: tokenizer.merges().to_vec(),
            before: self.before.clone(),
            finished,
            rate: self.rate,
            now: self.snapshot(),
            stable: self.stable.clone(),
            best: self.best.clone(),
            since: since.clone(),
        };
        Ok(state.save(&options.state_dir, name)?)
    }

    /// Makes the steps that are left. False if it was cancelled; the state is saved either way, as unfinished: the
    /// figures are still to come.
    fn steps(&mut self, options: &Options, events: &mut dyn FnMut(Event), cancel: &Cancel) -> Result<bool, TrainError> {
        let mut clock = Clock { begin: Instant::now(), first_step: self.step, first_token: self.tokens };
        // There is always something to go back to, and it is not ahead.
        let has_earlier = self.earlier(options).is_ok_and(|earlier| earlier.is_some_and(|e| e.now.step <= self.step));
        if !has_earlier {
            self.save(options, state::EARLIER_NAME, false)?;
        }
        self.journal.begin(self.step)?;
        loop {
            let pace = clock.pace(self);
            // A rate that has not begun to fall says nothing yet about where it ends.
            let is_stopped = pace.decays && self.is_out_of_patience();
            if let Some(best) = self.best.as_ref().filter(|_| is_stopped && pace.done < 1.0) {
                events(Event::Stopped { step: self.step, best_step: best.step, bits_per_byte: best.bits_per_byte });
            }
            if pace.done >= 1.0 || is_stopped {
                self.save(options, state::FILE_NAME, false)?;
                return Ok(true);
            }
            if cancel.is_cancelled() {
                self.save(options, state::FILE_NAME, false)?;
                return Ok(false);
            }
            if self.stable.is_none() && pace.decays {
                self.stable = Some(self.snapshot());
            }
            let Some(loss) = self.one_step(pace.factor * self.rate)? else {
                self.roll_back(options, events)?;
                (clock.first_step, clock.first_token) = (self.step, self.tokens);
                continue;
            };
            let pace = clock.pace(self);
            let measure = &self.task.recipe.measure;
            let bits_per_byte = if self.step.is_multiple_of(measure.every) || pace.done >= 1.0 {
                let bits_per_byte = self.bits_per_byte(&self.watch)?;
                self.compare(bits_per_byte);
                Some(bits_per_byte)
            } else {
                None
            };
            self.journal.push(&StepEntry { step: self.step, tokens: self.tokens, loss, bits_per_byte })?;
            events(Event::Step {
                step: self.step,
                total: pace.total,
                tokens: self.tokens,
                loss,
                bits_per_byte,
                tokens_per_s: pace.tokens_per_s,
                utilisation: self
                    .peak_gflops
                    .map(|peak| 6e-9 * self.params.n_values() as f64 * pace.tokens_per_s / peak),
                eta_s: pace.eta_s,
            });
            if self.step.is_multiple_of(self.task.recipe.measure.save_every) {
                self.save(options, state::FILE_NAME, false)?;
                self.save(options, state::EARLIER_NAME, false)?;
            }
        }
    }

    fn bits_per_byte(&self, watch: &ValidationSet) -> Result<f64, TrainError> {
        Ok(watch.bits_per_byte(&Graph::new(&self.served(), self.matmul), &self.pool)?)
    }

    /// Keeps the masters if they are the best so far, where the run stops by that.
    fn compare(&mut self, bits_per_byte: f64) {
        let is_best = self.best.as_ref().is_none_or(|best| bits_per_byte < best.bits_per_byte);
        if self.task.recipe.measure.patience > 0 && is_best {
            let values = self.served().list.iter().map(|param| param.values.clone()).collect();
            self.best = Some(Best { step: self.step, bits_per_byte, values });
        }
    }

    /// Forward, backward, update. Returns the mean loss in nats; `None` where the numbers have run away, and nothing was
    /// updated.
    fn one_step(&mut self, factor: f64) -> Result<Option<f64>, TrainError> {
        let recipe = &self.task.recipe;
        let data = &recipe.data;
        let (micro, n_parts) = (data.micro_sequences, data.sequences / data.micro_sequences);
        let batches = self.pool.map(n_parts, |part| self.mixture.batch(self.step, part * micro..(part + 1) * micro));
        let weight = 1.0 / batches.iter().map(Batch::weight).sum::<f32>().max(1.0);
        let loss = self.backend.gradients(&self.params, self.matmul, &batches, weight, &self.pool)?;
        // What knows nothing costs the logarithm of the vocabulary. NaN is not below anything.
        let bound = 2.0 * (self.params.config.vocab_size as f64).ln();
        if loss.partial_cmp(&bound) != Some(std::cmp::Ordering::Less) {
            return Ok(None);
        }
        let gradients = self.backend.sum(&self.pool);
        let update = Update { factor, precision: self.matmul.precision, step: self.step + 1 };
        let norm = recipe.optimizer.step(&mut self.params, &mut self.moments, gradients, update, &self.pool);
        if !norm.is_finite() {
            return Ok(None);
        }
        for (average, param) in self.averages.iter_mut().zip(&self.params.list) {
            moments::average(average, &param.values, recipe.optimizer.ema, self.step);
        }
        self.step += 1;
        self.tokens += data.sequences * data.seq_len;
        Ok(Some(loss))
    }

    /// A checkpoint of the weights as they are, and its figures on the half of the held-out text that no
    /// calibration has seen. `None` where it was cancelled.
    fn measure(&self, blend: Blend, cancel: &Cancel) -> Result<Option<(Checkpoint, Figures)>, TrainError> {
        let checkpoint = self.checkpoint(blend)?;
        let Task { corpus, shards, .. } = &self.task;
        let memory = measure::memory(shards);
        let (_, report) = measure::halves(&corpus.held_out);
        let figures = measure::held_out(&checkpoint, &memory, &report, self.n_threads, cancel);
        let Ok(mut figures) = figures else { return Ok(None) };
        figures.total.general = self.general.as_ref().map(|watch| self.bits_per_byte(watch)).transpose()?;
        Ok(Some((checkpoint, figures)))
    }

    /// The gates before those of this workspace are found.
    fn first_blend(&self) -> Blend {
        self.base.as_ref().map_or_else(Blend::default, |base| base.blend.clone())
    }

    fn checkpoint(&self, blend: Blend) -> Result<Checkpoint, TrainError> {
        let Task { corpus, shards, fingerprint, tokenizer, base_hash, .. } = &self.task;
        let trained = shards.trained();
        let base = self.base.as_ref().map(|base| &base.manifest.training.fingerprint);
        let training = Training {
            corpus_hash: corpus.hash.clone(),
            n_files: trained.len() as u64,
            n_tokens: shards.n_tokens(trained) as u64,
            n_steps: self.step as u64,
            fingerprint: base.map_or_else(|| fingerprint.clone(), |base| fingerprint.with(base)),
        };
        let mut manifest = Manifest::new(self.model_id.clone(), self.params.config.clone(), training);
        manifest.licences = corpus.licences.clone();
        if let Some(base) = &self.base {
            manifest.lineage = base.manifest.lineage.iter().cloned().chain([base_hash.clone()]).collect();
        }
        let weights = Arc::new(PackedWeights::pack(&export::weights(&self.served()))?);
        Ok(Checkpoint { manifest, tokenizer: tokenizer.clone(), weights, blend })
    }

    fn held_out(&self) -> Vec<PathBuf> {
        let corpus = &self.task.corpus;
        match corpus.within_one_file {
            true => Vec::new(),
            false => corpus.held_out.iter().map(|file| file.name.clone().into()).collect(),
        }
    }

    fn unfinished(self) -> Result<Outcome, TrainError> {
        let checkpoint = self.checkpoint(self.first_blend())?;
        let held_out = self.held_out();
        let before = self.before.total;
        Ok(Outcome { checkpoint, before, after: before, gain: None, held_out, finished: false, curve: None })
    }

    /// Takes the figures. Only then is the state one of a finished run, which another corpus may replace.
    fn finish(mut self, options: &Options, cancel: &Cancel) -> Result<Outcome, TrainError> {
        if let Some(best) = &self.best {
            self.params.list.iter_mut().zip(&best.values).for_each(|(param, best)| param.values.clone_from(best));
            self.averages.iter_mut().zip(&best.values).for_each(|(average, best)| average.clone_from(best));
        }
        let Task { corpus, shards, .. } = &self.task;
        let (calibration, _) = measure::halves(&corpus.held_out);
        let memory = measure::memory(shards);
        let untuned = self.checkpoint(self.first_blend())?;
        let blend = measure::calibrate(&untuned, &memory, &calibration, self.n_threads, cancel);
        let Ok(blend) = blend else { return self.unfinished() };
        let Some((mut checkpoint, after)) = self.measure(blend, cancel)? else { return self.unfinished() };
        self.save(options, state::FILE_NAME, true)?;
        self.task.learned.save(&options.state_dir)?;
        checkpoint.manifest.record = Some(Record {
            weights_hash: String::new(), // the writer binds it to the section that it writes
            model_bits_per_byte: after.total.model,
            memory_bits_per_byte: after.total.memory,
            blend_bits_per_byte: after.total.blend,
        });
        let held_out = self.held_out();
        let curve = Some(curve::save(&options.state_dir, self.journal.entries())?);
        let gain = self.before.gain(&after);
        let (before, after) = (self.before.total, after.total);
        Ok(Outcome { checkpoint, before, after, gain, held_out, finished: true, curve })
    }
}

/// Where a run is between its begin and its end, by steps or by the wall clock.
struct Clock {
    begin: Instant,
    first_step: usize,
    first_token: usize,
}

struct Pace {
    done: f64,
    decays: bool,
    factor: f64,
    total: usize,
    tokens_per_s: f64,
    eta_s: f64,
}

impl Clock {
    /// Whether a run still has steps at the full rate to make beyond `decay_start`, where a decay once began. One by
    /// the wall clock always has: its time begins anew.
    fn goes_beyond(decay_start: usize, schedule: &Schedule, time_budget_s: Option<f64>) -> bool {
        time_budget_s.is_some() || decay_start < schedule.decay_start()
    }

    fn pace(&self, run: &Run) -> Pace {
        let (schedule, time_budget_s) = (&run.task.recipe.schedule, run.task.time_budget_s);
        let elapsed = self.begin.elapsed().as_secs_f64();
        let step = run.step;
        let n_made = (step - self.first_step) as f64;
        let tokens_per_s = if n_made > 0.0 { (run.tokens - self.first_token) as f64 / elapsed } else { 0.0 };
        match time_budget_s {
            Some(budget) => {
                let done = if budget > 0.0 { elapsed / budget } else { 1.0 };
                Pace {
                    done,
                    decays: done >= 1.0 - schedule.decay_share,
                    factor: schedule.factor_at(step, done),
                    total: if done > 0.0 { self.first_step + (n_made / done).ceil() as usize } else { step },
                    tokens_per_s,
                    eta_s: (budget - elapsed).max(0.0),
                }
            }
            None => Pace {
                done: if step >= schedule.steps { 1.0 } else { step as f64 / schedule.steps as f64 },
                decays: step >= schedule.decay_start(),
                factor: schedule.factor(step),
                total: schedule.steps,
                tokens_per_s,
                eta_s: if n_made > 0.0 {
                    (schedule.steps - step.min(schedule.steps)) as f64 * elapsed / n_made
                } else {
                    0.0
                },
            },
        }
    }
}
