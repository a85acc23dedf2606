//! Follows brackets and literals through Rust text, a piece at a time, whatever the text.

/// The state of a text up to a position: the brackets that are open, and whether it is in code, a literal or a comment.
///
/// Pieces may be cut anywhere. A closing bracket that matches none is counted and skipped.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    /// The closing brackets that the open ones need, innermost last.
    due: Vec<u8>,
    mode: Mode,
    /// How many of `due` were open at the cursor and still are.
    outer: usize,
    n_outer_closed: usize,
    n_stray: usize,
    is_broken: bool,
    deepest: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Code(Before),
    LineComment,
    /// `last` is the previous byte, or 0 where it already belongs to a `/*` or `*/`.
    BlockComment {
        depth: usize,
        last: u8,
    },
    Str {
        escaped: bool,
    },
    /// `seen` counts the hashes since a quote.
    RawStr {
        hashes: usize,
        seen: Option<usize>,
    },
    /// After `'`: a character or a lifetime.
    Quote,
    /// After `'` and the first byte of what may be either.
    QuoteName,
    Char {
        escaped: bool,
    },
}

/// What precedes the next byte, as far as it changes that byte's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    Slash,
    /// A word that is not the prefix of a literal.
    Word,
    /// `b` or `c`.
    BytePrefix,
    /// `r`, `br` or `cr`.
    RawPrefix,
    /// `r`, `br` or `cr`, and so many hashes.
    RawHashes(usize),
}

impl Default for Mode {
    fn default() -> Self {
        Self::Code(Before::Nothing)
    }
}

impl Scanner {
    /// The state after `prefix`, the text before a cursor at which completions are judged.
    pub fn after(prefix: &str) -> Self {
        let mut scanner = Self::default();
        scanner.feed(prefix);
        Self { outer: scanner.due.len(), n_outer_closed: 0, is_broken: false, ..scanner }
    }

    /// Continues through `text`.
    pub fn feed(&mut self, text: &str) {
        self.feed_bytes(text.as_bytes());
    }

    /// Continues through bytes, which need not end at a character.
    pub fn feed_bytes(&mut self, text: &[u8]) {
        text.iter().for_each(|&byte| self.step(byte));
    }

    /// Continues through a byte. Returns whether it was a bracket of code.
    pub(super) fn feed_byte(&mut self, byte: u8) -> bool {
        let before = (self.due.len(), self.n_stray);
        self.step(byte);
        before != (self.due.len(), self.n_stray)
    }

