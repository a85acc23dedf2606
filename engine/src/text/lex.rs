//! Rust text as words, literals and marks, whatever the text: what is not Rust is read as punctuation.

/// The kind of a lexical token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A name or a keyword.
    Word,
    /// A number, a string or a character.
    Literal,
    /// A character of punctuation.
    Mark,
}

/// A lexical token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: TokenKind,
    /// The byte at which it starts.
    pub(crate) at: usize,
    pub(crate) text: &'a str,
}

impl Token<'_> {
    /// The byte at which it ends.
    pub(crate) fn end(&self) -> usize {
        self.at + self.text.len()
    }

    /// Whether it is this word or mark.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.kind != TokenKind::Literal && self.text == text
    }
}

/// The lexical tokens of a text without its comments. An unterminated literal reaches to the end of the text.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let (kind, end) = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += bytes[at..].iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len() - at);
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                at = end_of_comment(bytes, at);
                continue;
            }
            b'"' => (TokenKind::Literal, end_of_string(bytes, at)),
            b'\'' => match end_of_quote(bytes, at) {
                Some(end) => (TokenKind::Literal, end),
                None => (TokenKind::Mark, at + 1),
            },
            b'0'..=b'9' => (TokenKind::Literal, end_of_word(bytes, at)),
            _ if is_word(byte) => match end_of_prefixed(bytes, at, end_of_word(bytes, at)) {
                Some(end) => (TokenKind::Literal, end),
                None => (TokenKind::Word, end_of_word(bytes, at)),
            },
            _ => (TokenKind::Mark, at + 1),
        };
        found.push(Token { kind, at, text: &text[at..end] });
        at = end;
    }
    found
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn end_of_word(bytes: &[u8], start: usize) -> usize {
    start + bytes[start..].iter().take_while(|byte| is_word(**byte)).count()
}

fn end_of_comment(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (1usize, start + 2);
    while depth > 0 && at < bytes.len() {
        match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at.min(bytes.len())
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of `b"…"`, `r#"…"#`, `c"…"`, `b'…'` and the like, whose letters end at `quote`; `None` if it is none of
/// them.
fn end_of_prefixed(bytes: &[u8], start: usize, quote: usize) -> Option<usize> {
    match &bytes[start..quote] {
        b"b" if bytes.get(quote) == Some(&b'\'') => end_of_quote(bytes, quote),
        b"b" | b"c" if bytes.get(quote) == Some(&b'"') => Some(end_of_string(bytes, quote)),
        b"r" | b"br" | b"cr" => {
            let n_hashes = bytes[quote..].iter().take_while(|byte| **byte == b'#').count();
            if bytes.get(quote + n_hashes) != Some(&b'"') {
                return None;
            }
            let mut at = quote + n_hashes + 1;
            while let Some(byte) = bytes.get(at) {
                at += 1;
                let n_closing = bytes[at..].iter().take(n_hashes).take_while(|byte| **byte == b'#').count();
                if *byte == b'"' && n_closing == n_hashes {
                    return Some(at + n_hashes);
                }
            }
            Some(bytes.len())
        }
        _ => None,
    }
}

/// The end of a character in quotes; `None` for a lifetime.
fn end_of_quote(bytes: &[u8], start: usize) -> Option<usize> {
    const LONGEST: usize = 12; // '\u{10ffff}'
    if bytes.get(start + 1) == Some(&b'\\') {
        let rest = bytes.get(start + 3..bytes.len().min(start + LONGEST))?;
        return rest.iter().position(|byte| *byte == b'\'').map(|n| start + 3 + n + 1);
    }
    // A character has up to four bytes, and the quote must follow a whole one.
    let rest = bytes.get(start + 2..bytes.len().min(start + 6))?;
    let n = rest.iter().position(|byte| *byte == b'\'')?;
    (n == 0 || bytes[start + 1] >= 0x80).then_some(start + 2 + n + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        tokens(text).iter().map(|token| token.text).collect()
    }

    #[test]
    fn words_literals_and_marks_are_distinguished_and_comments_left_out() {
        let found = tokens("let a1 = 'x' + 0x1f; // b\n/* c /* d */ */ \"e\\\"f\"");
        let kinds: Vec<(TokenKind, &str)> = found.iter().map(|token| (token.kind, token.text)).collect();
        let expected = [
            (TokenKind::Word, "let"),
            (TokenKind::Word, "a1"),
            (TokenKind::Mark, "="),
            (TokenKind::Literal, "'x'"),
            (TokenKind::Mark, "+"),
            (TokenKind::Literal, "0x1f"),
            (TokenKind::Mark, ";"),
            (TokenKind::Literal, "\"e\\\"f\""),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(found.iter().map(Token::end).collect::<Vec<_>>(), [3, 6, 8, 12, 14, 19, 20, 48]);
    }

    #[test]
    fn lifetimes_are_no_characters() {
        assert_eq!(texts("&'a str"), ["&", "'", "a", "str"]);
        assert_eq!(texts("'ä' '\\'' '\\u{41}'"), ["'ä'", "'\\''", "'\\u{41}'"]);
    }

    #[test]
    fn strings_may_be_raw_and_of_bytes() {
        assert_eq!(
            texts("r#\"a\"b\"# b\"c\" b'd' br\"e\" r#type"),
            ["r#\"a\"b\"#", "b\"c\"", "b'd'", "br\"e\"", "r", "#", "type"]
        );
    }

    #[test]
    fn what_is_unterminated_reaches_to_the_end() {
        assert_eq!(texts("a \"b c"), ["a", "\"b c"]);
        assert_eq!(texts("a r#\"b\" c"), ["a", "r#\"b\" c"]);
        assert_eq!(texts("a /* b"), ["a"]);
        assert_eq!(texts("\"\\"), ["\"\\"]);
        assert_eq!(texts("'"), ["'"]);
    }
}
