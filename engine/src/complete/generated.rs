//! The rules of a completion: what may come next, where it ends, and what of it is new.

use super::Stop;
use super::trim::trim;
use crate::Tokenizer;
use crate::prompt::Prompt;
use crate::text::Scanner;
use crate::text::suffix::{SuffixScan, balanced_part};
use crate::text::tokenizer::{END, N_SPECIALS, TokenId};

/// The text generated so far, and the rules that end it.
#[derive(Clone)]
pub(super) struct GeneratedText {
    pub(super) bytes: Vec<u8>,
    /// Bytes before the cursor that must come first.
    pub(super) healed: Vec<u8>,
    pub(super) tokens: Vec<TokenId>,
    /// Where each token ends in `bytes`, as it was before any was cut.
    pub(super) token_ends: Vec<usize>,
    max_lines: usize,
    /// The cursor's line has content, so a newline that comes first ends it.
    mid_line: bool,
    at_cursor: Scanner,
    scanner: Scanner,
    scanned: usize,
    /// Brackets open at the cursor that the suffix does not close.
    n_to_close: usize,
    /// The bracket that ended the text, which the suffix has too.
    closer: Option<char>,
}

impl GeneratedText {
    pub(super) fn new(prompt: &Prompt<'_>, max_lines: usize, healed: Vec<u8>) -> Self {
        let at_cursor = Scanner::after(prompt.prefix);
        let line = prompt.prefix.rsplit('\n').next().unwrap_or_default();
        Self {
            bytes: Vec::new(),
            healed,
            tokens: Vec::new(),
            token_ends: Vec::new(),
            max_lines: max_lines.max(1),
            mid_line: !line.trim().is_empty(),
            scanner: at_cursor.clone(),
            scanned: 0,
            n_to_close: at_cursor.depth() - at_cursor.closed_by(prompt.suffix),
            at_cursor,
            closer: None,
        }
    }

    /// Takes away what may not come next: specials other than END, and, while healing, what contradicts the bytes that
    /// precede the cursor. Returns what was left of the probabilities before they were made to sum to 1 again.
    pub(super) fn forbid(&self, tokenizer: &Tokenizer, probabilities: &mut [f32]) -> f32 {
        let end = probabilities[usize::from(END)];
        probabilities[..usize::from(N_SPECIALS)].fill(0.0);
        probabilities.iter_mut().skip(tokenizer.vocab_size()).for_each(|p| *p = 0.0);
        let Some(rest) = self.healed.get(self.bytes.len()..).filter(|rest| !rest.is_empty()) else {
            probabilities[usize::from(END)] = end;
            return 1.0;
        };
        let allowed = tokenizer.tokens_compatible_with(rest);
        let kept: Vec<f32> = allowed.iter().map(|token| probabilities[usize::from(*token)]).collect();
        probabilities.fill(0.0);
        for (token, p) in allowed.iter().zip(&kept) {
            // A memory that never saw the healed bytes continued this way must still be able to write them.
            probabilities[usize::from(*token)] = p.max(1e-12);
        }
        let total: f32 = probabilities.iter().sum();
        probabilities.iter_mut().for_each(|p| *p /= total);
        total
    }

    /// Appends a token. If the text ends within or after it, why.
    pub(super) fn push(&mut self, token: TokenId, bytes: &[u8]) -> Option<Stop> {
        self.tokens.push(token);
        self.bytes.extend_from_slice(bytes);
        self.token_ends.push(self.bytes.len());
        if self.bytes.len() <= self.healed.len() {
            return None;
        }
        let (at, stop) = if let Some(at) = self.end_of_lines() {
            (at, Stop::Lines)
        } else if let Some(at) = self.closing_bracket() {
            (at, Stop::Bracket)
        } else {
            (self.repetition()?, Stop::Repeat)
        };
        self.bytes.truncate(at.max(self.healed.len()));
        Some(stop)
    }

    /// Whether a line break now would end the last line that is wanted.
    pub(super) fn line_may_end(&self) -> bool {
        let new = self.bytes.get(self.healed.len()..).unwrap_or_default();
        let is_healed = self.bytes.len() >= self.healed.len();
        is_healed && self.max_lines == 1 && (self.mid_line || !new.trim_ascii().is_empty())
    }

