//! How certain a figure is: 95 % intervals, and paired tests of two systems on the same holes.
//!
//! Holes of one crate (of one file, where there is one crate) are not independent, so whole clusters are resampled:
//!
//! ```text
//! 2,000 times: draw as many clusters as there are, with replacement → the figure of what was drawn
//! interval    = percentiles of these figures, moved outwards for few clusters
//! of shares   : never narrower than the interval that independent holes would have (Wilson; Agresti and Min)
//! A against B : the same on the paired differences, and McNemar's exact test
//! ```
//!
//! Everything is seeded: the same observations give the same bytes. How many holes a difference takes is simulated in
//! the tests: with crates that differ among themselves by 3 points (standard deviation) and a quarter of the holes
//! judged differently for A and B, 5,000 holes of 48 crates give a half-width below 2 points, 1,000 do not.

mod bootstrap; // intervals of means, ratios and quantiles
mod shares; // intervals of shares in closed form
mod student; // the distributions that these need
mod mcnemar; // the paired test

pub use bootstrap::{Observation, RatioTerm, difference, mean, quantiles, ratio};
pub use mcnemar::McNemar;
pub use shares::wilson;

/// A figure and its 95 % interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Value {
    /// The estimate.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Value {
    /// Half of the interval's width.
    pub fn half_width(&self) -> f64 {
        (self.high - self.low) / 2.0
    }

    /// Whether 0 is outside the interval.
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }

    fn widened(self, (low, high): (f64, f64)) -> Self {
        Self { value: self.value, low: self.low.min(low), high: self.high.max(high) }
    }
}

#[cfg(test)]
mod tests;
