//! Private keys between `-----BEGIN … PRIVATE KEY…-----` and `-----END`, as they occur in files and in literals: on
//! lines of their own, after comment marks, with `\n` between the lines, or as one literal per line.

use std::ops::Range;

use super::{Finding, PLACEHOLDER, run, shape};

pub(super) const RULE: &str = "private-key";
pub(super) const BEGIN: &[u8] = b"-----BEGIN ";

/// A run of base64 of this length is a line of a key, or its last one; shorter ones are words as often.
const LEAST_RUN: usize = 16;
/// One line must have as many characters, which no identifier has: keys are wrapped at 64 to 76.
const LEAST_LINE: usize = 40;
/// Base64 comes in fours, so the end of a key has as many characters, and the `b` of a literal does not.
const LEAST_END: usize = 4;

/// The key after a header at `at`, and where to continue reading.
pub(super) fn at(bytes: &[u8], at: usize) -> (Option<Finding>, usize) {
    let start = at + BEGIN.len();
    let n = run(bytes, start, 64, |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ');
    let (label, rest) = bytes[start..].split_at(n);
    if !rest.starts_with(b"-----") || !shape::contains_word(label, "PRIVATE KEY") {
        return (None, start);
    }
    let body = start + n + 5;
    let mut lines = KeyLines { bytes, at: skip_headers(bytes, body) };
    let (mut key, mut longest, mut last) = (None, 0, body);
    for line in lines.by_ref() {
        if line.len() >= LEAST_RUN && is_base64(&bytes[line.clone()]) {
            longest = longest.max(line.len());
            key = Some(key.map_or(line.clone(), |key: Range<usize>| key.start..line.end));
        }
        last = if line.len() >= LEAST_END { line.end } else { last };
    }
    let is_closed = bytes.get(lines.at..).is_some_and(|rest| rest.starts_with(b"-----END"));
    match key.filter(|_| longest >= LEAST_LINE) {
        Some(key) => {
            let end = if is_closed { last.max(key.end) } else { key.end };
            (Some(Finding { range: key.start..end, rule: RULE }), end)
        }
        None => (None, body),
    }
}

/// Appends the lines of a key that was found, with their content replaced.
pub(super) fn blank(key: &str, clean: &mut String) {
    let mut from = 0;
    for line in (KeyLines { bytes: key.as_bytes(), at: 0 }).filter(|line| line.len() >= LEAST_END) {
        clean.push_str(&key[from..line.start]);
        clean.push_str(PLACEHOLDER);
        from = line.end;
    }
    clean.push_str(&key[from..]);
}

/// Skips the lines `Name: value` that may precede the base64.
fn skip_headers(bytes: &[u8], mut at: usize) -> usize {
    for _ in 0..8 {
        let name = skip_breaks(bytes, at);
        let end = name + run(bytes, name, 24, |byte| byte.is_ascii_alphabetic() || byte == b'-');
        if !bytes.get(end..).is_some_and(|rest| rest.starts_with(b": ")) {
            break;
        }
        at = end + run(bytes, end, 200, |byte| byte != b'\n' && byte != b'\\' && byte != b'"');
    }
    at
}

/// The runs of base64 from `at` on, up to what cannot be part of a key block.
struct KeyLines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for KeyLines<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = skip_breaks(self.bytes, self.at);
        let n = run(self.bytes, start, usize::MAX, in_base64);
        self.at = start + n;
        (n > 0).then_some(start..start + n)
    }
}

/// Skips what may be between two lines: line ends and their escapes, quotes, commas and comment marks.
fn skip_breaks(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        let n_slashes = run(bytes, at, 3, |byte| byte == b'/');
        at += match byte {
            b'/' if n_slashes > 1 => n_slashes,
            b'\\' => 2,
            b' ' | b'\t' | b'\r' | b'\n' | b'"' | b'\'' | b',' | b'#' | b'*' | b'!' => 1,
            _ => break,
        };
    }
    at.min(bytes.len())
}

fn in_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// Whether a run belongs to a key: it is neither a word nor made up.
fn is_base64(line: &[u8]) -> bool {
    shape::n_classes(line) > 1 && !shape::contains_word(line, PLACEHOLDER)
}