    /// Where the line that is one too many starts.
    fn end_of_lines(&self) -> Option<usize> {
        let new = &self.bytes[self.healed.len()..];
        let mut n_lines = 0;
        let mut has_content = self.mid_line;
        for (i, byte) in new.iter().enumerate() {
            if *byte == b'\n' {
                n_lines += usize::from(has_content);
                if n_lines >= self.max_lines {
                    return Some(self.healed.len() + i);
                }
                has_content = false;
            } else if !byte.is_ascii_whitespace() {
                has_content = true;
            }
        }
        None
    }

    /// Where a bracket is closed that the suffix closes, or that is not open.
    fn closing_bracket(&mut self) -> Option<usize> {
        self.scanned = self.scanned.max(self.healed.len());
        while let Some(c) = next_char(&self.bytes[self.scanned..]) {
            let before = self.scanned;
            self.scanned += c.len_utf8();
            self.scanner.feed(c.encode_utf8(&mut [0; 4]));
            if self.scanner.n_outer_closed() > self.n_to_close || self.scanner.is_broken() {
                self.closer = Some(c);
                return Some(before);
            }
        }
        None
    }

    /// What is new, before it is trimmed.
    pub(super) fn new_text(&self) -> &str {
        valid(self.bytes.get(self.healed.len()..).unwrap_or_default())
    }

    /// The text after the cursor, read once to judge many completions.
    pub(super) fn suffix_scan<'a>(&self, suffix: &'a str) -> SuffixScan<'a> {
        SuffixScan::new(self.at_cursor.clone(), balanced_part(suffix))
    }

    /// Whether what is new leaves brackets and literals intact, as far as the start of the suffix tells.
    pub(super) fn fits(&self, suffix: &SuffixScan<'_>) -> bool {
        suffix.scan_with(self.new_text()).is_some()
    }

    /// Where a run of tokens starts to repeat, once it is there four times; one or two tokens, once they are there
    /// sixteen times.
    fn repetition(&self) -> Option<usize> {
        let n = self.tokens.len();
        let repeats = |period: usize, times: usize| {
            let tail = &self.tokens[n - times * period..];
            tail.iter().zip(&tail[period..]).all(|(a, b)| a == b)
        };
        let period = (1..=n / 4).find(|period| repeats(*period, 4))?;
        let times = if period < 3 { 16 } else { 4 };
        if times * period > n || !repeats(period, times) {
            return None;
        }
        let start = self.token_ends[n - (times - 1) * period - 1];
        let end = self.token_ends[n - (times - 2) * period - 1];
        let (unit, has_word) = (&self.bytes[start..end], has_word(&self.bytes[..end], start));
        // Rulers, indentation and the equal numbers of an array end with their line.
        let is_numbers = unit.iter().any(u8::is_ascii_digit) && !unit.contains(&b'\n') && !has_word;
        let ends_by_itself = if period < 3 { !has_word } else { is_numbers };
        (!ends_by_itself).then_some(start)
    }

    /// What is new at the cursor, if anything is.
    pub(super) fn trimmed(self, suffix: &str) -> Option<String> {
        let new = self.bytes.get(self.healed.len()..).filter(|_| self.bytes.starts_with(&self.healed))?;
        trim(valid(new), self.closer, &self.at_cursor, suffix)
    }
}

/// Whether a word starts at `start` or later. The letters of a number such as `0x1f` or `1u8` are none.
fn has_word(text: &[u8], start: usize) -> bool {
    let is_word = |byte: u8| byte == b'_' || byte.is_ascii_alphabetic() || !byte.is_ascii();
    (start..text.len())
        .any(|at| is_word(text[at]) && at.checked_sub(1).is_none_or(|before| !text[before].is_ascii_alphanumeric()))
}

/// The text of bytes that may end in the middle of a character, without that.
fn valid(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).expect("valid up to here"),
    }
}

/// The first character of bytes that may end in the middle of one.
fn next_char(bytes: &[u8]) -> Option<char> {
    valid(&bytes[..bytes.len().min(4)]).chars().next()
}
