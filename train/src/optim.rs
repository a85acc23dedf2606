//! Gradients to new masters: clip → Muon for hidden matrices, Lion for everything else, or what the recipe says.

pub mod adamw;
pub mod clip;
pub mod groups;
pub mod lion;
pub mod moments;
pub mod muon;

pub use groups::{Method, Optimizer};
pub use moments::Moments;

/// Settings of one step.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// Factor on the peak learning rates.
    pub factor: f64,
    /// Precision of matrix products.
    pub precision: nanochat_kernels::Precision,
    /// Number of the step, from 1.
    pub step: usize,
}
