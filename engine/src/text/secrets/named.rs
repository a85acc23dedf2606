//! Values under a name that marks them as secret: `api_key = "…"`, `.password("…")`, `"client-secret": "…"`,
//! `API_TOKEN=…`.

use std::ops::Range;

use super::{Finding, is_word, run, shape};

pub(super) const RULE: &str = "named-secret";

/// What the name of a secret ends with, in lower case, without `_` and `-`.
const ENDINGS: &[&str] = &[
    "secret",
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "token",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "authkey",
    "signingkey",
    "encryptionkey",
    "masterkey",
    "accountkey",
    "sharedkey",
    "servicekey",
    "sessionkey",
    "licensekey",
    "credential",
    "credentials",
    "bearer",
];

/// What may follow that, as digits may.
const TRAILERS: &[&str] = &["value", "str", "string", "prod", "production", "live", "staging", "dev"];

/// Bytes of a name's end that are looked at.
const MOST_NAME: usize = 32;
/// Most bytes between a name and its value, for a type and a constructor: `: Option<&'static str> =
/// Some(SecretString::from(`.
const MOST_GLUE: usize = 80;
/// Shorter values are words and test data as often as secrets.
const LEAST: usize = 16;
/// Longer ones are data.
const MOST: usize = 512;

/// The value of the name that ends with `word`.
pub(super) fn value_after(bytes: &[u8], word: &Range<usize>) -> Option<Finding> {
    let from = separator(bytes, word.end)?;
    if !names_a_secret(&bytes[name_start(bytes, word.end)..word.end]) {
        return None;
    }
    let range = unquoted(bytes, word).or_else(|| literal(bytes, from))?;
    is_secret(&bytes[range.clone()]).then_some(Finding { range, rule: RULE })
}

/// Where a value may start: after `=`, `:` or `(`, and after `,` where the name is a whole literal.
fn separator(bytes: &[u8], end: usize) -> Option<usize> {
    let n_quote = match bytes.get(end) {
        Some(b'"' | b'\'') => 1,
        Some(b'\\') if bytes.get(end + 1) == Some(&b'"') => 2,
        _ => 0,
    };
    let mut at = end + n_quote;
    at += usize::from(bytes.get(at) == Some(&b']'));
    at += run(bytes, at, 40, |byte| byte == b' ' || byte == b'\t');
    match (*bytes.get(at)?, bytes.get(at + 1)) {
        (b':', Some(b':')) => None, // a path
        (b'!', Some(b'=')) => Some(at + 2),
        (b'=' | b':' | b'(', _) => Some(at + 1),
        (b',', _) if n_quote > 0 && follows_quote(bytes, end) => Some(at + 1),
        _ => None,
    }
}

fn follows_quote(bytes: &[u8], end: usize) -> bool {
    let name = name_start(bytes, end);
    name > 0 && matches!(bytes[name - 1], b'"' | b'\'')
}

fn name_start(bytes: &[u8], end: usize) -> usize {
    let backwards = bytes[..end].iter().rev().take(MOST_NAME);
    end - backwards.take_while(|byte| is_word(**byte) || **byte == b'-').count()
}

fn names_a_secret(name: &[u8]) -> bool {
    let mut letters = [0; MOST_NAME];
    let mut n = 0;
    for byte in name.iter().filter(|byte| byte.is_ascii_alphanumeric()) {
        letters[n] = byte.to_ascii_lowercase();
        n += 1;
    }
    let mut name = &letters[..n];
    loop {
        while let [shorter @ .., b'0'..=b'9'] = name {
            name = shorter;
        }
        match TRAILERS.iter().find_map(|trailer| name.strip_suffix(trailer.as_bytes())) {
            Some(shorter) => name = shorter,
            None => break,
        }
    }
    ENDINGS.iter().any(|ending| name.ends_with(ending.as_bytes()))
}

/// `NAME=value` as in an environment file, `--name=value`, `?name=value`: up to what ends a word of a shell or a URL.
fn unquoted(bytes: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let name = name_start(bytes, word.end);
    let is_variable = !bytes[word.clone()].iter().any(u8::is_ascii_lowercase);
    let is_option = bytes[name] == b'-' || name > 0 && matches!(bytes[name - 1], b'?' | b'&');
    if bytes.get(word.end) != Some(&b'=') || !(is_variable || is_option) {
        return None;
    }
    let start = word.end + 1;
    let n = run(bytes, start, MOST + 1, |byte| byte.is_ascii_alphanumeric() || b"_-+/.~".contains(&byte));
    let end = start + n + run(bytes, start + n, 2, |byte| byte == b'=');
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"\"'\\,;)&`".contains(byte);
    bytes.get(end).is_none_or(is_end).then_some(start..end)
}

/// The next literal, after nothing but a type or the names of constructors, on the same line or where rustfmt breaks
/// it. The end of the text ends it.
fn literal(bytes: &[u8], from: usize) -> Option<Range<usize>> {
    let mut at = from;
    let quote: &[u8] = loop {
        if at - from > MOST_GLUE {
            return None;
        }
        match *bytes.get(at)? {
            b'"' => break &b"\""[..],
            b'\\' if bytes.get(at + 1) == Some(&b'"') => break &b"\\\""[..],
            b'\'' => {
                let n = run(bytes, at + 1, 16, is_word);
                let is_lifetime = n > 0 && matches!(bytes.get(at + 1 + n), Some(b' ' | b'>' | b','));
                if !is_lifetime {
                    break &b"'"[..];
                }
                at += 1 + n;
            }
            b'\n' if opens(&bytes[from - 1..at]) => at += 1,
            byte if is_word(byte) || b" \t:=><&(*#".contains(&byte) => at += 1,
            _ => return None,
        }
    };
    let start = at + quote.len();
    let end = start + run(bytes, start, MOST + 1, |byte| byte.is_ascii_graphic() && !b"\"'\\`".contains(&byte));
    (end == bytes.len() || bytes[end..].starts_with(quote)).then_some(start..end)
}

/// Whether the last mark of a line announces a value.
fn opens(line: &[u8]) -> bool {
    let mark = line.iter().rev().find(|byte| !byte.is_ascii_whitespace());
    mark.is_some_and(|mark| matches!(mark, b'=' | b'>' | b':' | b'(' | b','))
}

fn is_secret(value: &[u8]) -> bool {
    let is_template = value.iter().any(|byte| b"{}<>".contains(byte))
        || value.starts_with(b"$") && value.iter().skip(1).all(|byte| is_word(*byte) || b"()".contains(byte));
    // A URL has its own rule; a path names something; three dots leave something out.
    let is_other = is_template || ["://", "::", "..."].iter().any(|mark| shape::contains_word(value, mark));
    (LEAST..=MOST).contains(&value.len()) && !is_other && !shape::is_made_up(value) && shape::is_random(value)
}
