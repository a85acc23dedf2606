//! One run from sources to outcome: step by step, saved on the way, resumed bit for bit.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use nanochat_engine::checkpoint::{Fingerprint, Manifest, PackedWeights, Record, Training};
use nanochat_engine::memory::Blend;
use nanochat_engine::{Cancel, Checkpoint, Config, Tokenizer};

use crate::corpus::licence::Allowed;
use crate::corpus::shards::Shards;
use crate::corpus::{Corpus, Wanted};
use crate::documents::Documents;
use crate::gradients::Gradients;
use crate::journal::{Entry, Journal};
use crate::measure::{self, Watch};
use crate::model::{Graph, Params};
use crate::optim::Update;
use crate::pool::Pool;
use crate::schedule::{RangeTest, Schedule};
use crate::state::{self, Lock, Snapshot, State};
use crate::{Event, HeldOut, Options, Outcome, Recipe, TrainError, export, tokenizer};

/// See [`crate::train`].
pub(crate) fn train(options: &Options, events: &mut dyn FnMut(Event), cancel: &Cancel) -> Result<Outcome, TrainError> {
    let mut recipe = Recipe::load(&options.recipe)?;
    recipe.seed = options.seed.unwrap_or(recipe.seed);
    recipe.schedule.steps = options.steps.unwrap_or(recipe.schedule.steps).max(1);
    let _lock = Lock::take(&options.state_dir)?;
    let workers = Pool::new(options.threads)?;
    let corpus = collect(options, &recipe, &workers)?;
    events(Event::Collected {
        n_train_files: corpus.trained().count(),
        n_dependency_files: corpus.dependencies.len(),
        n_held_out_files: corpus.held_out.len(),
        train_bytes: corpus.train_bytes(),
        skipped: corpus.skipped.clone(),
        n_scrubbed: corpus.n_scrubbed,
    });

    let base_hash = options.base.as_ref().map(|base| base.manifest.hash()).unwrap_or_default();
    let saved = match options.restart {
        true => None,
        false => load(options, state::FILE_NAME, &recipe, &corpus, &base_hash)?,
    };
    let tokenizer = match (&saved, &options.base) {
        (Some(state), _) => Arc::new(
            Tokenizer::from_merges(state.merges.clone())
                .map_err(|e| TrainError::Tokenizer { reason: e.to_string() })?,
        ),
        (None, Some(base)) => base.tokenizer.clone(),
        (None, None) => {
            let texts = corpus.trained().map(|file| file.text.as_str());
            Arc::new(tokenizer::learn(texts, recipe.model.vocab_size)?)
        }
    };
    let (shards, made) = Shards::of(&options.state_dir, &corpus, &tokenizer, &workers)?;
    drop(workers);
    events(Event::Tokenised {
        n_tokens: shards.n_tokens(shards.trained()),
        n_files: made.n_tokenised,
        damaged: made.damaged,
    });
    let mut run = Run::new(options, recipe, (corpus, shards), tokenizer, base_hash)?;
    events(run.tokenizer_event());
    match saved {
        Some(state) => {
            run.resume(state, options.time_budget_s);
            events(Event::Resumed { step: run.step });
        }
        None => {
            match run.measure(run.first_blend(), cancel)? {
                Some((_, figures)) => run.before = figures,
                None => return run.unfinished(),
            }
            if options.find_lr && !run.find_rate(events, cancel)? {
                return run.unfinished();
            }
        }
    }
    if run.steps(options, events, cancel)? { run.finish(options, cancel) } else { run.unfinished() }
}

fn collect(options: &Options, recipe: &Recipe, workers: &Pool) -> Result<Corpus, TrainError> {
    let allowed = options.dependencies.as_deref().map(Allowed::new).transpose()?;
    let wanted = Wanted {
        sources: &options.sources,
        dependencies: allowed.as_ref(),
        held_out_share: recipe.data.held_out_share,
        seed: recipe.seed,
    };
    Corpus::collect(&wanted, workers)
}

