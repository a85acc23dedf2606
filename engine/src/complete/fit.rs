//! How a line fits in with the text around the cursor: what its end promises and what follows, and whose names it uses.
//!
//! A line that opens a bracket has deeper lines behind it, one that ends a statement has not. A line that was written
//! elsewhere may use names that nobody here knows. These are signs and no rules: [`super::rank`] weighs them.

use std::collections::HashSet;

use crate::prompt::Prompt;

/// Numbers that a fit comes to.
pub(super) const N_FEATURES: usize = N_ENDS * N_RELATIONS + 5;

/// Kinds of ends of a line: see [`end_of`].
const N_ENDS: usize = 6;
/// Deeper, as deep, less deep; behind a blank line; at the end of the file.
const N_RELATIONS: usize = 5;

/// Text before and after the cursor's line whose names count as known, in bytes.
const BEFORE: usize = 16 << 10;
const AFTER: usize = 8 << 10;

/// What stands around a cursor.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    /// The cursor's line, to the cursor.
    typed: &'a str,
    names: HashSet<&'a [u8]>,
    lines: HashSet<&'a [u8]>,
    /// What follows the cursor's line: whether blank lines come first, and the line behind them.
    is_blank: bool,
    next: Option<&'a str>,
}

impl<'a> Surroundings<'a> {
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

    /// Of the cursor's line if `bytes` came in place of its last `n_healed` bytes.
    pub(super) fn fit(&self, bytes: &[u8], n_healed: usize) -> [f32; N_FEATURES] {
        let mut f = [0.0; N_FEATURES];
        let typed = &self.typed.as_bytes()[..self.typed.len().saturating_sub(n_healed)];
        let line = [typed, bytes].concat();
        let line = line.trim_ascii_end();
        let indent = |line: &[u8]| line.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let relation = match self.next {
            None => 4,
            Some(_) if self.is_blank => 3,
            Some(next) => match indent(next.as_bytes()).cmp(&indent(line)) {
                std::cmp::Ordering::Greater => 0,
                std::cmp::Ordering::Equal => 1,
                std::cmp::Ordering::Less => 2,
            },
        };
        f[end_of(line) * N_RELATIONS + relation] = 1.0;

        // Of the name at the cursor, the part that was typed is not known to be one.
        let new = names(line).filter(|(end, name)| *end > self.typed.len().min(line.len()) && !is_keyword(name));
        let (mut n_known, mut n_unknown) = (0u16, 0u16);
        for (_, name) in new {
            if self.names.contains(name) { n_known += 1 } else { n_unknown += 1 }
        }
        let ln = |n: u16| f32::from(1 + n).ln();
        let rest = &mut f[N_ENDS * N_RELATIONS..];
        rest[0] = ln(n_unknown);
        rest[1] = if n_unknown == 0 { 1.0 } else { 0.0 };
        rest[2] = ln(n_known);
        rest[3] = if self.lines.contains(line.trim_ascii()) { 1.0 } else { 0.0 };
        // `.method()` goes on with what the line has not ended, and the same for operators.
        let goes_on = self.next.is_some_and(|next| {
            let next = next.trim_start();
            [".", "?", "&&", "||", "+", "="].iter().any(|begin| next.starts_with(begin)) && !next.starts_with("..")
        });
        rest[4] = if goes_on && matches!(line.last(), Some(b';' | b',' | b'{' | b'}')) { 1.0 } else { 0.0 };
        f
    }
}

/// What the last character of a line is: an opening bracket, `;`, `,`, a closing bracket, an operator, anything else.
pub(super) fn end_of(line: &[u8]) -> usize {
    match line.last() {
        Some(b'{' | b'(' | b'[') => 0,
        Some(b';') => 1,
        Some(b',') => 2,
        Some(b'}' | b')' | b']') => 3,
        Some(b'=' | b'+' | b'-' | b'*' | b'/' | b'|' | b'&' | b'.' | b':' | b'<' | b'>') => 4,
        _ => 5,
    }
}

/// Names of two letters or more, each with where it ends.
fn names(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80;
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + text[at..].iter().position(is_part)?;
            at = start + text[start..].iter().take_while(|byte| is_part(byte)).count();
            let name = &text[start..at];
            if name.len() > 1 && !name[0].is_ascii_digit() {
                return Some((at, name));
            }
        }
    })
}

pub(super) fn is_keyword(name: &[u8]) -> bool {
    const KEYWORDS: [&str; 38] = [
        "Self", "as", "async", "await", "break", "const", "continue", "crate", "dyn", "else", "enum", "extern",
        "false", "fn", "for", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref", "return",
        "self", "static", "struct", "super", "trait", "true", "type", "unsafe", "use", "where", "while",
    ];
    KEYWORDS.iter().any(|keyword| keyword.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(prefix: &str, line: &str, suffix: &str, n_healed: usize) -> [f32; N_FEATURES] {
        let prompt = Prompt { prefix, suffix, ..Prompt::default() };
        Surroundings::of(&prompt).fit(line.as_bytes(), n_healed)
    }

    fn cross(f: &[f32; N_FEATURES]) -> (usize, usize) {
        let at = f[..N_ENDS * N_RELATIONS].iter().position(|x| *x == 1.0).expect("each line has an end");
        (at / N_RELATIONS, at % N_RELATIONS)
    }

    #[test]
    fn the_end_of_a_line_meets_the_depth_of_what_follows() {
        let before = "fn f(total: u32) {\n    ";
        assert_eq!(cross(&fit(before, "if total > 0 {", "\n        g();\n    }\n}\n", 0)), (0, 0));
        assert_eq!(cross(&fit(before, "g();", "\n    h();\n}\n", 0)), (1, 1));
        assert_eq!(cross(&fit(before, "g()", "\n}\n", 0)), (3, 2));
        assert_eq!(cross(&fit(before, "g();", "\n\n    h();\n}\n", 0)), (1, 3));
        assert_eq!(cross(&fit(before, "let x =", "", 0)), (4, 4));
        assert_eq!(cross(&fit("", "", "", 0)), (5, 4));
    }

    #[test]
    fn names_are_known_from_the_text_around_the_line_alone() {
        let (before, after) = ("fn f(total: u32) {\n    let other = to", "\n    total + other\n}\n");
        let names = |line: &str, n_healed: usize| {
            let f = fit(before, line, after, n_healed);
            (f[N_ENDS * N_RELATIONS].exp().round() as u32 - 1, f[N_ENDS * N_RELATIONS + 2].exp().round() as u32 - 1)
        };
        assert_eq!(names("tal;", 0), (0, 1));
        assert_eq!(names("total.min(missing);", 2), (2, 1));
        assert_eq!(names("p as usize;", 0), (2, 0));
    }

    #[test]
    fn a_line_that_stands_there_and_a_statement_that_goes_on_are_seen() {
        let f = fit("    g(1);\n    ", "g(1);", "\n        .await;\n", 0);
        assert_eq!(f[N_ENDS * N_RELATIONS + 3..], [1.0, 1.0]);
        let f = fit("    g(1);\n    ", "g(2)", "\n        .await;\n", 0);
        assert_eq!(f[N_ENDS * N_RELATIONS + 3..], [0.0, 0.0]);
    }
}
