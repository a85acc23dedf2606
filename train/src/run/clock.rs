//! How far a run is between its start and its end, by its steps or by the wall clock, and the learning rate that
//! follows.

use std::time::Instant;

use crate::schedule::Schedule;

/// Measures a run from the first step of this process on.
pub(super) struct Clock {
    schedule: Schedule,
    time_budget_s: Option<f64>,
    started: Instant,
    /// Steps and tokens of earlier processes, or undone by a rollback: not counted into the speed.
    first_step: usize,
    first_token: usize,
}

/// Where a run is after some step.
pub(super) struct Pace {
    /// Share of the run that is done; 1 or more at its end.
    pub(super) done: f64,
    /// Whether the learning rate is in its decay.
    pub(super) decays: bool,
    /// Factor on the top learning rate in the next step.
    pub(super) factor: f64,
    /// Number of steps of the whole run; an estimate under a time budget.
    pub(super) total: usize,
    pub(super) tokens_per_s: f64,
    /// Estimated seconds left.
    pub(super) eta_s: f64,
}

impl Clock {
    /// Starts now, after `step` steps and `tokens` tokens. With a time budget in seconds, the run ends by the wall
    /// clock.
    pub(super) fn start(schedule: &Schedule, time_budget_s: Option<f64>, step: usize, tokens: usize) -> Self {
        Self {
            schedule: schedule.clone(),
            time_budget_s,
            started: Instant::now(),
            first_step: step,
            first_token: tokens,
        }
    }

    /// Restarts the count of steps and tokens here, as after a rollback.
    pub(super) fn count_from(&mut self, step: usize, tokens: usize) {
        (self.first_step, self.first_token) = (step, tokens);
    }

    /// Whether a run still has steps at the full rate to make after `decay_start`, where a decay once started. One by
    /// the wall clock always has: it has its whole time again.
    pub(super) fn goes_beyond(decay_start: usize, schedule: &Schedule, time_budget_s: Option<f64>) -> bool {
        time_budget_s.is_some() || decay_start < schedule.decay_start()
    }

    /// Where the run is after `step` steps and `tokens` tokens.
    pub(super) fn pace(&self, step: usize, tokens: usize) -> Pace {
        let schedule = &self.schedule;
        let elapsed = self.started.elapsed().as_secs_f64();
        let n_made = (step - self.first_step) as f64;
        let tokens_per_s = if n_made > 0.0 { (tokens - self.first_token) as f64 / elapsed } else { 0.0 };
        match self.time_budget_s {
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

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule { steps: 10, warmup_steps: 1, decay_share: 0.4 };

    #[test]
    fn a_run_by_steps_is_done_after_its_last_step_and_decays_over_the_last_share() {
        let clock = Clock::start(&SCHEDULE, None, 4, 400);
        let [pace, last] = [5, 10].map(|step| clock.pace(step, 100 * step));
        assert_eq!((pace.done, pace.decays, pace.factor, pace.total), (0.5, false, 1.0, 10));
        assert!(pace.tokens_per_s > 0.0 && pace.eta_s > 0.0);
        assert_eq!((last.done, last.decays, last.factor), (1.0, true, 0.0));
        assert!(clock.pace(4, 400).tokens_per_s == 0.0, "tokens of an earlier process do not count");
    }

    #[test]
    fn a_run_without_time_is_done_at_once() {
        let pace = Clock::start(&SCHEDULE, Some(0.0), 0, 0).pace(0, 0);
        assert_eq!((pace.done, pace.decays), (1.0, true));
    }

    #[test]
    fn only_a_longer_schedule_goes_beyond_a_decay_that_started() {
        assert!(!Clock::goes_beyond(6, &SCHEDULE, None));
        assert!(Clock::goes_beyond(6, &Schedule { steps: 20, ..SCHEDULE }, None));
        assert!(Clock::goes_beyond(6, &SCHEDULE, Some(1.0)));
    }
}
