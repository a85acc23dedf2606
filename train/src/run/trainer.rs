//! The state of a run between its first and its last step, and one step of it.

use std::borrow::Cow;

use crate::backend::Backend;
use crate::data::Batch;
use crate::data::mixture::Mixture;
use crate::journal::Journal;
use crate::measure::{self, Figures, ValidationSet};
use crate::model::{Graph, Params};
use crate::ops::MatmulPrecision;
use crate::optim::{Moments, Update, moments};
use crate::pool::Pool;
use crate::state::{Best, Snapshot, State};
use crate::{Device, TrainError};

use super::task::Task;

/// The one owner of masters, moments and counters. Stages of a run are methods in files of their own.
pub(super) struct Trainer {
    pub(super) task: Task,
    pub(super) matmul: MatmulPrecision,
    pub(super) pool: Pool,
    mixture: Mixture,
    backend: Backend,
    /// Held-out text that is measured while training.
    pub(super) validation: ValidationSet,
    /// Held-out text of dependencies, where these are replayed.
    pub(super) general: Option<ValidationSet>,
    pub(super) params: Params,
    pub(super) moments: Moments,
    /// Running averages of the masters, where the recipe takes them.
    pub(super) averages: Vec<Vec<f32>>,
    /// Steps done.
    pub(super) step: usize,
    /// Tokens seen.
    pub(super) tokens: usize,
    /// Factor on the recipe's learning rates.
    pub(super) rate: f64,
    /// The state in which the decay of the learning rate started, once it has.
    pub(super) stable: Option<Snapshot>,
    /// The best masters that were measured, where the recipe stops early.
    pub(super) best: Option<Best>,
    /// Held-out figures before the first step.
    pub(super) before: Figures,
    pub(super) journal: Journal,
    /// Throughput of small matrix products on the CPU; `None` where gradients are computed on a GPU.
    pub(super) peak_gflops: Option<f64>,
}

impl Trainer {
    /// Before the first step, with the base's masters or fresh ones.
    pub(super) fn new(task: Task) -> Result<Self, TrainError> {
        let Task { recipe, corpus, tokenizer, settings, .. } = &task;
        let data = &recipe.data;
        let (matmul, pool) = (recipe.precision.resolve(), Pool::new(settings.n_threads)?);
        let params = task.initial_params();
        let n_batches = data.sequences / data.micro_sequences;
        let mut backend = Backend::for_device(settings.device, &params, n_batches, data.seq_len)?;
        backend.entropy = recipe.entropy;
        // The text by which a run may stop early must not be the text that it is judged by.
        let (calibration, report) = measure::halves(&corpus.held_out);
        let measured = if calibration.is_empty() { report } else { calibration };
        let validation = |files| ValidationSet::new(tokenizer, files, data.seq_len, recipe.measure.sequences);
        let is_on_cpu = settings.device == Device::Cpu;
        Ok(Self {
            peak_gflops: is_on_cpu.then(|| matmul.precision.gflops() * pool.n_workers() as f64),
            matmul,
            mixture: task.mixture(&pool),
            pool,
            validation: validation(&measured),
            general: (!corpus.general.is_empty()).then(|| validation(&corpus.general)),
            moments: recipe.optimizer.moments(&params),
            averages: match recipe.optimizer.ema > 0.0 {
                true => params.list.iter().map(|param| param.values.clone()).collect(),
                false => Vec::new(),
            },
            backend,
            params,
            step: 0,
            tokens: 0,
            rate: 1.0,
            stable: None,
            best: None,
            before: Figures::default(),
            journal: Journal::new(&settings.state_dir),
            task,
        })
    }

    /// Forward, backward, update, with `factor` on the recipe's learning rates. Returns the mean loss in nats; `None`
    /// where it diverged, and nothing was updated.
    pub(super) fn one_step(&mut self, factor: f64) -> Result<Option<f64>, TrainError> {
        let recipe = &self.task.recipe;
        let data = &recipe.data;
        let (micro, n_batches) = (data.micro_sequences, data.sequences / data.micro_sequences);
        let batches = self.pool.map(n_batches, |idx| self.mixture.batch(self.step, idx * micro..(idx + 1) * micro));
        let weight = 1.0 / batches.iter().map(Batch::weight).sum::<f32>().max(1.0);
        let loss = self.backend.gradients(&self.params, self.matmul, &batches, weight, &self.pool)?;
        // A model that knows nothing has a loss of ln(vocabulary). NaN is not less than anything.
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

    /// The masters that are measured and exported: their averages, where the recipe takes them.
    pub(super) fn served(&self) -> Cow<'_, Params> {
        if self.averages.is_empty() {
            return Cow::Borrowed(&self.params);
        }
        let mut served = self.params.clone();
        served.list.iter_mut().zip(&self.averages).for_each(|(param, average)| param.values.clone_from(average));
        Cow::Owned(served)
    }

    /// Bits per byte of the model alone.
    pub(super) fn bits_per_byte(&self, text: &ValidationSet) -> Result<f64, TrainError> {
        Ok(text.bits_per_byte(&Graph::new(&self.served(), self.matmul), &self.pool)?)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            step: self.step,
            tokens: self.tokens,
            values: self.params.list.iter().map(|param| param.values.clone()).collect(),
            averages: self.averages.clone(),
            moments: self.moments.clone(),
        }
    }

    pub(super) fn restore(&mut self, snapshot: Snapshot) {
        (self.step, self.tokens) = (snapshot.step, snapshot.tokens);
        for (param, values) in self.params.list.iter_mut().zip(snapshot.values) {
            param.values = values;
        }
        (self.averages, self.moments) = (snapshot.averages, snapshot.moments);
    }

    /// Writes the state `name`. `finished` is true once the run's final figures have been measured.
    pub(super) fn save(&self, name: &str, finished: bool) -> Result<(), TrainError> {
        let Task { recipe, corpus, tokenizer, base_hash, since, settings, .. } = &self.task;
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
        Ok(state.save(&settings.state_dir, name)?)
    }
}
