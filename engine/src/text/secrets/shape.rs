//! The shape of a value: random, or made up by somebody as a placeholder.

/// What people write in place of a secret. None is shorter than five characters: by chance one of them occurs in one of
/// 60,000 values of 64 letters and digits.
const MADE_UP: &[&str] = &[
    "example",
    "sample",
    "placeholder",
    "changeme",
    "change_me",
    "change-me",
    "your-",
    "your_",
    "yourkey",
    "dummy",
    "fake-",
    "fake_",
    "redacted",
    "insert",
    "replace",
    "foobar",
    "lorem",
    "password",
    "passwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "xxxxx",
    "12345678",
    "abcdefgh",
    "deadbeef",
];

/// Random hex of 16 digits has 0.80 ± 0.05 of the entropy that its length allows, other alphabets and longer values
/// have more; values typed by repeating a few keys have less.
const LEAST_EVENNESS: f64 = 0.7;

/// Whether somebody wrote it as a placeholder.
pub(super) fn is_made_up(value: &[u8]) -> bool {
    // Not less than half of it: a key may hold a row of zeros.
    let n_repeats = value.chunk_by(|a, b| a == b).map(<[u8]>::len).max().unwrap_or(0);
    n_distinct(value) < value.len().min(32).div_ceil(4)
        || n_repeats * 2 >= value.len()
        || MADE_UP.iter().any(|word| contains_word(value, word))
}

/// Whether letters and digits are mixed as in a value that a machine drew. Entropy alone does not decide: over 20
/// characters an identifier has nearly as much. But a random value has digits in more than one place, and its case
/// changes at two of five characters or more, where that of a name changes at the starts of words.
pub(super) fn is_random(value: &[u8]) -> bool {
    let classes: Vec<Class> = value.iter().map(|byte| Class::of(*byte)).collect();
    let count = |class: Class| classes.iter().filter(|other| **other == class).count();
    let (n, n_lower, n_upper, n_digits) = (value.len(), count(Class::Lower), count(Class::Upper), count(Class::Digit));
    let n_changes = classes.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let is_digit = |class: Class| class == Class::Digit;
    let n_digit_runs = classes.windows(2).filter(|pair| is_digit(pair[1]) && !is_digit(pair[0])).count()
        + usize::from(classes.first().is_some_and(|class| is_digit(*class)));
    // The letters of a time (`T`, `Z`) or of an address are fewer than an eighth.
    let has_letters = (n_lower + n_upper) * 8 >= n;
    let has_digits = n_digit_runs >= 2 && n_digits * 12 >= n;
    let has_cases = n_lower > 0 && n_upper > 0 && n_changes * 5 >= (n - 1) * 2;
    has_letters && (has_digits || has_cases) && evenness(value) >= LEAST_EVENNESS && !is_wordy(value)
}

/// Whether half of it or more are words separated by something other than letters and digits.
pub(super) fn is_wordy(value: &[u8]) -> bool {
    let is_word = |part: &&[u8]| {
        let tail = part.get(1..).unwrap_or_default();
        let is_lower = tail.iter().all(u8::is_ascii_lowercase) && part.first().is_some_and(u8::is_ascii_alphabetic);
        part.len() >= 3 && (is_lower || part.iter().all(u8::is_ascii_uppercase))
    };
    let parts = value.split(|byte| !byte.is_ascii_alphanumeric());
    let n_in_words: usize = parts.filter(is_word).map(<[u8]>::len).sum();
    n_in_words * 2 >= value.len()
}

/// How many of these classes occur: lower case, upper case, digits, others.
pub(super) fn n_classes(value: &[u8]) -> usize {
    [Class::Lower, Class::Upper, Class::Digit, Class::Other]
        .into_iter()
        .filter(|class| value.iter().any(|byte| Class::of(*byte) == *class))
        .count()
}

/// Whether it contains `word`, in any case.
pub(super) fn contains_word(value: &[u8], word: &str) -> bool {
    value.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Lower,
    Upper,
    Digit,
    Other,
}

impl Class {
    fn of(byte: u8) -> Self {
        match byte {
            b'a'..=b'z' => Self::Lower,
            b'A'..=b'Z' => Self::Upper,
            b'0'..=b'9' => Self::Digit,
            _ => Self::Other,
        }
    }
}

/// Shannon entropy per character, as a share of the most that as many characters of its alphabet can have.
fn evenness(value: &[u8]) -> f64 {
    let mut counts = [0usize; 256];
    value.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let n = value.len() as f64;
    let bits: f64 =
        counts.iter().filter(|count| **count > 0).map(|count| *count as f64 / n).map(|p| -p * p.log2()).sum();
    let n_alphabet = match value {
        _ if value.iter().all(u8::is_ascii_digit) => 10,
        _ if value.iter().all(u8::is_ascii_hexdigit) => 16,
        _ => 64,
    };
    bits / (value.len().min(n_alphabet).max(2) as f64).log2()
}

fn n_distinct(value: &[u8]) -> usize {
    let mut seen = [false; 256];
    value.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    seen.iter().filter(|seen| **seen).count()
}
