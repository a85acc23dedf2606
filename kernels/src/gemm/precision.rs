//! Whether products are computed in f32 or of numbers rounded to bf16.

/// What both operands are rounded to before they are multiplied. Sums are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Not rounded: the same bits on every CPU.
    #[default]
    F32,
    /// bf16, with eight bits of significand. The CPU's own instructions round the sums.
    Bf16,
}
