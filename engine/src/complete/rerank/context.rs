//! Context features: how a line meets the text around the cursor: what its end promises and what follows, and whose
//! names it uses.
//!
//! A line that opens a bracket has deeper lines after it, one that ends a statement has not. A line that was written
//! elsewhere may use names that nobody here knows. These are signs and no rules: the reranker weighs them.

use std::cmp::Ordering;
use std::collections::HashSet;

use crate::complete::line::{LineEnd, is_keyword, names};
use crate::complete::network::flag;
use crate::prompt::Prompt;

/// Text before and after the cursor's line whose names count as known, in bytes.
const BEFORE: usize = 16 << 10;
const AFTER: usize = 8 << 10;

/// What follows a candidate's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextLine {
    Deeper,
    AsDeep,
    LessDeep,
    /// A blank line, and then something.
    Blank,
    /// The end of the file, or nothing but blank lines.
    Nothing,
}

/// How one line meets the text around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContextFeatures {
    pub(super) end: LineEnd,
    pub(super) next: NextLine,
    /// Names after the cursor that the text around has.
    pub(super) n_known: u16,
    /// Those that it has not.
    pub(super) n_unknown: u16,
    /// Whether the same line is nearby.
    pub(super) is_repeated: bool,
    /// Whether the line ends a statement that the next line continues with `.method()` or an operator.
    pub(super) ends_what_continues: bool,
}

impl ContextFeatures {
    /// 1 where a line of this end meets that next line.
    pub(super) fn meets(&self, end: LineEnd, next: NextLine) -> f32 {
        flag(self.end == end && self.next == next)
    }
}

/// The text around a cursor, read once for all candidates.
#[derive(Debug)]
pub(super) struct CursorContext<'a> {
    /// The cursor's line, up to the cursor.
    typed: &'a str,
    names: HashSet<&'a [u8]>,
    lines: HashSet<&'a [u8]>,
    /// Whether a blank line follows the cursor's.
    is_blank: bool,
    /// The first line with content after the cursor's.
    next: Option<&'a str>,
}

impl<'a> CursorContext<'a> {
    pub(super) fn of(prompt: &Prompt<'a>) -> Self {
        let Prompt { prefix, suffix, .. } = *prompt;
        let line_start = prefix.rfind('\n').map_or(0, |at| at + 1);
        let before = &prefix[prefix.ceil_char_boundary(line_start.saturating_sub(BEFORE))..line_start];
        let (rest, after) = suffix.split_once('\n').unwrap_or((suffix, ""));
        let after = &after[..after.floor_char_boundary(AFTER)];
        let mut following = after.lines();
        let first = following.next();
        let is_blank = first.is_some_and(|line| line.trim().is_empty());
        let next = first.filter(|_| !is_blank).or_else(|| following.find(|line| !line.trim().is_empty()));
        let texts = || [before, rest, after].into_iter();
        Self {
            typed: &prefix[line_start..],
            names: texts().flat_map(|text| names(text.as_bytes())).map(|(_, name)| name).collect(),
            lines: texts().flat_map(str::lines).map(|line| line.trim().as_bytes()).collect(),
            is_blank,
            next,
        }
    }

    /// Of the cursor's line if `bytes` replaced its last `n_healed` bytes.
    pub(super) fn features(&self, bytes: &[u8], n_healed: usize) -> ContextFeatures {
        let typed = &self.typed.as_bytes()[..self.typed.len().saturating_sub(n_healed)];
        let line = [typed, bytes].concat();
        let line = line.trim_ascii_end();
        let indent = |line: &[u8]| line.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let next = match self.next {
            None => NextLine::Nothing,
            Some(_) if self.is_blank => NextLine::Blank,
            Some(next) => match indent(next.as_bytes()).cmp(&indent(line)) {
                Ordering::Greater => NextLine::Deeper,
                Ordering::Equal => NextLine::AsDeep,
                Ordering::Less => NextLine::LessDeep,
            },
        };
        // Of the name at the cursor, the part that was typed is not known to be one.
        let new = names(line).filter(|(end, name)| *end > self.typed.len().min(line.len()) && !is_keyword(name));
        let (mut n_known, mut n_unknown) = (0u16, 0u16);
        for (_, name) in new {
            if self.names.contains(name) { n_known += 1 } else { n_unknown += 1 }
        }
        let is_continued = self.next.is_some_and(|next| {
            let next = next.trim_start();
            [".", "?", "&&", "||", "+", "="].iter().any(|start| next.starts_with(start)) && !next.starts_with("..")
        });
        ContextFeatures {
            end: LineEnd::of(line),
            next,
            n_known,
            n_unknown,
            is_repeated: self.lines.contains(line.trim_ascii()),
            ends_what_continues: is_continued && matches!(line.last(), Some(b';' | b',' | b'{' | b'}')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(prefix: &str, line: &str, suffix: &str, n_healed: usize) -> ContextFeatures {
        let prompt = Prompt { prefix, suffix, ..Prompt::default() };
        CursorContext::of(&prompt).features(line.as_bytes(), n_healed)
    }

    #[test]
    fn the_end_of_a_line_meets_the_depth_of_what_follows() {
        let before = "fn f(total: u32) {\n    ";
        let meeting = |prefix, line, suffix| {
            let ContextFeatures { end, next, .. } = features(prefix, line, suffix, 0);
            (end, next)
        };
        assert_eq!(meeting(before, "if total > 0 {", "\n        g();\n    }\n}\n"), (LineEnd::Open, NextLine::Deeper));
        assert_eq!(meeting(before, "g();", "\n    h();\n}\n"), (LineEnd::Semicolon, NextLine::AsDeep));
        assert_eq!(meeting(before, "g()", "\n}\n"), (LineEnd::Close, NextLine::LessDeep));
        assert_eq!(meeting(before, "g();", "\n\n    h();\n}\n"), (LineEnd::Semicolon, NextLine::Blank));
        assert_eq!(meeting(before, "let x =", ""), (LineEnd::Operator, NextLine::Nothing));
        assert_eq!(meeting("", "", ""), (LineEnd::Other, NextLine::Nothing));
    }

    #[test]
    fn names_are_known_from_the_text_around_the_line_alone() {
        let (before, after) = ("fn f(total: u32) {\n    let other = to", "\n    total + other\n}\n");
        let names = |line: &str, n_healed: usize| {
            let ContextFeatures { n_unknown, n_known, .. } = features(before, line, after, n_healed);
            (n_unknown, n_known)
        };
        assert_eq!(names("tal;", 0), (0, 1));
        assert_eq!(names("total.min(missing);", 2), (2, 1));
        assert_eq!(names("p as usize;", 0), (2, 0));
    }

    #[test]
    fn a_line_that_is_there_already_and_a_statement_that_continues_are_seen() {
        let seen = |line: &str| {
            let found = features("    g(1);\n    ", line, "\n        .await;\n", 0);
            (found.is_repeated, found.ends_what_continues)
        };
        assert_eq!(seen("g(1);"), (true, true));
        assert_eq!(seen("g(2)"), (false, false));
    }
}
