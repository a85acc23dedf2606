//! How much of a completion counts: one line, expression, statement or inside of a block, the same for every system.

use super::source;
use crate::holes::HoleKind;

/// Completions are read up to this length.
const MAX_BYTES: usize = 8 << 10;
/// At most this many possible ends of a statement are tried.
const MAX_TRIES: usize = 64;

/// The first unit of this kind in `text`, without trailing white space. Text that never completes one is returned
/// whole: it will not compile either.
pub fn first(kind: HoleKind, text: &str) -> &str {
    let text = &text[..text.floor_char_boundary(MAX_BYTES)];
    match kind {
        HoleKind::LineTail | HoleKind::NextLine | HoleKind::RestOfLine => {
            text.split('\n').next().unwrap_or_default().trim_end()
        }
        HoleKind::Statement => first_statement(text).trim_end(),
        HoleKind::Expression => first_expression(text).trim_end(),
        HoleKind::Block | HoleKind::FunctionBody => {
            let end = marks(text).find(|&(_, c, depth)| c == '}' && depth == 0).map_or(text.len(), |(at, ..)| at);
            without_comment_at_end(&text[..end])
        }
    }
}

/// Cuts before what cannot belong to an expression: a separator, an unmatched bracket, or a `{` after an
/// expression that is complete and not the name of a type.
fn first_expression(text: &str) -> &str {
    for (at, c, depth) in marks(text).filter(|(.., depth)| *depth == 0) {
        let (head, rest) = text.split_at(at);
        let ends = match c {
            ';' | ')' | ']' | '}' => true,
            ',' => is_expression(head), // not between generic arguments
            '=' => rest.starts_with("=>"),
            '\n' => !head.trim().is_empty() && is_expression(head) && !continues(head, rest),
            '{' => is_expression(head) && !names_type(head),
            _ => false,
        };
        if ends && depth == 0 {
            return head;
        }
    }
    text
}

fn is_expression(text: &str) -> bool {
    source::is_shallow(text) && source::with_large_stack(|| syn::parse_str::<syn::Expr>(text).is_ok())
}

/// Whether the last name looks like a type, which braces may follow.
fn names_type(text: &str) -> bool {
    let text = text.trim_end();
    let text = text.strip_suffix('>').map_or(text, |generic| generic.split('<').next().unwrap_or_default());
    let name = text.trim_end_matches("::").rsplit(|c: char| !(c.is_alphanumeric() || c == '_')).next();
    name.is_some_and(|name| name.starts_with(char::is_uppercase))
}

/// The characters of `text` that are code, with how many brackets are open before an opening one and after a closing
/// one; an unmatched closing one has depth 0.
fn marks(text: &str) -> impl Iterator<Item = (usize, char, usize)> {
    let mut depth = 0usize;
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = &text[at..];
            let here = at;
            let c = rest.chars().next()?;
            at += skipped(text, at);
            if at > here {
                continue;
            }
            at += c.len_utf8();
            match c {
                '(' | '[' | '{' => {
                    depth += 1;
                    return Some((here, c, depth - 1));
                }
                ')' | ']' | '}' if depth > 0 => {
                    depth -= 1;
                    return Some((here, c, depth + 1)); // its own: it ends nothing
                }
                _ => return Some((here, c, depth)),
            }
        }
    })
}

/// Length in bytes of the comment or literal that starts at `at`; 0 if none does.
fn skipped(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let to = |found: Option<usize>, n: usize| found.map_or(rest.len(), |i| i + n);
    if rest.starts_with("//") {
        return to(rest.find('\n'), 0);
    }
    if rest.starts_with("/*") {
        return to(rest.find("*/"), 2);
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let in_word = text[..at].chars().next_back().is_some_and(is_word);
    if let Some(raw) = rest.strip_prefix('r')
        && !in_word
    {
        let n_hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[n_hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(n_hashes));
            let open = 2 + n_hashes;
            return rest[open..].find(&close).map_or(rest.len(), |i| open + i + close.len());
        }
    }
    let quote = match rest.chars().next() {
        Some('"') => '"',
        Some('\'') => '\'',
        _ => return 0,
    };
    let mut letters = rest.char_indices().skip(1);
    let mut n_letters = 0;
    while let Some((i, c)) = letters.next() {
        match c {
            '\\' => drop(letters.next()),
            c if c == quote => return i + 1,
            // A lifetime: one letter and no closing quote.
            _ if quote == '\'' && n_letters > 0 => return 1,
            _ => {}
        }
        n_letters += usize::from(c != '\\');
    }
    if quote == '"' { rest.len() } else { 1 }
}

/// Cuts trailing comments: before a closing brace they belong to what follows.
fn without_comment_at_end(text: &str) -> &str {
    let mut end = 0;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let n = skipped(text, at);
        let is_comment = n > 0 && c == '/';
        at += n.max(c.len_utf8());
        if !is_comment && !c.is_whitespace() {
            end = at;
        }
    }
    &text[..end]
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
        .find(|(head, rest)| is_one_statement(head) && !continues(head, rest))
        .map_or(text, |(head, _)| head)
}

fn is_one_statement(text: &str) -> bool {
    source::with_large_stack(|| source::statements(text).is_some_and(|statements| statements.len() == 1))
}

/// Whether `rest` continues the statement that `head` could be.
fn continues(head: &str, rest: &str) -> bool {
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
    // After a block, `*x = 1` and the like start a new statement; after another expression they cannot.
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
    fn an_expression_ends_where_something_else_starts() {
        for (text, expression) in [
            ("a + b, c)", "a + b"),
            ("f(x, [1, 2]) {\n", "f(x, [1, 2])"),
            ("Point { x: 1, y: 2 };", "Point { x: 1, y: 2 }"),
            ("a == b {\n x", "a == b"),
            ("match x { A => 1, B => 2 })", "match x { A => 1, B => 2 }"),
            ("'a' + \"),\".len())", "'a' + \"),\".len()"),
            ("x.map(|y| { y; })\n    .max()?;\n", "x.map(|y| { y; })\n    .max()?"),
            ("x => y", "x"),
            ("r#\"a\"), b\"# /* ; */ + c]", "r#\"a\"), b\"# /* ; */ + c"),
            ("f::<'static, _>(x)\n}\n", "f::<'static, _>(x)"),
        ] {
            assert_eq!(first(HoleKind::Expression, text), expression);
        }
    }

    #[test]
    fn the_inside_of_a_block_ends_before_its_brace() {
        for (text, inside) in [
            ("a();\n    if b { c('}') }\n}\nfn d() {}", "a();\n    if b { c('}') }"),
            ("a\n    // b }\n}", "a"),
            ("a", "a"),
            ("\"}\"; }", "\"}\";"),
        ] {
            assert_eq!(first(HoleKind::FunctionBody, text), inside);
            assert_eq!(first(HoleKind::Block, text), inside);
        }
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
