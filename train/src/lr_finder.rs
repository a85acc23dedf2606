//! Finds learning rates before a run: steps at growing rates, of which the one with the steepest fall is taken.

/// A range test (Smith 2015, arXiv 1506.01186): steps whose rate grows from far too small to far too large.
#[derive(Debug, Default)]
pub struct RangeTest {
    /// Smoothed loss of each step.
    smooth: Vec<f64>,
    /// Running mean of the loss, not yet corrected for its start at zero.
    mean: f64,
}

impl RangeTest {
    /// Upper bound of the number of steps.
    pub const STEPS: usize = 72;
    /// Growth of the rate per step, in octaves.
    const OCTAVES: f64 = 0.125;
    /// The first step's rate, in octaves below the recipe's.
    const BELOW: f64 = 6.0;
    /// Decay of the running mean.
    const BETA: f64 = 0.85;
    /// A fall of the loss by less than this many nats counts as noise.
    const NOISE: f64 = 0.01;
    /// Steps on each side over which a slope is measured.
    const REACH: usize = 4;

    /// Factor on the recipe's rates in the next step; `None` when the test is over.
    pub fn next(&self) -> Option<f64> {
        let diverged = self.smooth.last().zip(self.least()).is_some_and(|(last, least)| *last > least + 1.0);
        (self.smooth.len() < Self::STEPS && !diverged).then(|| Self::factor(self.smooth.len()))
    }

    /// Takes the loss of the step made at [`RangeTest::next`]'s rate.
    pub fn push(&mut self, loss: f64) {
        self.mean = Self::BETA * self.mean + (1.0 - Self::BETA) * loss;
        self.smooth.push(self.mean / (1.0 - Self::BETA.powi(self.smooth.len() as i32 + 1)));
    }

    /// Factor on the recipe's rates at which the loss fell fastest per octave; 1 if it never fell.
    pub fn best(&self) -> f64 {
        let slopes = self.smooth.windows(2 * Self::REACH + 1).map(|part| part[2 * Self::REACH] - part[0]);
        let steepest = slopes.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
        match steepest {
            Some((idx, slope)) if slope < -Self::NOISE => Self::factor(idx + Self::REACH),
            _ => 1.0,
        }
    }

    fn factor(step: usize) -> f64 {
        (step as f64 * Self::OCTAVES - Self::BELOW).exp2()
    }

    fn least(&self) -> Option<f64> {
        self.smooth.iter().copied().min_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_test_finds_where_the_loss_falls_fastest_and_ends_where_it_rises() {
        let mut test = RangeTest::default();
        let mut n_steps = 0;
        while let Some(factor) = test.next() {
            n_steps += 1;
            // Falls as a logistic curve does around 1/2, and explodes from 4 on.
            test.push(if factor > 4.0 { 1e3 } else { 9.0 - 3.0 / (1.0 + (0.5 / factor).powi(4)) });
        }
        // Smoothing delays what it smooths, by about 1 / (1 − β) steps.
        assert!((0.5..1.3).contains(&test.best()), "{}", test.best());
        assert_eq!(n_steps, 65 + 1, "the first step above 4 is the last");
        let mut flat = RangeTest::default();
        while flat.next().is_some() {
            flat.push(5.0);
        }
        assert_eq!((flat.best(), flat.smooth.len()), (1.0, RangeTest::STEPS));
    }
}
