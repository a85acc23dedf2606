//! Where results are written, and whether they replace what is there.

/// What happens to the numbers that the output already holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The product replaces them.
    Store,
    /// The product is added to them (a residual).
    Add,
}

/// Destination of a product with superblocks of 64 rows: `n_superblocks · 64` numbers for each row of x, rows `stride`
/// apart.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) start: *mut f32,
    pub(crate) stride: usize,
    /// Whether results are added to what is there.
    pub(crate) add: bool,
}
