//! Finds where the longest suffix of a text occurs in many files, with the same result as a full scan.
//!
//! ```text
//! key(position) = hash of (the spaces before it, the 6 bytes before those)
//! order         = positions by key; longest: look at the positions with the cursor's key, or scan where there is none
//! ```
//!
//! A match that is longer than the cursor's key is at a position with the same key, so none is missed. All spaces are
//! part of the key: after an indentation any fixed number of bytes would be the same at most positions.

use std::ops::Range;

/// Bytes of a key before its spaces.
const N_BYTES: usize = 6;
/// Separates files; not a byte of UTF-8.
const END: u8 = 0xff;
/// Bits of a key, as many as the number of bytes has, within this range: a table of 16 MiB at most.
const KEY_BITS: std::ops::RangeInclusive<u32> = 8..=22;

/// An index of files by the text before each position.
#[derive(Debug, Default)]
pub(super) struct MatchIndex {
    /// Each file after an `END`, by name; an `END` at the end.
    bytes: Vec<u8>,
    files: Vec<(String, Range<usize>)>,
    key_bits: u32,
    /// Start of each key's positions in `order`.
    starts: Vec<u32>,
    order: Vec<u32>,
}

/// Where the longest match ends, and how long it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) len: usize,
    pub(super) end: usize,
}

impl MatchIndex {
    /// Indexes files in any order. A name may occur twice.
    pub(super) fn new<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut files: Vec<(&str, &str)> = files.collect();
        files.sort_unstable();
        let mut index = Self { bytes: vec![END], ..Self::default() };
        for (name, text) in files {
            let start = index.bytes.len();
            index.bytes.extend_from_slice(text.as_bytes());
            index.files.push((name.to_owned(), start..index.bytes.len()));
            index.bytes.push(END);
        }
        assert!(u32::try_from(index.bytes.len()).is_ok(), "a project and what it knows are smaller than 4 GiB");
        index.key_bits = index.bytes.len().ilog2().clamp(*KEY_BITS.start(), *KEY_BITS.end());
        index.sort();
        index
    }

    /// Counting sort: positions keep their order within a key.
    fn sort(&mut self) {
        let mut starts = vec![0u32; (1 << self.key_bits) + 1];
        self.each_key(|key, _| starts[key + 1] += 1);
        for key in 1..starts.len() {
            starts[key] += starts[key - 1];
        }
        let mut next = starts.clone();
        let mut order = vec![0; *starts.last().expect("there is one more than keys") as usize];
        self.each_key(|key, position| {
            order[next[key] as usize] = position as u32;
            next[key] += 1;
        });
        (self.starts, self.order) = (starts, order);
    }

    /// Calls `each` with every position that has a key and text after it.
    fn each_key(&self, mut each: impl FnMut(usize, usize)) {
        for (_, file) in &self.files {
            let mut n_spaces = 0;
            for position in file.start + 1..file.end {
                n_spaces = if self.bytes[position - 1] == b' ' { n_spaces + 1 } else { 0 };
                if let Some(key) = self.key(&self.bytes[file.start..position], n_spaces) {
                    each(key, position);
                }
            }
        }
    }

    /// The longest suffix of `context` that ends within a file other than `hidden` and has something after it; of equal
    /// ones the last of the first file by name.
    pub(super) fn longest(&self, context: &[u8], hidden: &str) -> Option<(usize, &str)> {
        let n_spaces = context.iter().rev().take_while(|byte| **byte == b' ').count();
        let with_key = self.key(context, n_spaces).and_then(|key| {
            let positions = &self.order[self.starts[key] as usize..self.starts[key + 1] as usize];
            // A hash that is the same by chance is a shorter match than the key.
            let found = self.best(context, hidden, positions.iter().map(|position| *position as usize));
            found.filter(|(found, _)| found.len >= n_spaces + N_BYTES)
        });
        let (found, file) = with_key.or_else(|| {
            let last = *context.last()?;
            let all = self.files.iter().flat_map(|(_, file)| file.start + 1..file.end);
            self.best(context, hidden, all.filter(|position| self.bytes[position - 1] == last))
        })?;
        let following = std::str::from_utf8(&self.bytes[found.end..self.files[file].1.end]);
        Some((found.len, following.expect("files are text, and matches end between characters")))
    }

    /// The best of these positions, which ascend, and its file.
    fn best(&self, context: &[u8], hidden: &str, positions: impl Iterator<Item = usize>) -> Option<(Match, usize)> {
        let mut best: Option<(Match, usize)> = None;
        let mut file_idx = 0;
        for position in positions {
            let len = common_end(&self.bytes[..position], context);
            let best_len = best.map_or(0, |(best, _)| best.len);
            if len == 0 || len < best_len || self.bytes[position] & 0xc0 == 0x80 {
                continue;
            }
            file_idx += self.files[file_idx..].partition_point(|(_, file)| file.end <= position);
            let is_later_of_best = best.is_some_and(|(_, best_file)| best_file == file_idx);
            if (len > best_len || is_later_of_best) && self.files[file_idx].0 != hidden {
                best = Some((Match { len, end: position }, file_idx));
            }
        }
        best
    }

    /// Key of a text that ends in `n_spaces` spaces; `None` if it is too short, or the index is empty.
    fn key(&self, text: &[u8], n_spaces: usize) -> Option<usize> {
        let before = text.len().checked_sub(n_spaces)?;
        let bytes = text.get(before.checked_sub(N_BYTES)?..before).filter(|_| self.key_bits > 0)?;
        let mixed = bytes.iter().fold(n_spaces as u64, |mixed, byte| mixed << 8 ^ mixed >> 40 ^ u64::from(*byte));
        Some((mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - self.key_bits)) as usize)
    }
}

