//! Turns a prompt of code into a completion.
//!
//! ```text
//! Prompt → tokens → Session (KV prefix kept) → Model ⊕ Memory → sample → syntax verdict → Completion
//! bytes  → Checkpoint (verified, then decoded) → Model, Tokenizer, Blend
//! ```
//!
//! This crate knows tokens and text. It knows no editor protocol, no cargo, no candle, no async runtime and no network. A
//! clock decides only which routines run and whether tokens are guessed, never what is answered: the same checkpoint,
//! memory, prompt, limits and seed give the same text. [`prompt`] is the only prompt format and [`config`] the only
//! description of the architecture; training and serving both call them.

pub mod cancel;
pub mod checkpoint;
pub mod complete;
pub mod config;
pub mod draft;
pub mod mapped;
pub mod memory;
pub mod model;
pub mod prompt;
pub mod rng;
pub mod sample;
pub mod score;
pub mod secrets;
pub mod session;
pub mod sources;
pub mod store;
pub mod syntax;
pub mod tokenizer;
pub mod tune;
pub mod weights;

pub use cancel::{Cancel, Cancelled};
pub use checkpoint::Checkpoint;
pub use complete::{Completer, Completion, Limits, Stop, TokenSource};
pub use config::Config;
pub use memory::Memory;
pub use model::{Model, Precision};
pub use prompt::{Prompt, Snippet};
pub use sample::Sampling;
pub use session::Session;
pub use sources::Sources;
pub use tokenizer::{TokenId, Tokenizer};

/// The kernels that this engine was built with, for those who measure them.
pub use nanochat_kernels as kernels;
