//! Whether products are computed in f32 or of numbers rounded to bf16.

/// What the numbers of both sides are rounded to before they are multiplied. Sums are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Not at all: the same bits on every CPU.
    #[default]
    F32,
    /// Eight bits of significand, as the CPU's own bf16 instructions sum them.
    Bf16,
}
