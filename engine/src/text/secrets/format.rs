//! Tokens with a prefix by which their issuers made them recognisable.

use std::ops::RangeInclusive;

use super::{Finding, is_word, run, shape};

/// A prefix and what follows it.
pub(super) struct Format {
    pub(super) rule: &'static str,
    prefixes: &'static [&'static str],
    alphabet: Alphabet,
    /// Characters after the prefix.
    n: RangeInclusive<usize>,
}

/// The rules that are not rows of the table.
pub(super) const JWT: &str = "jwt";
pub(super) const SENDGRID: &str = "sendgrid-key";

/// Lengths as the issuers document them or as their tokens have; with room to grow where an issuer announces that.
pub(super) const FORMATS: &[Format] = &[
    Format {
        rule: "aws-access-key-id",
        prefixes: &["AKIA", "ASIA", "ABIA", "ACCA"],
        alphabet: Alphabet::Upper,
        n: 16..=16,
    },
    Format {
        rule: "github-token",
        prefixes: &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
        alphabet: Alphabet::Alnum,
        n: 36..=251,
    },
    Format { rule: "github-token", prefixes: &["github_pat_"], alphabet: Alphabet::Word, n: 82..=244 },
    Format {
        rule: "gitlab-token",
        prefixes: &["glpat-", "gldt-", "glrt-", "glcbt-", "glptt-"],
        alphabet: Alphabet::Url,
        n: 20..=300,
    },
    Format {
        rule: "slack-token",
        prefixes: &["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe-", "xoxc-", "xoxd-", "xapp-"],
        alphabet: Alphabet::Dashed,
        n: 20..=260,
    },
    Format { rule: "slack-webhook", prefixes: &["hooks.slack.com/services/"], alphabet: Alphabet::Base64, n: 40..=90 },
    Format { rule: "stripe-key", prefixes: &["sk_live_", "rk_live_"], alphabet: Alphabet::Alnum, n: 20..=250 },
    Format { rule: "google-key", prefixes: &["AIza"], alphabet: Alphabet::Url, n: 35..=35 },
    Format { rule: "google-key", prefixes: &["GOCSPX-"], alphabet: Alphabet::Url, n: 28..=28 },
    Format { rule: "crates-io-token", prefixes: &["cio"], alphabet: Alphabet::Alnum, n: 32..=32 },
    Format { rule: "npm-token", prefixes: &["npm_"], alphabet: Alphabet::Alnum, n: 36..=36 },
    // A macaroon of version 2, whose first field is its place.
    Format { rule: "pypi-token", prefixes: &["pypi-AgE"], alphabet: Alphabet::Url, n: 50..=500 },
    Format { rule: "anthropic-key", prefixes: &["sk-ant-"], alphabet: Alphabet::Url, n: 40..=250 },
    Format {
        rule: "openai-key",
        prefixes: &["sk-proj-", "sk-svcacct-", "sk-admin-"],
        alphabet: Alphabet::Url,
        n: 40..=250,
    },
    Format { rule: "openai-key", prefixes: &["sk-"], alphabet: Alphabet::Alnum, n: 32..=64 },
    Format { rule: "twilio-key", prefixes: &["SK"], alphabet: Alphabet::Hex, n: 32..=32 },
    Format {
        rule: "digitalocean-token",
        prefixes: &["dop_v1_", "doo_v1_", "dor_v1_"],
        alphabet: Alphabet::Hex,
        n: 64..=64,
    },
    Format { rule: "huggingface-token", prefixes: &["hf_"], alphabet: Alphabet::Alnum, n: 34..=40 },
    Format { rule: "age-key", prefixes: &["AGE-SECRET-KEY-1"], alphabet: Alphabet::Bech32, n: 58..=58 },
    // 158 bytes in base64; the first six name the algorithms of a key with and of one without a passphrase.
    Format { rule: "minisign-key", prefixes: &["RWRTY0Iy", "RWQAAEIy"], alphabet: Alphabet::Base64, n: 203..=204 },
];

/// A token that ends with the text counts with so many characters after its prefix: fewer may be an identifier's.
const LEAST_CUT: usize = 16;
/// So much of a JWT's end is checked for being made up: somewhere in a long payload five letters are a word.
const JUDGED: usize = 64;
/// The signature of a JWT has 43 characters or more; some verify with shorter ones of their own.
const LEAST_SIGNATURE: usize = 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Alphabet {
    Upper,
    Hex,
    Alnum,
    Word,
    Dashed,
    Url,
    Base64,
    Bech32,
}

