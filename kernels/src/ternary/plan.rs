//! How a product is to be computed: what the autotuner picks and what a [`crate::Prepared`] carries.

use crate::isa::Isa;

/// How a matrix is to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which routine.
    pub isa: Isa,
    /// Superblocks of 64 output rows that a worker claims at once.
    pub superblocks_per_piece: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self { isa: Isa::best(), superblocks_per_piece: 2 }
    }
}
