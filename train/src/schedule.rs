//! Warm-up, stable, decay (WSD): linear up, constant, linear down to zero over the last share.

use serde::{Deserialize, Serialize};

/// The `[schedule]` section of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Total number of steps.
    pub steps: usize,
    /// Number of steps over which the rate rises linearly from zero.
    pub warmup_steps: usize,
    /// Share of the steps, at the end, over which the rate falls linearly to zero.
    pub decay_share: f64,
}

impl Schedule {
    /// The first step of the decay.
    pub fn decay_start(&self) -> usize {
        self.steps - (self.steps as f64 * self.decay_share).round() as usize
    }

    /// Factor on the peak learning rates at `step`, counted from 0.
    pub fn factor(&self, step: usize) -> f64 {
        let left = (self.steps as f64 - step as f64) / (self.steps - self.decay_start()).max(1) as f64;
        self.warmup(step) * left.clamp(0.0, 1.0)
    }

    /// As [`Schedule::factor`] for a run that ends by the wall clock: `done` is the share of its time that has passed.
    pub fn factor_at(&self, step: usize, done: f64) -> f64 {
        self.warmup(step) * ((1.0 - done) / self.decay_share.max(1e-9)).clamp(0.0, 1.0)
    }

    fn warmup(&self, step: usize) -> f64 {
        ((step + 1) as f64 / self.warmup_steps.max(1) as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_stays_and_falls() {
        let schedule = Schedule { steps: 100, warmup_steps: 10, decay_share: 0.2 };
        assert_eq!(schedule.factor(0), 0.1);
        assert_eq!(schedule.factor(9), 1.0);
        assert_eq!(schedule.factor(80), 1.0);
        assert_eq!(schedule.factor(90), 0.5);
        assert_eq!(schedule.factor(99), 0.05);
        assert!((schedule.factor_at(50, 0.9) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn more_steps_do_not_change_what_came_before_the_decay() {
        let short = Schedule { steps: 100, warmup_steps: 10, decay_share: 0.2 };
        let long = Schedule { steps: 1000, ..short.clone() };
        for step in 0..short.decay_start() {
            assert_eq!(short.factor(step), long.factor(step), "step {step}");
        }
    }
}
