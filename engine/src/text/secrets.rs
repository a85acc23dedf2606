//! Keys, tokens and passwords in a text: where they are, and the text without them.
//!
//! ```text
//! at each word                             the prefix of a format, and as much of its alphabet as the format has
//!                                          a name that ends with `secret`, `=` or `:` or `(`, a literal that looks random
//! at each `://`                            user:password@
//! at each `-----BEGIN … PRIVATE KEY…-----` the lines of base64 after it
//! less what is made up                     a letter again and again, `example`, `${…}`, a row of digits
//! ```
//!
//! One pass, whatever the text: each rule looks back and ahead by a bounded number of bytes, or at bytes that are
//! looked at only once. This knows no Rust, only literals and lines, so it reads any text; and it asks no service
//! whether a key is in use. `docs/reference/secrets.md` lists the rules and what they miss.

use std::borrow::Cow;
use std::ops::Range;

mod format;
mod key_block;
mod shape;
mod named;
mod url;

/// A secret in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its range in bytes; both ends are character boundaries.
    pub range: Range<usize>,
    /// The rule that found it, by its name in `docs/reference/secrets.md`.
    pub rule: &'static str,
}

/// Replaces a secret of any length. Five of its letter in a row count as made up.
const PLACEHOLDER: &str = "xxxxxxxx";

/// The secrets of a text, in order; none overlaps another. A literal or a token that ends with the text may have been
/// cut there, and counts from 16 characters on.
pub fn find(text: &str) -> Vec<Finding> {
    let bytes = text.as_bytes();
    let mut findings = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if is_word(byte) {
            let end = at + run(bytes, at, usize::MAX, is_word);
            // The letter of an escape is not part of the word after it.
            let is_escape = at > 0 && bytes[at - 1] == b'\\' && matches!(byte, b'n' | b'r' | b't');
            let word = at + usize::from(is_escape)..end;
            findings.extend(format::at(bytes, word.start));
            findings.extend(named::value_after(bytes, &word));
            at = end;
        } else if byte == b':' && bytes[at..].starts_with(b"://") {
            findings.extend(url::password(bytes, at));
            at += 3;
        } else if byte == b'-' && bytes[at..].starts_with(key_block::BEGIN) {
            let (finding, end) = key_block::at(bytes, at);
            findings.extend(finding);
            at = end;
        } else {
            at += 1;
        }
    }
    merged(findings)
}

/// The text with each secret replaced by a run of one letter, which leaves quotes, escapes and lines as they are.
/// [`find`] finds nothing in what it returns.
pub fn scrub(text: &str) -> Cow<'_, str> {
    scrub_counted(text).0
}

/// As [`scrub`], and how many secrets there were.
pub fn scrub_counted(text: &str) -> (Cow<'_, str>, usize) {
    let mut clean = Cow::Borrowed(text);
    let mut n_found = 0;
    // Repeated, since a secret may have been between a name and its value. Each round leaves fewer other letters.
    loop {
        let findings = find(&clean);
        if findings.is_empty() {
            return (clean, n_found);
        }
        n_found += findings.len();
        clean = Cow::Owned(without(&clean, &findings));
    }
}

fn without(text: &str, findings: &[Finding]) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut from = 0;
    for finding in findings {
        clean.push_str(&text[from..finding.range.start]);
        match finding.rule {
            key_block::RULE => key_block::blank(&text[finding.range.clone()], &mut clean),
            _ => clean.push_str(PLACEHOLDER),
        }
        from = finding.range.end;
    }
    clean.push_str(&text[from..]);
    clean
}

/// Merges findings that overlap. The rule of a format is more telling than that of a variable's name.
fn merged(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| finding.range.start);
    let mut merged: Vec<Finding> = Vec::with_capacity(findings.len());
    for finding in findings {
        match merged.last_mut() {
            Some(last) if finding.range.start < last.range.end => {
                last.range.end = last.range.end.max(finding.range.end);
                if last.rule == named::RULE {
                    last.rule = finding.rule;
                }
            }
            _ => merged.push(finding),
        }
    }
    merged
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// How many bytes from `at` on satisfy `has`, at most `most`.
fn run(bytes: &[u8], at: usize, most: usize, has: impl Fn(u8) -> bool) -> usize {
    bytes.get(at..).unwrap_or_default().iter().take(most).take_while(|byte| has(**byte)).count()
}

#[cfg(test)]
mod tests;
