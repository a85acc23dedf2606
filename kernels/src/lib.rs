//! int8 × ternary → f32 at the machine's limit.
//!
//! ```text
//! f32 weights → TernaryMatrix → Prepared (laid out for one Plan, carrying its routine)
//! f32 rows    → Int8Rows ────────┴→ gemm_on(pool) → f32 rows
//! ```
//!
//! This crate knows arrays and CPUs; it knows no files and no model. It holds every SIMD routine. Each integer
//! routine equals the scalar one bit for bit: integer sums are exact, and scales are applied in one fixed order.
//! Floating-point loops are written once over fixed lanes and compiled for each instruction set, so they agree
//! bit for bit too: an answer does not depend on the machine or on the number of threads. Products in bf16, for training
//! only, are the exception: AMX and AVX512-BF16 round their sums each in a way of its own ([`Precision`]).

#![expect(unsafe_code, reason = "intrinsics, and workers that borrow their caller's data")]

pub mod attention;
pub mod autotune;
pub mod base3;
pub mod ceiling;
pub mod dense;
pub mod isa;
mod lanes;
pub mod matrix;
mod memory;
pub mod numa;
pub mod plan;
pub mod pool;
pub mod prepared;
pub mod product;
mod routine;
pub mod rows;
pub mod streams;
pub mod vector;

pub use attention::{KvBits, KvCache};
pub use base3::Base3Matrix;
pub use dense::{HeadBits, PreparedHead};
pub use isa::Isa;
pub use matrix::{PackError, ScaleGroup, Shape, Ternary, TernaryMatrix};
pub use memory::{LargeBytes, as_i8};
pub use plan::Plan;
pub use pool::Pool;
pub use prepared::{Prepared, Write};
pub use product::{Aside, Laid, Left, Panels, Precision, Product, Strips};
pub use rows::{Activation, Int8Rows, Norm};
pub use streams::{Mixer, Streams};
