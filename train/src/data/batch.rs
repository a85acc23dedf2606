//! Packed token sequences: what one forward and backward pass reads.

use std::sync::Arc;

/// The target of a row that has none.
pub const NO_TARGET: u32 = u32::MAX;

/// Packed sequences; all fields are `[N]` with N a multiple of `seq_len`.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Input token of each row.
    pub tokens: Arc<Vec<u32>>,
    /// Next token of each row, or [`NO_TARGET`].
    pub targets: Arc<Vec<u32>>,
    /// Weight of each target in the loss.
    pub weights: Arc<Vec<f32>>,
    /// Position in its sequence at which the document of each row starts: attention does not look before it.
    pub starts: Arc<Vec<u32>>,
    /// Rows in one sequence.
    pub seq_len: usize,
}

impl Batch {
    /// One document on its own, without targets.
    pub fn single(tokens: &[u16]) -> Self {
        Self {
            tokens: Arc::new(tokens.iter().map(|t| u32::from(*t)).collect()),
            targets: Arc::new(vec![NO_TARGET; tokens.len()]),
            weights: Arc::new(vec![1.0; tokens.len()]),
            starts: Arc::new(vec![0; tokens.len()]),
            seq_len: tokens.len(),
        }
    }

    /// Number of rows with a target.
    pub fn n_targets(&self) -> usize {
        self.targets.iter().filter(|t| **t != NO_TARGET).count()
    }

    /// Sum of the weights of all rows with a target.
    pub fn weight(&self) -> f32 {
        let with_target = self.targets.iter().zip(&*self.weights).filter(|(t, _)| **t != NO_TARGET);
        with_target.map(|(_, weight)| weight).sum()
    }
}
