//! How much of an answer counts: one line for a line tail, one statement for a statement, for every contestant.

use crate::holes::HoleKind;
use crate::source;

/// Answers are read this far.
const MAX_BYTES: usize = 8 << 10;
/// Places where a statement may end are tried up to this many.
const MAX_TRIES: usize = 64;

/// The first line or statement of `text`, without white space at its end. Text that never completes a statement
/// is returned whole: it will not compile either.
pub(crate) fn first(kind: HoleKind, text: &str) -> &str {
    let text = &text[..text.floor_char_boundary(MAX_BYTES)];
    match kind {
        HoleKind::LineTail => text.split('\n').next().unwrap_or_default().trim_end(),
        HoleKind::Statement => first_statement(text).trim_end(),
    }
}

fn first_statement(text: &str) -> &str {
    let ends = text.char_indices().filter_map(|(at, c)| match c {
        ';' | '}' => Some(at + 1),
        '\n' => Some(at),
        _ => None,
    });
    let ends = ends.filter(|&end| !text[..end].trim().is_empty()).take(MAX_TRIES);
    ends.chain([text.len()])
        .map(|end| text.split_at(end))
        .find(|(head, rest)| is_one_statement(head) && !goes_on(head, rest))
        .map_or(text, |(head, _)| head)
}

fn is_one_statement(text: &str) -> bool {
    source::with_large_stack(|| source::statements(text).is_some_and(|statements| statements.len() == 1))
}

/// Whether what follows belongs to the statement that `head` could be.
fn goes_on(head: &str, rest: &str) -> bool {
    let head = head.trim_end();
    let mut rest = rest.trim_start();
    while let Some(comment) = rest.strip_prefix("//") {
        rest = comment.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
    }
    if head.ends_with(';') || rest.is_empty() {
        return false;
    }
    let word = rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
    let after_block = rest.starts_with(['.', '?', ';']) && !rest.starts_with("..") || word == "else";
    // After a block, `*x = 1` and the like begin a new statement; after another expression they cannot.
    after_block
        || !head.ends_with('}')
            && (rest.starts_with(['+', '-', '*', '/', '%', '&', '|', '^', '=', '<', '>', '!'])
                || rest.starts_with("..")
                || word == "as")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tail_is_one_line() {
        assert_eq!(first(HoleKind::LineTail, "x + 1; \nlet y = 2;"), "x + 1;");
        assert_eq!(first(HoleKind::LineTail, "\nlet y = 2;"), "");
    }

    #[test]
    fn a_statement_ends_where_the_grammar_says() {
        for (text, statement) in [
            ("let a = 1; let b = 2;", "let a = 1;"),
            ("let a = \"; }\"; b", "let a = \"; }\";"),
            ("if a { b(); } else { c(); }\nd();", "if a { b(); } else { c(); }"),
            ("match x { A => 1, B => 2 }\n    .max(3)\n}", "match x { A => 1, B => 2 }\n    .max(3)"),
            ("if a { b(); }\n*x = 3;", "if a { b(); }"),
            ("a.b()\n    .c(|x| { x; })\n    .d()\n}\n", "a.b()\n    .c(|x| { x; })\n    .d()"),
            ("a\n    && b\n}", "a\n    && b"),
            ("let f = S { a: 1 };\nf", "let f = S { a: 1 };"),
            ("Ok(())\n}\n\nfn next() {}", "Ok(())"),
            ("let broken = (1;", "let broken = (1;"),
            ("", ""),
        ] {
            assert_eq!(first(HoleKind::Statement, text), statement);
        }
    }
}
