//! Whether a completion fits between two texts: by brackets, by literals and, for a whole file, by the grammar.

use super::parser::{MAX_PARSED_BYTES, MAX_PARSED_DEPTH, is_shallow, parses};
use super::scanner::Scanner;
use super::suffix::SuffixScan;

/// Whether a completion fits in its place, by syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Prefix, completion and suffix together parse as a file.
    Complete,
    /// They do not parse, but the completion breaks nothing by itself.
    Partial,
    /// The completion closes what is not open, or leaves a literal open.
    Broken,
}

/// Judges `completion` between `prefix` and `suffix`.
pub fn check(prefix: &str, completion: &str, suffix: &str) -> Verdict {
    let Some(at_end) = SuffixScan::new(Scanner::after(prefix), suffix).scan_with(completion) else {
        return Verdict::Broken;
    };
    let n_bytes = prefix.len() + completion.len() + suffix.len();
    let balanced = at_end.in_code() && at_end.depth() == 0 && at_end.n_stray() == 0;
    if balanced && at_end.deepest() <= MAX_PARSED_DEPTH && n_bytes < MAX_PARSED_BYTES {
        let text = [prefix, completion, suffix].concat();
        if is_shallow(&text) && parses(&text) {
            return Verdict::Complete;
        }
    }
    Verdict::Partial
}

#[cfg(test)]
mod tests;
