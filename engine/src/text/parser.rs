//! When the Rust parser (`syn`) may run, and on what stack: it recurses, and its input may be anything.

use super::scanner::Scanner;

/// Larger files are not parsed.
pub(super) const MAX_PARSED_BYTES: usize = 512 << 10;
/// Deeper nesting is not parsed: the parser recurses.
pub(super) const MAX_PARSED_DEPTH: usize = 200;
/// The parser recurses on operators and keywords as well: at most as deep as there are bytes between separators,
/// and once per `else`. Texts with more of either are not parsed.
const MAX_SEGMENT: usize = 4 << 10;
const MAX_ELSES: usize = 1000;
/// Address space, of which only what is used becomes memory: enough for the deepest recursion above.
const PARSER_STACK_BYTES: usize = 256 << 20;

/// Whether a parser that recurses is safe with the text.
pub(crate) fn is_parsable(text: &str) -> bool {
    let mut scanner = Scanner::default();
    scanner.feed(text);
    text.len() < MAX_PARSED_BYTES && scanner.deepest() <= MAX_PARSED_DEPTH && is_shallow(text)
}

/// Runs `work` on a thread of its own: a parser needs a deep stack, and `proc_macro2` keeps every text that a thread
/// parsed. The default value where no thread can be had.
pub(crate) fn with_parser<T: Send + Default>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES).spawn_scoped(scope, work);
        parser.map_or_else(|_| T::default(), |parser| parser.join().unwrap_or_default())
    })
}

/// Whether a text parses as a whole file. It must be [`is_shallow`] and within the limits above.
pub(super) fn parses(text: &str) -> bool {
    with_parser(|| syn::parse_file(text).is_ok())
}

/// Whether operators and keywords nest no deeper than the parser's stack allows.
pub(super) fn is_shallow(text: &str) -> bool {
    text.split([';', ',', '{', '}']).all(|segment| segment.len() <= MAX_SEGMENT)
        && text.matches("else").count() <= MAX_ELSES
}
