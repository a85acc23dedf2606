//! Turns a prompt of code into a completion.
//!
//! ```text
//! Prompt → tokens → Session (KV prefix kept) → Model ⊕ Memory → sample → syntax verdict → Completion
//! bytes  → Checkpoint (verified, then decoded) → Model, Tokenizer, Blend
//! ```
//!
//! This crate knows tokens and text. It knows no editor protocol, no cargo, no candle, no async runtime and no network. A
//! clock decides only which routines run and whether tokens are guessed, never what is answered: the same checkpoint,
//! memory, prompt, limits and seed give the same text. [`prompt`] is the only prompt format and [`model::config`] the only
//! description of the architecture; training and serving both call them.

pub mod text;
pub mod model;
pub mod kv;
pub mod prompt;
pub mod tier;
pub mod symbols;
pub mod memory;
pub mod complete;
pub mod draft;
pub mod sample;
pub mod score;
pub mod checkpoint;
pub mod workspace;
pub mod tune;
pub mod mapped;
pub mod cancel;
pub mod rng;

pub use cancel::{Cancel, Cancelled};
pub use checkpoint::Checkpoint;
pub use complete::{Completer, Completion, Limits, Stop, TokenSource};
pub use kv::session::Session;
pub use memory::Memory;
pub use model::config::Config;
pub use model::{Model, Precision};
pub use prompt::{Prompt, Snippet};
pub use sample::Sampling;
pub use text::tokenizer::{TokenId, Tokenizer};
pub use workspace::sources::Sources;

/// The kernels that this engine was built with, for those who measure them.
pub use nanochat_kernels as kernels;
