//! Does this text fit here? Brackets, literals and, for a whole file, the grammar.

mod behind;
pub(crate) mod lex;
mod scanner;

pub(crate) use behind::Behind;
pub use scanner::Scanner;

/// What the syntax says of a completion in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Prefix, completion and suffix together parse as a file.
    Complete,
    /// They do not parse, but the completion breaks nothing by itself.
    Partial,
    /// The completion closes what is not open, or leaves a literal open.
    Broken,
}

/// Larger files are not parsed.
const MAX_PARSED_BYTES: usize = 512 << 10;
/// Deeper nesting is not parsed: the parser recurses.
const MAX_PARSED_DEPTH: usize = 200;
/// The parser recurses on operators and keywords as well: on no more than there are bytes between separators,
/// and once per `else`. Texts with more of either are not parsed.
const MAX_SEGMENT: usize = 4 << 10;
const MAX_ELSES: usize = 1000;
/// Address space, of which only what is used becomes memory: enough for the deepest recursion above.
const PARSER_STACK_BYTES: usize = 256 << 20;
/// How far into the suffix an overlap may reach, and how far brackets are followed to judge it.
const MAX_OVERLAP: usize = 256;
const MAX_BALANCED: usize = 16 << 10;

/// Judges `completion` between `prefix` and `suffix`.
pub fn check(prefix: &str, completion: &str, suffix: &str) -> Verdict {
    let Some(with) = Behind::new(Scanner::after(prefix), suffix).with(completion) else { return Verdict::Broken };
    let n_bytes = prefix.len() + completion.len() + suffix.len();
    let balanced = with.in_code() && with.depth() == 0 && with.n_stray() == 0;
    if balanced && with.deepest() <= MAX_PARSED_DEPTH && n_bytes < MAX_PARSED_BYTES {
        let text = [prefix, completion, suffix].concat();
        if is_shallow(&text) && parses(&text) {
            return Verdict::Complete;
        }
    }
    Verdict::Partial
}

/// [`Scanner::trim_overlap`] where nothing is known of what stands before the cursor.
pub fn trim_overlap<'a>(completion: &'a str, suffix: &str) -> &'a str {
    Scanner::default().trim_overlap(completion, suffix)
}

/// The begin of a suffix, as far as brackets are followed.
pub(crate) fn balanced_part(suffix: &str) -> &str {
    &suffix[..suffix.floor_char_boundary(MAX_BALANCED)]
}

impl Scanner {
    /// The completion without the tail that already follows the cursor. `self` stands at the cursor. A closing
    /// bracket stays where the brackets before the cursor need both it and the suffix's.
    pub fn trim_overlap<'a>(&self, completion: &'a str, suffix: &str) -> &'a str {
        let whole = self.imbalance(completion, suffix);
        for at in completion.len().saturating_sub(MAX_OVERLAP)..completion.len() {
            let Some((kept, tail)) = completion.split_at_checked(at) else { continue };
            if tail.trim().is_empty() || !suffix.starts_with(tail) {
                continue;
            }
            // Two of these in a row are never meant.
            if matches!(tail.trim(), ";" | ",") && self.is_code_after(kept) {
                return kept;
            }
            let trimmed = self.imbalance(kept, suffix);
            // With brackets that speak for neither, only the whole of a line counts as a repetition.
            let rest = &suffix[tail.len()..];
            let ends_line =
                rest.trim_start_matches([' ', '\t']).chars().next().is_none_or(|next| "\r\n".contains(next));
            if trimmed < whole || (trimmed == whole && ends_line) {
                return kept;
            }
        }
        completion
    }

    fn is_code_after(&self, completion: &str) -> bool {
        let mut scanner = self.clone();
        scanner.feed(completion);
        scanner.in_code() && !scanner.in_comment()
    }

    /// Brackets and literals without a partner once `completion` and the suffix are read.
    fn imbalance(&self, completion: &str, suffix: &str) -> usize {
        let mut scanner = self.clone();
        scanner.feed(completion);
        scanner.feed(balanced_part(suffix));
        scanner.n_stray() + scanner.depth() + usize::from(!scanner.in_code())
    }
}

/// Whether a parser that recurses is safe with the text.
pub(crate) fn is_parsable(text: &str) -> bool {
    let mut scanner = Scanner::default();
    scanner.feed(text);
    text.len() < MAX_PARSED_BYTES && scanner.deepest() <= MAX_PARSED_DEPTH && is_shallow(text)
}

/// On a thread of its own: a parser needs a deep stack, and `proc_macro2` keeps every text that a thread parsed. Nothing
/// where there is no thread to be had.
pub(crate) fn with_parser<T: Send + Default>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES).spawn_scoped(scope, work);
        parser.map_or_else(|_| T::default(), |parser| parser.join().unwrap_or_default())
    })
}

fn parses(text: &str) -> bool {
    with_parser(|| syn::parse_file(text).is_ok())
}

fn is_shallow(text: &str) -> bool {
    text.split([';', ',', '{', '}']).all(|segment| segment.len() <= MAX_SEGMENT)
        && text.matches("else").count() <= MAX_ELSES
}

#[cfg(test)]
mod tests;
