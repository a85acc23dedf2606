//! The text behind a cursor, read once to judge many completions.

use super::Scanner;
use super::scanner::Mode;

/// What stands before and behind a cursor, as far as completions there are judged by it.
#[derive(Debug)]
pub(crate) struct Behind<'a> {
    at_cursor: Scanner,
    /// To its line break and with it: behind that most completions stand in code again, and only brackets matter.
    first_line: &'a str,
    rest: &'a str,
    /// Of `rest`, read from code.
    brackets: Vec<u8>,
    mode_at_end: Mode,
    /// Where the text stands at its end without a completion.
    without: Scanner,
}

impl<'a> Behind<'a> {
    pub(crate) fn new(at_cursor: Scanner, suffix: &'a str) -> Self {
        let (first_line, rest) = suffix.split_at(suffix.find('\n').map_or(suffix.len(), |at| at + 1));
        let mut scanner = Scanner::default();
        let mut brackets = Vec::new();
        for byte in rest.bytes() {
            if scanner.feed_byte(byte) {
                brackets.push(byte);
            }
        }
        let behind =
            Self { without: at_cursor.clone(), at_cursor, first_line, rest, brackets, mode_at_end: scanner.mode() };
        let mut without = behind.without.clone();
        behind.feed(&mut without);
        Self { without, ..behind }
    }

    /// Goes on through the text behind the cursor. Whether a scanner is broken then says nothing.
    fn feed(&self, scanner: &mut Scanner) {
        scanner.feed(self.first_line);
        if scanner.mode() == Mode::default() {
            scanner.feed_brackets(&self.brackets, self.mode_at_end);
        } else {
            scanner.feed(self.rest);
        }
    }

    /// Where the text stands at its end with `completion` at the cursor; `None` if that breaks it: closes what is not open or
    /// leaves a literal open.
    pub(crate) fn with(&self, completion: &str) -> Option<Scanner> {
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
            let behind = Behind::new(Scanner::after(&prefix), &suffix);
            for completion in completions {
                let mut expected = Scanner::after(&prefix);
                expected.feed(&completion);
                let mut found = expected.clone();
                expected.feed(&suffix);
                behind.feed(&mut found);
                let state = |scanner: &Scanner| {
                    let (depth, stray) = (scanner.depth(), scanner.n_stray());
                    (scanner.mode(), depth, scanner.own_depth(), scanner.n_outer_closed(), stray, scanner.deepest())
                };
                prop_assert_eq!(state(&found), state(&expected), "{} ← {}", suffix, completion);
            }
        }
    }
}