    /// Continues through a text that starts in code, has these brackets and ends in `mode`.
    pub(super) fn feed_brackets(&mut self, brackets: &[u8], mode: Mode) {
        for &bracket in brackets {
            self.code(Before::Nothing, bracket);
        }
        self.mode = mode;
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// How many brackets are open.
    pub fn depth(&self) -> usize {
        self.due.len()
    }

    /// How many brackets were opened since the cursor and are still open.
    pub fn own_depth(&self) -> usize {
        self.due.len() - self.outer
    }

    /// How many brackets were open at the cursor and have been closed since.
    pub fn n_outer_closed(&self) -> usize {
        self.n_outer_closed
    }

    /// Whether the next byte is code, or in a line comment that ends with its line; not in a literal or a block
    /// comment.
    pub fn in_code(&self) -> bool {
        matches!(self.mode, Mode::Code(_) | Mode::LineComment | Mode::QuoteName)
    }

    /// Whether the next byte is in a line or block comment.
    pub fn in_comment(&self) -> bool {
        matches!(self.mode, Mode::LineComment | Mode::BlockComment { .. })
    }

    /// Whether a closing bracket matched none, or a character literal ran over the end of a line, since the cursor.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// How many of the brackets that are open here `suffix` closes.
    pub fn closed_by(&self, suffix: &str) -> usize {
        let mut ahead = Self { outer: self.due.len(), n_outer_closed: 0, ..self.clone() };
        let mut bytes = suffix.bytes();
        while ahead.outer > 0
            && let Some(byte) = bytes.next()
        {
            ahead.step(byte);
        }
        ahead.n_outer_closed
    }

    pub(super) fn in_char(&self) -> bool {
        matches!(self.mode, Mode::Quote | Mode::Char { .. })
    }

    /// How many closing brackets matched none, since the start of the text.
    pub fn n_stray(&self) -> usize {
        self.n_stray
    }

    pub(super) fn deepest(&self) -> usize {
        self.deepest
    }

    fn step(&mut self, byte: u8) {
        self.mode = match self.mode {
            Mode::Code(before) => self.code(before, byte),
            Mode::LineComment if byte == b'\n' => Mode::default(),
            Mode::LineComment => Mode::LineComment,
            Mode::BlockComment { depth, last } => match (last, byte) {
                (b'*', b'/') if depth == 1 => Mode::default(),
                (b'*', b'/') => Mode::BlockComment { depth: depth - 1, last: 0 },
                (b'/', b'*') => Mode::BlockComment { depth: depth + 1, last: 0 },
                _ => Mode::BlockComment { depth, last: byte },
            },
            Mode::Str { escaped: false } if byte == b'"' => Mode::Code(Before::Word),
            Mode::Str { escaped } => Mode::Str { escaped: !escaped && byte == b'\\' },
            Mode::RawStr { hashes, seen } => match (seen, byte) {
                (_, b'"') if hashes == 0 => Mode::Code(Before::Word),
                (_, b'"') => Mode::RawStr { hashes, seen: Some(0) },
                (Some(seen), b'#') if seen + 1 == hashes => Mode::Code(Before::Word),
                (Some(seen), b'#') => Mode::RawStr { hashes, seen: Some(seen + 1) },
                _ => Mode::RawStr { hashes, seen: None },
            },
            Mode::Quote => match byte {
                b'\\' => Mode::Char { escaped: true },
                b'\'' | b'\n' => {
                    self.is_broken = true;
                    Mode::default()
                }
                b'A'..=b'Z' | b'a'..=b'z' | b'_' | 0x80.. => Mode::QuoteName,
                _ => Mode::Char { escaped: false },
            },
            Mode::QuoteName => match byte {
                b'\'' => Mode::Code(Before::Word),
                // The rest of one character; only the first of a longer name matters.
                0x80..=0xBF => Mode::QuoteName,
                _ => self.code(Before::Word, byte),
            },
            Mode::Char { escaped: false } if byte == b'\'' => Mode::Code(Before::Word),
            Mode::Char { .. } if byte == b'\n' => {
                self.is_broken = true;
                Mode::default()
            }
            Mode::Char { escaped } => Mode::Char { escaped: !escaped && byte == b'\\' },
        };
    }

    fn code(&mut self, before: Before, byte: u8) -> Mode {
        let before = match (before, byte) {
            (Before::Slash, b'/') => return Mode::LineComment,
            (Before::Slash, b'*') => return Mode::BlockComment { depth: 1, last: 0 },
            (Before::RawPrefix, b'#') => Before::RawHashes(1),
            (Before::RawHashes(hashes), b'#') => Before::RawHashes(hashes + 1),
            (Before::RawPrefix, b'"') => return Mode::RawStr { hashes: 0, seen: None },
            (Before::RawHashes(hashes), b'"') => return Mode::RawStr { hashes, seen: None },
            (_, b'"') => return Mode::Str { escaped: false },
            (_, b'\'') => return Mode::Quote,
            (_, b'/') => Before::Slash,
            (Before::Nothing | Before::Slash, b'b' | b'c') => Before::BytePrefix,
            (Before::Nothing | Before::Slash | Before::BytePrefix, b'r') => Before::RawPrefix,
            (_, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | 0x80..) => Before::Word,
            (_, b'(') => self.open(b')'),
            (_, b'[') => self.open(b']'),
            (_, b'{') => self.open(b'}'),
            (_, b')' | b']' | b'}') => self.close(byte),
            _ => Before::Nothing,
        };
        Mode::Code(before)
    }

    fn open(&mut self, closing: u8) -> Before {
        self.due.push(closing);
        self.deepest = self.deepest.max(self.due.len());
        Before::Nothing
    }

    fn close(&mut self, closing: u8) -> Before {
        if self.due.last() == Some(&closing) {
            self.due.pop();
            if self.due.len() < self.outer {
                self.outer -= 1;
                self.n_outer_closed += 1;
            }
        } else {
            self.n_stray += 1;
            self.is_broken = true;
        }
        Before::Nothing
    }
}

#[cfg(test)]
mod tests;
