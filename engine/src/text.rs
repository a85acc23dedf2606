//! Text on its way to and from tokens: the tokenizer, Rust's lexical structure, and what counts as a secret.

pub mod source_file;
pub mod tokenizer;
/// Rust text as words, literals and punctuation.
pub(crate) mod lex;
pub mod scanner;
/// The text after a cursor, read once for many completions.
pub(crate) mod suffix;
/// A completion without the tail that already follows the cursor.
pub mod overlap;
/// When the recursive Rust parser may run, and on what stack.
pub(crate) mod parser;
pub mod verdict;
pub mod secrets;

pub use scanner::Scanner;
pub use source_file::SourceFile;
pub use tokenizer::{TokenId, Tokenizer};
pub use verdict::Verdict;
