//! The steps of a run, with what happens on the way: measuring, saving, early stopping, rolling back.

use nanochat_engine::Cancel;

use super::clock::{Clock, Pace};
use super::trainer::Trainer;
use crate::journal::StepEntry;
use crate::state::{self, Best, State};
use crate::{Event, TrainError};

/// The least factor on the recipe's learning rates before a diverging run is given up.
const LEAST_RATE: f64 = 1.0 / 64.0;

impl Trainer {
    /// Makes the remaining steps. False if it was cancelled; the state is saved either way, as unfinished: its final
    /// figures are not yet measured.
    pub(super) fn steps(&mut self, events: &mut dyn FnMut(Event), cancel: &Cancel) -> Result<bool, TrainError> {
        let time_budget_s = self.task.settings.time_budget_s;
        let mut clock = Clock::start(&self.task.recipe.schedule, time_budget_s, self.step, self.tokens);
        self.keep_a_way_back()?;
        self.journal.start_at(self.step)?;
        loop {
            let pace = clock.pace(self.step, self.tokens);
            // Before the learning rate decays, the figures do not say where they will end.
            let stops_early = pace.decays && self.is_out_of_patience();
            if let Some(best) = self.best.as_ref().filter(|_| stops_early && pace.done < 1.0) {
                events(Event::Stopped { step: self.step, best_step: best.step, bits_per_byte: best.bits_per_byte });
            }
            let is_complete = pace.done >= 1.0 || stops_early;
            if is_complete || cancel.is_cancelled() {
                self.save(state::FILE_NAME, false)?;
                return Ok(is_complete);
            }
            if self.stable.is_none() && pace.decays {
                self.stable = Some(self.snapshot());
            }
            match self.one_step(pace.factor * self.rate)? {
                Some(loss) => self.record(loss, &clock.pace(self.step, self.tokens), events)?,
                None => {
                    self.roll_back(events)?;
                    clock.count_from(self.step, self.tokens);
                }
            }
        }
    }

    /// Measures, writes down, reports and saves after a step, each where it is due.
    fn record(&mut self, loss: f64, pace: &Pace, events: &mut dyn FnMut(Event)) -> Result<(), TrainError> {
        let measure = &self.task.recipe.measure;
        let (saves, measures) = (self.step.is_multiple_of(measure.save_every), self.step.is_multiple_of(measure.every));
        let bits_per_byte = if measures || pace.done >= 1.0 {
            let bits_per_byte = self.bits_per_byte(&self.validation)?;
            self.keep_if_best(bits_per_byte);
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
            utilisation: self.peak_gflops.map(|peak| 6e-9 * self.params.n_values() as f64 * pace.tokens_per_s / peak),
            eta_s: pace.eta_s,
        });
        if saves {
            self.save(state::FILE_NAME, false)?;
            self.save(state::EARLIER_NAME, false)?;
        }
        Ok(())
    }

    /// Keeps the masters if they are the best so far, where the recipe stops early.
    fn keep_if_best(&mut self, bits_per_byte: f64) {
        let is_best = self.best.as_ref().is_none_or(|best| bits_per_byte < best.bits_per_byte);
        if self.task.recipe.measure.patience > 0 && is_best {
            let values = self.served().list.iter().map(|param| param.values.clone()).collect();
            self.best = Some(Best { step: self.step, bits_per_byte, values });
        }
    }

    /// Whether as many measurements as the recipe allows were no better than the best.
    fn is_out_of_patience(&self) -> bool {
        let measure = &self.task.recipe.measure;
        let since = |best: &Best| (self.step - best.step.min(self.step)) / measure.every;
        measure.patience > 0 && self.best.as_ref().is_some_and(|best| since(best) >= measure.patience)
    }

    /// Makes sure that there is a saved step to roll back to, not after the present one.
    fn keep_a_way_back(&self) -> Result<(), TrainError> {
        let has_earlier = self.earlier().is_ok_and(|earlier| earlier.is_some_and(|e| e.now.step <= self.step));
        if !has_earlier {
            self.save(state::EARLIER_NAME, false)?;
        }
        Ok(())
    }

    /// The saved step to roll back to, if it is of this run.
    fn earlier(&self) -> Result<Option<State>, TrainError> {
        let state = self.task.load_state(state::EARLIER_NAME)?;
        Ok(state.filter(|state| self.task.owns(state)))
    }

    /// Goes back to the last step whose number is one to save at, at half of the rates.
    fn roll_back(&mut self, events: &mut dyn FnMut(Event)) -> Result<(), TrainError> {
        let (from, rate) = (self.step, self.rate / 2.0);
        if rate < LEAST_RATE {
            return Err(TrainError::Diverged { step: from });
        }
        // There was one when the steps started: somebody has removed it.
        let earlier = self.earlier()?.ok_or(TrainError::Diverged { step: from })?;
        self.restore(earlier.now);
        (self.stable, self.best, self.rate) = (earlier.stable, earlier.best, rate);
        self.save(state::FILE_NAME, false)?;
        self.journal.start_at(self.step)?;
        events(Event::RolledBack { from, step: self.step, rate });
        Ok(())
    }
}
