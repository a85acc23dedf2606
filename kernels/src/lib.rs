//! int8 × ternary → f32 at the machine's limit.
//!
//! ```text
//! f32 weights → TernaryMatrix → Prepared (packed for one Plan, with its routine)
//! f32 rows    → Int8Rows ────────┴→ gemm(pool) → f32 rows
//! ```
//!
//! This crate knows arrays and CPUs; it knows no files and no model. It holds every SIMD routine. Each integer
//! routine equals the scalar one bit for bit: integer sums are exact, and scales are applied in one fixed order.
//! Floating-point loops are written once over fixed lanes and compiled for each instruction set, so they agree
//! bit for bit too: an answer does not depend on the machine or on the number of threads. Products in bf16, for
//! training only, are the exception: AMX and AVX512-BF16 each round their sums in their own way ([`Precision`]).

#![expect(unsafe_code, reason = "intrinsics, and workers that borrow their caller's data")]

// CPUs and the sixteen-wide values that loops are written over.
pub mod isa;
mod lanes;
pub mod vector;

// Threads, memory nodes and buffers.
pub mod runtime;

// Operands and products of them.
mod output;
pub mod rows;
pub mod ternary;
pub mod gemm;

// The parts of a model that need loops of their own.
pub mod attention;
pub mod head;
pub mod streams;

// What this machine can do, measured.
pub mod autotune;
pub mod ceiling;

/// Buffers between pages that fault, for tests of what reads and writes through pointers.
#[cfg(all(test, target_os = "linux"))]
mod guarded;

pub use attention::{KvBits, KvCache};
pub use gemm::{Gemm, Lhs, PackBuffer, PackedLhs, PackedMatrix, Panels, Precision};
pub use head::{HeadBits, PreparedHead};
pub use isa::Isa;
pub use output::Write;
pub use rows::{Activation, Int8Rows, Norm};
pub use runtime::memory::{LargeBytes, as_i8};
pub use runtime::pool::Pool;
pub use streams::{Mixer, Streams};
pub use ternary::base3::Base3Matrix;
pub use ternary::matrix::{PackError, ScaleGroup, Shape, Ternary, TernaryMatrix};
pub use ternary::plan::Plan;
pub use ternary::prepared::Prepared;
