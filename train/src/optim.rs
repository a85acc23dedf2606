//! Gradients to new masters: clip → Muon for hidden matrices, Lion for everything else.

pub mod clip;
pub mod groups;
pub mod lion;
pub mod muon;

pub use groups::Optimizer;