impl Alphabet {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Hex => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            Self::Alnum => byte.is_ascii_alphanumeric(),
            Self::Word => is_word(byte),
            Self::Dashed => byte.is_ascii_alphanumeric() || byte == b'-',
            Self::Url => is_word(byte) || byte == b'-',
            Self::Base64 => byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='),
            // Digits and upper-case letters without `1`, `B`, `I` and `O` (BIP 173).
            Self::Bech32 => {
                (byte.is_ascii_uppercase() || byte.is_ascii_digit()) && !matches!(byte, b'1' | b'B' | b'I' | b'O')
            }
        }
    }

    /// Whether its random values have two kinds of characters, which a long word does not have.
    fn is_mixed(self) -> bool {
        !matches!(self, Self::Upper | Self::Bech32)
    }
}

/// The token that starts at the word at `start`.
pub(super) fn at(bytes: &[u8], start: usize) -> Option<Finding> {
    let rest = &bytes[start..];
    let first = *rest.first()?;
    // A token with dashes does not start within another, whose end would then be looked for many times.
    let follows_dash = start > 0 && bytes[start - 1] == b'-';
    let mut formats = FORMATS.iter().filter(|format| !(follows_dash && format.alphabet.has(b'-')));
    let of_format = formats.find_map(|format| Some((format.rule, format.len_of(first, rest)?)));
    let (rule, len) = of_format
        .or_else(|| if follows_dash { None } else { Some((JWT, jwt(rest)?)) })
        .or_else(|| Some((SENDGRID, sendgrid(rest)?)))?;
    Some(Finding { range: start..start + len, rule })
}

impl Format {
    /// The length of the token that `rest` starts with, if it does.
    fn len_of(&self, first: u8, rest: &[u8]) -> Option<usize> {
        let starts = |prefix: &&str| prefix.as_bytes()[0] == first && rest.starts_with(prefix.as_bytes());
        let n_prefix = self.prefixes.iter().copied().find(starts)?.len();
        let n = run(rest, n_prefix, self.n.end() + 1, |byte| self.alphabet.has(byte));
        let len = n_prefix + n;
        let is_whole = self.n.contains(&n) && ends_word(rest, len);
        let is_cut = len == rest.len() && n >= LEAST_CUT && n <= *self.n.end();
        let body = &rest[n_prefix..len];
        let is_random = !self.alphabet.is_mixed() || shape::n_classes(body) > 1;
        ((is_whole || is_cut) && is_random && !shape::is_made_up(body)).then_some(len)
    }
}

/// `header.payload.signature` in base64; header and payload are JSON objects, which start with `eyJ`.
fn jwt(rest: &[u8]) -> Option<usize> {
    let part = |at: usize| at + run(rest, at, usize::MAX, |byte| Alphabet::Url.has(byte));
    if !rest.starts_with(b"eyJ") {
        return None;
    }
    let header = part(0);
    let has_payload = rest[header..].starts_with(b".eyJ");
    let payload = if has_payload { part(header + 1) } else { header };
    let has_signature = has_payload && rest.get(payload) == Some(&b'.');
    let end = if has_signature { part(payload + 1) } else { payload };
    let is_whole = has_signature && end - payload > LEAST_SIGNATURE;
    let is_cut = end == rest.len() && end >= "eyJ".len() + LEAST_CUT;
    let tail = &rest[end.saturating_sub(JUDGED)..end];
    ((is_whole || is_cut) && !shape::is_made_up(tail)).then_some(end)
}

/// `SG.`, 22 characters of an id, `.`, 43 of the key.
fn sendgrid(rest: &[u8]) -> Option<usize> {
    const KEY: usize = "SG.".len() + 22 + 1;
    let part = |at: usize, most: usize| at + run(rest, at, most, |byte| Alphabet::Url.has(byte));
    let has_id = rest.starts_with(b"SG.") && part(3, 23) == KEY - 1 && rest.get(KEY - 1) == Some(&b'.');
    if !has_id {
        return None;
    }
    let end = part(KEY, 44);
    let is_cut = end == rest.len() && end < KEY + 43;
    ((end == KEY + 43 || is_cut) && !shape::is_made_up(&rest[3..end])).then_some(end)
}

fn ends_word(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_none_or(|byte| !is_word(*byte))
}
