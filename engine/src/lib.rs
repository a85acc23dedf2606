//! Turns a prompt of code into a completion.
//!
//! ```text
//! Prompt → tokens → Session (KV prefix kept) → Model ⊕ Memory → sample → syntax verdict → Completion
//! bytes  → Checkpoint (verified, then decoded) → Model, Tokenizer, Blend
//! ```
//!
//! This crate knows tokens and text. It knows no editor protocol, no cargo, no candle, no async runtime and no network. A
//! clock decides only which routines run, never what is answered: the same checkpoint,
//! memory, prompt, limits and seed give the same text. [`prompt`] is the only prompt format and [`model::config`] the only
//! description of the architecture; training and serving both call them.

// Text and its tokens: the tokenizer, Rust's lexical structure, and what counts as a secret.
pub mod text;
// The transformer: configuration, weights, forward pass.
pub mod model;
// The KV cache: sessions that keep a prefix, and branches of them.
pub mod kv;
// The one prompt format.
pub mod prompt;
// Whose code it is: the tiers of the memory and of the symbols.
pub mod tier;
// What types have: checked in candidate lines, and declared in the prompt.
pub mod symbols;
// What was written before: the longest matches of a context, blended into the model's distribution.
pub mod memory;
// Prompt → completion: search, candidates, reranking, and where to stop.
pub mod complete;
// The choice of a token from a distribution.
pub mod sample;
// Bits of a text under a distribution.
pub mod score;
// The signed file of a model, its tokenizer and its blend.
pub mod checkpoint;
// Packages and the user's folders: sources, data directory, cache of indexes.
pub mod workspace;
// The autotuner's table, and the plans that it gives for a model.
pub mod tune;
// Files mapped into memory.
pub mod mapped;
// A flag that asks work in progress to stop.
pub mod cancel;
// The one source of randomness, seeded.
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
