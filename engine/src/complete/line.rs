//! What one line of Rust looks like to the classifiers: how it ends, how deep it is, and which names it uses.

/// What the last character of a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineEnd {
    /// An opening bracket.
    Open,
    Semicolon,
    Comma,
    /// A closing bracket.
    Close,
    Operator,
    /// Anything else, and nothing.
    Other,
}

impl LineEnd {
    pub(super) fn of(line: &[u8]) -> Self {
        match line.last() {
            Some(b'{' | b'(' | b'[') => Self::Open,
            Some(b';') => Self::Semicolon,
            Some(b',') => Self::Comma,
            Some(b'}' | b')' | b']') => Self::Close,
            Some(b'=' | b'+' | b'-' | b'*' | b'/' | b'|' | b'&' | b'.' | b':' | b'<' | b'>') => Self::Operator,
            _ => Self::Other,
        }
    }
}

/// Names of two letters or more, each with where it ends.
pub(super) fn names(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
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

/// Whether Rust reserves this word.
pub(super) fn is_keyword(name: &[u8]) -> bool {
    const KEYWORDS: [&str; 38] = [
        "Self", "as", "async", "await", "break", "const", "continue", "crate", "dyn", "else", "enum", "extern",
        "false", "fn", "for", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref", "return",
        "self", "static", "struct", "super", "trait", "true", "type", "unsafe", "use", "where", "while",
    ];
    KEYWORDS.iter().any(|keyword| keyword.as_bytes() == name)
}
