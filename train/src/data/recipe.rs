//! The `[data]` section of a recipe.

use serde::{Deserialize, Serialize};

/// What the model is trained on: the shape of a step, and the shares of its sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// Tokens in one packed sequence.
    pub seq_len: usize,
    /// Sequences in one step.
    pub sequences: usize,
    /// Sequences per micro-batch, whose gradients one core computes together; divides `sequences`.
    pub micro_sequences: usize,
    /// Share of the documents that are cut as holes, suffix first.
    pub fim_rate: f32,
    /// Share of the holes whose prompt starts with a snippet of another file of the package.
    pub snippet_rate: f32,
    /// Share of the holes whose prompt starts with the declarations of the types used nearby.
    pub declared_rate: f32,
    /// Share of the bytes that is held out, in whole files.
    pub held_out_share: f64,
    /// Share of the sequences drawn from the sources of dependencies, so that what a base knows is not forgotten.
    pub replay_share: f32,
}
