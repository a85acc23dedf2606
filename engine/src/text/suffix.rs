//! The text after a cursor, read once to judge many completions.

use super::scanner::{Mode, Scanner};

/// How far into a suffix brackets are followed.
const MAX_BALANCED: usize = 16 << 10;

/// The start of a suffix, as far as brackets are followed.
pub(crate) fn balanced_part(suffix: &str) -> &str {
    &suffix[..suffix.floor_char_boundary(MAX_BALANCED)]
}

/// The texts before and after a cursor, as far as completions between them are judged by them.
#[derive(Debug)]
pub(crate) struct SuffixScan<'a> {
    at_cursor: Scanner,
    /// Up to and with its line break: after that most completions are in code again, and only brackets matter.
    first_line: &'a str,
    rest: &'a str,
    /// The brackets of `rest`, read as code.
    brackets: Vec<u8>,
    mode_at_end: Mode,
    /// At the end of the text, read without a completion.
    without: Scanner,
}

impl<'a> SuffixScan<'a> {
    pub(crate) fn new(at_cursor: Scanner, suffix: &'a str) -> Self {
        let (first_line, rest) = suffix.split_at(suffix.find('\n').map_or(suffix.len(), |at| at + 1));
        let mut scanner = Scanner::default();
        let mut brackets = Vec::new();
        for byte in rest.bytes() {
            if scanner.feed_byte(byte) {
                brackets.push(byte);
            }
        }
        let scan =
            Self { without: at_cursor.clone(), at_cursor, first_line, rest, brackets, mode_at_end: scanner.mode() };
        let mut without = scan.without.clone();
        scan.feed(&mut without);
        Self { without, ..scan }
    }

    /// Continues through the text after the cursor. Whether the scanner is broken afterwards means nothing.
    fn feed(&self, scanner: &mut Scanner) {
        scanner.feed(self.first_line);
        if scanner.mode() == Mode::default() {
            scanner.feed_brackets(&self.brackets, self.mode_at_end);
        } else {
            scanner.feed(self.rest);
        }
    }

    /// The scanner at the end of the text with `completion` at the cursor; `None` if the completion breaks the text:
    /// closes what is not open or leaves a literal open.
    pub(crate) fn scan_with(&self, completion: &str) -> Option<Scanner> {
        let mut with = self.at_cursor.clone();
        with.feed(completion);
        if with.is_broken() || (with.in_char() && !self.first_line.contains('\'')) {
            return None;
        }
        self.feed(&mut with);
        // A quote too many turns the rest of the file inside out; a bracket too many leaves one without a partner.
        let is_broken = (self.without.in_code() && !with.in_code()) || with.n_stray() > self.without.n_stray();
        (!is_broken).then_some(with)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]
        #[test]
        fn brackets_alone_tell_what_the_text_tells(
            prefix in "[a-c'\"\\\\/*#r(){}\\[\\]\n ]{0,20}",
            completions in proptest::collection::vec("[a-c'\"\\\\/*#r(){}\\[\\]\n ]{0,10}", 1..4),
            suffix in "[a-c'\"\\\\/*#r(){}\\[\\]\n ]{0,60}",
        ) {
            let scan = SuffixScan::new(Scanner::after(&prefix), &suffix);
            for completion in completions {
                let mut expected = Scanner::after(&prefix);
                expected.feed(&completion);
                let mut found = expected.clone();
                expected.feed(&suffix);
                scan.feed(&mut found);
                let state = |scanner: &Scanner| {
                    let (depth, stray) = (scanner.depth(), scanner.n_stray());
                    (scanner.mode(), depth, scanner.own_depth(), scanner.n_outer_closed(), stray, scanner.deepest())
                };
                prop_assert_eq!(state(&found), state(&expected), "{} ← {}", suffix, completion);
            }
        }
    }
}