/// Length and end of the longest suffix of `context` within `text` that something follows; the last of equal ones.
pub(super) fn longest_in(text: &str, context: &[u8]) -> Match {
    let Some(&last) = context.last() else { return Match::default() };
    let bytes = text.as_bytes();
    let mut best = Match::default();
    for end in 1..bytes.len() {
        // One byte rules out most positions.
        if bytes[end - 1] != last || !text.is_char_boundary(end) {
            continue;
        }
        let len = common_end(&bytes[..end], context);
        if len >= best.len {
            best = Match { len, end };
        }
    }
    best
}

fn common_end(a: &[u8], b: &[u8]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use nanochat_engine::rng::Rng;

    use super::*;

    /// Scans every position of every file.
    fn slow<'a>(files: &[(&str, &'a str)], context: &str, hidden: &str) -> Option<(usize, &'a str)> {
        let mut sorted = files.to_vec();
        sorted.sort_unstable();
        let mut best: Option<(usize, &str)> = None;
        for (_, text) in sorted.into_iter().filter(|(name, _)| *name != hidden) {
            let found = longest_in(text, context.as_bytes());
            if found.len > best.map_or(0, |(len, _)| len) {
                best = Some((found.len, &text[found.end..]));
            }
        }
        best
    }

    #[test]
    fn an_index_finds_what_a_scan_finds() {
        let mut rng = Rng::new(7);
        let words = ["let ", "größe", " = ", "x", ";\n", "        ", "    ", "fn f(", ") {\n", "}\n", "ä"];
        let mut text = |n: usize| (0..n).map(|_| words[rng.below(words.len())]).collect::<String>();
        for _ in 0..60 {
            let texts: Vec<String> = (0..4).map(|_| text(80)).collect();
            let names = ["b.rs", "a.rs", "d.rs", "c.rs"];
            let files: Vec<(&str, &str)> = names.into_iter().zip(texts.iter().map(String::as_str)).collect();
            let index = MatchIndex::new(files.iter().copied());
            for n_words in [0, 1, 3, 12, 40] {
                let context = text(n_words);
                for hidden in ["", "a.rs", "c.rs"] {
                    let found = index.longest(context.as_bytes(), hidden);
                    assert_eq!(found, slow(&files, &context, hidden), "{context:?} in {files:?} but {hidden}");
                }
            }
        }
        assert_eq!(MatchIndex::default().longest(b"x", ""), None);
    }
}
