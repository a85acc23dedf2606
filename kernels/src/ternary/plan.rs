//! How a product is computed: what the autotuner picks and a [`crate::Prepared`] stores.

use crate::isa::Isa;

/// How products with a matrix are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The instruction set whose routine runs.
    pub isa: Isa,
    /// Superblocks of 64 output rows that a worker claims at once.
    pub superblocks_per_piece: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self { isa: Isa::best(), superblocks_per_piece: 2 }
    }
}
