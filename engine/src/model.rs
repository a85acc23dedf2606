//! The architecture, its weights, and the forward pass over them.

pub mod config;
pub mod weights;
pub mod mhc;
mod rope;
pub mod forward;

pub use forward::{Model, Precision};
