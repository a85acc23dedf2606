//! Ternary matrices times int8 rows.
//!
//! ```text
//! f32 weights → TernaryMatrix ─┐
//! file bytes  → Base3Matrix ───┴→ Prepared: superblocks of 64 rows, packed for one Plan → gemm → f32 rows
//! ```

pub mod matrix;
pub mod base3;
pub mod plan;
mod tile;
pub mod prepared;
