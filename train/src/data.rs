//! From source files to the sequences that a step learns from.
//!
//! ```text
//! Sources → corpus (read, filter, scrub, dedup, split) → tokenizer → shards → documents → mixture → Batch
//! ```

pub mod batch;
pub mod recipe;
// Files: which may be trained on, and which are held out.
pub mod forgotten;
pub mod licence;
pub mod filter;
pub mod dedup;
pub mod corpus;
pub mod learned;
// Tokens: learned, stored, and drawn as training sequences.
pub mod tokenizer;
pub mod shards;
pub mod packages;
pub mod documents;
pub mod mixture;

pub use batch::Batch;
pub use corpus::Corpus;
pub use recipe::DataRecipe;
