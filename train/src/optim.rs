//! Gradients to new masters: clip → Muon for hidden matrices, Lion for everything else, or what the recipe says.

pub mod adamw;
pub mod clip;
pub mod groups;
pub mod lion;
pub mod moments;
pub mod muon;

pub use groups::{Method, Optimizer};
pub use moments::Moments;

/// How a step is made.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// The rates' share of their top.
    pub factor: f64,
    /// What products are made in.
    pub precision: nanochat_kernels::Precision,
    /// Which step it is, from 1.
    pub step: usize,
}
