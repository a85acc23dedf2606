//! Gradients to new masters: clip → Muon for hidden matrices, Lion for everything else.

pub mod clip;
pub mod groups;
pub mod lion;
pub mod muon;

pub use groups::Optimizer;

/// How a step is made.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// The rates' share of their top.
    pub factor: f64,
    /// What products are made in.
    pub precision: nanochat_kernels::Precision,
}
