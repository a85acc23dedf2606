//! `scheme://user:password@host`.

use super::{Finding, run, shape};

pub(super) const RULE: &str = "url-password";

/// How far after `://` an `@` is looked for, in bytes.
const MOST: usize = 512;
/// Shorter ones are `pass`, `guest` and `1234`.
const LEAST_PASSWORD: usize = 6;

/// What is written in place of a password; digits and marks may follow.
const STEMS: &[&str] = &[
    "pass", "p@ss", "pwd", "pw", "passw0rd", "p@ssw0rd", "p4ssw0rd", "s3cret", "s3cr3t", "admin", "root", "user",
    "guest", "test", "demo", "foo", "bar", "baz", "abc", "hunter",
];

/// The password of the URL whose scheme ends at `colon`.
pub(super) fn password(bytes: &[u8], colon: usize) -> Option<Finding> {
    let start = colon + "://".len();
    let has_scheme = colon > 0 && bytes[colon - 1].is_ascii_alphanumeric();
    // A `{` would start a template, a `<` a placeholder.
    let n = run(bytes, start, MOST, |byte| byte.is_ascii_graphic() && !b"/?#\"'\\`<>{}".contains(&byte));
    let authority = &bytes[start..start + n];
    let host = authority.iter().rposition(|byte| *byte == b'@')?;
    let user = authority[..host].iter().position(|byte| *byte == b':')?;
    let password = &authority[user + 1..host];
    let is_secret = has_scheme
        && password.len() >= LEAST_PASSWORD
        && password != &authority[..user]
        && !is_made_up(password)
        && !shape::contains_word(&authority[host..], "example");
    let range = start + user + 1..start + host;
    is_secret.then_some(Finding { range, rule: RULE })
}

/// A plain word counts as made up: most are, and as passwords they protect nothing.
fn is_made_up(password: &[u8]) -> bool {
    let n_stem = password.iter().rposition(u8::is_ascii_alphabetic).map_or(0, |last| last + 1);
    let stem = &password[..n_stem];
    password[0] == b'$'
        || shape::n_classes(password) < 2
        || STEMS.iter().any(|other| stem.eq_ignore_ascii_case(other.as_bytes()))
        || shape::is_wordy(password)
        || shape::is_made_up(password)
}
