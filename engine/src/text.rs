//! Text on its way to and from tokens: the tokenizer, Rust's lexical structure, and what counts as a secret.

pub mod tokenizer;
pub mod syntax;
pub mod secrets;
