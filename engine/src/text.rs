//! Text on its way to and from tokens: the tokenizer, Rust's lexical structure, and what counts as a secret.

pub mod source_file;
pub mod tokenizer;
pub(crate) mod lex;
pub mod scanner;
pub(crate) mod suffix;
pub mod overlap;
pub(crate) mod parser;
pub mod verdict;
pub mod secrets;

pub use scanner::Scanner;
pub use source_file::SourceFile;
pub use tokenizer::{TokenId, Tokenizer};
pub use verdict::Verdict;