fn load(
    options: &Options,
    name: &str,
    recipe: &Recipe,
    corpus: &Corpus,
    base_hash: &str,
) -> Result<Option<State>, TrainError> {
    let lengths = |vocab_size| {
        let config = config(options, recipe, vocab_size);
        match config.validate() {
            Ok(()) => Params::init(&config, 0).list.iter().map(|param| param.values.len()).collect(),
            Err(_) => Vec::new(), // no state has no parameters, so this matches none
        }
    };
    let Some(state) = State::load(&options.state_dir, name, lengths)? else { return Ok(None) };
    match state.check(&options.state_dir, &recipe.hash(), &corpus.hash, base_hash) {
        Ok(()) => Ok(Some(state)),
        // Nothing is lost: what a finished run made is in its checkpoint.
        Err(_) if state.finished => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn config(options: &Options, recipe: &Recipe, vocab_size: usize) -> Config {
    match &options.base {
        Some(base) => base.weights.config().clone(),
        None => Config { vocab_size, ..recipe.model.clone() },
    }
}

/// Everything between the first and the last step.
struct Run {
    recipe: Recipe,
    /// Without the texts that are trained on.
    corpus: Corpus,
    shards: Arc<Shards>,
    fingerprint: Fingerprint,
    tokenizer: Arc<Tokenizer>,
    base: Option<Checkpoint>,
    base_hash: String,
    model_id: String,
    n_threads: usize,
    precision: nanochat_kernels::Precision,
    pool: Pool,
    documents: Documents,
    watch: Watch,
    params: Params,
    momenta: Vec<Vec<f32>>,
    gradients: Gradients,
    step: usize,
    tokens: usize,
    stable: Option<Snapshot>,
    before: HeldOut,
    /// What the recipe's rates are multiplied by.
    rate: f64,
    journal: Journal,
    peak_gflops: f64,
}

/// The least that the recipe's rates are multiplied by before a run that runs away is given up.
const LEAST_RATE: f64 = 1.0 / 64.0;

impl Run {
    fn new(
        options: &Options,
        recipe: Recipe,
        (mut corpus, shards): (Corpus, Shards),
        tokenizer: Arc<Tokenizer>,
        base_hash: String,
    ) -> Result<Self, TrainError> {
        let (shards, fingerprint) =
            (Arc::new(shards), Fingerprint::of(corpus.trained().map(|file| file.text.as_str())));
        corpus.forget();
        let data = &recipe.data;
        let (precision, pool) = (recipe.precision.resolve(), Pool::new(options.threads)?);
        let params = match &options.base {
            Some(base) => Params::from_weights(&base.weights.unpack()),
            None => Params::init(&config(options, &recipe, tokenizer.vocab_size()), recipe.seed),
        };
        let root = options.sources.root.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(Self {
            peak_gflops: precision.gflops() * pool.n_workers() as f64,
            precision,
            pool,
            documents: Documents::from_shards(tokenizer.clone(), shards.clone(), data, recipe.seed),
            watch: Watch::new(&tokenizer, &corpus.held_out, data.seq_len, recipe.measure.sequences),
            momenta: params.list.iter().map(|param| vec![0.0; param.values.len()]).collect(),
            gradients: Gradients::new(&params, recipe.data.sequences / recipe.data.micro_sequences),
            params,
            base: options.base.clone(),
            base_hash,
            model_id: root.filter(|name| !name.is_empty()).unwrap_or_else(|| "workspace".to_owned()),
            n_threads: options.threads,
            step: 0,
            tokens: 0,
            stable: None,
            before: HeldOut::default(),
            rate: 1.0,
            journal: Journal::new(&options.state_dir),
            recipe,
            corpus,
            shards,
            fingerprint,
            tokenizer,
        })
    }

    fn tokenizer_event(&self) -> Event {
        let n_tokens = self.shards.n_tokens(self.shards.trained().end..self.shards.documents().len());
        let bytes_per_token = self.corpus.held_out_bytes() as f64 / n_tokens.max(1) as f64;
        Event::Tokenizer { vocab_size: self.tokenizer.vocab_size(), bytes_per_token }
    }

    /// Goes on from a state. One that is in the decay of a shorter run goes back to where that decay began:
    /// raising the rate again from a decayed model would throw away what the decay gained.
    fn resume(&mut self, state: State, time_budget_s: Option<f64>) {
        let State { now, stable, before: [model, memory, blend, unigram], rate, .. } = state;
        self.before = HeldOut { model, memory, blend, unigram };
        self.rate = rate;
        let (now, stable) = match stable {
            Some(stable) if Clock::goes_beyond(stable.step, &self.recipe.schedule, time_budget_s) => (stable, None),
            stable => (now, stable),
        };
        self.restore(now);
        self.stable = stable;
    }

    fn restore(&mut self, snapshot: Snapshot) {
        (self.step, self.tokens) = (snapshot.step, snapshot.tokens);
        snapshot.restore(&mut self.params, &mut self.momenta);
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.params, &self.momenta, self.step, self.tokens)
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
        load(options, state::EARLIER_NAME, &self.recipe, &self.corpus, &self.base_hash)
    }

    /// Goes back to the last step whose number is one to save at, with half of the rates.
    fn roll_back(&mut self, options: &Options, events: &mut dyn FnMut(Event)) -> Result<(), TrainError> {
        let (from, rate) = (self.step, self.rate / 2.0);
        if rate < LEAST_RATE {
            return Err(TrainError::Diverged { step: from });
        }
        let earlier = self.earlier(options)?.ok_or(TrainError::Diverged { step: from })?; // somebody has removed it
        self.restore(earlier.now);
        (self.stable, self.rate) = (earlier.stable, rate);
        self.save(options, state::FILE_NAME, false)?;
        self.journal.begin(self.step)?;
        events(Event::RolledBack { from, step: self.step, rate });
        Ok(())
    }

    fn save(&self, options: &Options, name: &str, finished: bool) -> Result<(), TrainError> {
        let HeldOut { model, memory, blend, unigram } = self.before;
        let state = State {
            recipe: self.recipe.hash(),
            corpus: self.corpus.hash.clone(),
            base: self.base_hash.clone(),
            merges: self.tokenizer.merges().to_vec(),
            before: [model, memory, blend, unigram],
            finished,
            rate: self.rate,
            now: self.snapshot(),
            stable: self.stable.clone(),
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
            let pace = clock.pace(self, &self.recipe.schedule, options.time_budget_s);
            if pace.done >= 1.0 {
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
            let pace = clock.pace(self, &self.recipe.schedule, options.time_budget_s);
            let measure = &self.recipe.measure;
            let bits_per_byte = if self.step.is_multiple_of(measure.every) || pace.done >= 1.0 {
                Some(self.watch.bits_per_byte(&Graph::new(&self.params, self.precision)?, &self.pool)?)
            } else {
                None
            };
            self.journal.push(&Entry { step: self.step, tokens: self.tokens, loss, bits_per_byte })?;
            events(Event::Step {
                step: self.step,
                total: pace.total,
                tokens: self.tokens,
                loss,
                bits_per_byte,
                tokens_per_s: pace.tokens_per_s,
                utilisation: 6e-9 * self.params.n_values() as f64 * pace.tokens_per_s / self.peak_gflops,
                eta_s: pace.eta_s,
            });
            if self.step.is_multiple_of(measure.save_every) {
                self.save(options, state::FILE_NAME, false)?;
                self.save(options, state::EARLIER_NAME, false)?;
            }
        }
    }

    /// Forward, backward, update. Returns the mean loss in nats; `None` where the numbers have run away, and nothing was
    /// updated.
    fn one_step(&mut self, factor: f64) -> Result<Option<f64>, TrainError> {
        let data = &self.recipe.data;
        let (micro, n_parts) = (data.micro_sequences, data.sequences / data.micro_sequences);
        let graph = Graph::with_pool(&self.params, self.precision, &self.pool)?;
        let batches = self.pool.map(n_parts, |part| self.documents.batch(self.step, part * micro..(part + 1) * micro));
        let n_targets: usize = batches.iter().map(|batch| batch.n_targets()).sum();
        let weight = 1.0 / n_targets.max(1) as f32;
        let loss = self.gradients.take(&graph, &self.params, &batches, weight, &self.pool)?;
        drop(graph);
        // What knows nothing costs the logarithm of the vocabulary. NaN is not below anything.
        let bound = 2.0 * (self.params.config.vocab_size as f64).ln();
        if loss.partial_cmp(&bound) != Some(std::cmp::Ordering::Less) {
            return Ok(None);
        }
        let gradients = self.gradients.sum(&self.pool);
        let update = Update { factor, precision: self.precision };
        let norm = self.recipe.optimizer.step(&mut self.params, &mut self.momenta, gradients, update, &self.pool);
        if !norm.is_finite() {
            return Ok(None);
        }
        self.step += 1;
        self.tokens += data.sequences * data.seq_len;
        Ok(Some(loss))
    }

    /// A checkpoint of the weights as they are, and its figures on the half of the held-out text that no
    /// calibration has seen. `None` where it was cancelled.
    fn measure(&self, blend: Blend, cancel: &Cancel) -> Result<Option<(Checkpoint, HeldOut)>, TrainError> {
        let checkpoint = self.checkpoint(blend)?;
        let memory = measure::memory(&self.shards);
        let (_, report) = measure::halves(&self.corpus.held_out);
        let figures = measure::held_out(&checkpoint, &memory, &report, self.n_threads, cancel);
        Ok(figures.ok().map(|figures| (checkpoint, figures)))
    }

    /// The gates before those of this workspace are found.
    fn first_blend(&self) -> Blend {
        self.base.as_ref().map_or_else(Blend::default, |base| base.blend.clone())
    }

    fn checkpoint(&self, blend: Blend) -> Result<Checkpoint, TrainError> {
        let (trained, fingerprint) = (self.shards.trained(), &self.fingerprint);
        let base = self.base.as_ref().map(|base| &base.manifest.training.fingerprint);
        let training = Training {
            corpus_hash: self.corpus.hash.clone(),
            n_files: trained.len() as u64,
            n_tokens: self.shards.n_tokens(trained) as u64,
            n_steps: self.step as u64,
            fingerprint: base.map_or_else(|| fingerprint.clone(), |base| fingerprint.with(base)),
        };
        let mut manifest = Manifest::new(self.model_id.clone(), self.params.config.clone(), training);
        manifest.licences = self.corpus.licences.clone();
        if let Some(base) = &self.base {
            manifest.lineage = base.manifest.lineage.iter().cloned().chain([self.base_hash.clone()]).collect();
        }
        let weights = Arc::new(PackedWeights::pack(&export::weights(&self.params)?)?);
        Ok(Checkpoint { manifest, tokenizer: self.tokenizer.clone(), weights, blend })
    }

    fn held_out(&self) -> Vec<PathBuf> {
        match self.corpus.within_one_file {
            true => Vec::new(),
            false => self.corpus.held_out.iter().map(|file| file.name.clone().into()).collect(),
        }
    }

    fn unfinished(self) -> Result<Outcome, TrainError> {
        let checkpoint = self.checkpoint(self.first_blend())?;
        let held_out = self.held_out();
        Ok(Outcome { checkpoint, before: self.before, after: self.before, held_out, finished: false, curve: None })
    }

    /// Takes the figures. Only then is the state one of a finished run, which another corpus may replace.
    fn finish(self, options: &Options, cancel: &Cancel) -> Result<Outcome, TrainError> {
        let (calibration, _) = measure::halves(&self.corpus.held_out);
        let memory = measure::memory(&self.shards);
        let untuned = self.checkpoint(self.first_blend())?;
        let blend = measure::calibrate(&untuned, &memory, &calibration, self.n_threads, cancel);
        let Ok(blend) = blend else { return self.unfinished() };
        let Some((mut checkpoint, after)) = self.measure(blend, cancel)? else { return self.unfinished() };
        self.save(options, state::FILE_NAME, true)?;
        checkpoint.manifest.record = Some(Record {
            weights_hash: String::new(), // the writer binds it to the section that it writes
            model_bits_per_byte: after.model,
            memory_bits_per_byte: after.memory,
            blend_bits_per_byte: after.blend,
        });
        let held_out = self.held_out();
        let curve = Some(self.journal.draw()?);
        Ok(Outcome { checkpoint, before: self.before, after, held_out, finished: true, curve })
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

    fn pace(&self, run: &Run, schedule: &Schedule, time_budget_s: Option<f64>) -> Pace {
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
