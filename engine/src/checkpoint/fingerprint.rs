//! Which texts a checkpoint was trained on, in few numbers: hashes of files and of runs of lines, of each only the
//! smallest thousands (a bottom-k sketch, Broder 1997). Of a hash above the largest kept one nothing is known.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Hashes kept of files.
const MAX_FILES: usize = 4096;
/// Hashes kept of shingles: about 140 KB of a manifest.
const MAX_SHINGLES: usize = 8192;
/// Lines in a shingle.
const N_LINES: usize = 4;
/// A shingle with fewer letters and digits is in every program.
const MIN_WORD_CHARS: usize = 40;

/// A sample of the texts that a checkpoint was trained on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Hashes of whole texts, ascending; all of them if there are fewer than 4,096.
    pub files: Vec<u64>,
    /// Hashes of runs of four lines, ascending; all of them if there are fewer than 8,192.
    pub shingles: Vec<u64>,
}

impl Fingerprint {
    /// The fingerprint of these texts, in any order.
    pub fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let (mut files, mut shingles) = (BTreeSet::new(), BTreeSet::new());
        for text in texts {
            files.insert(hash(text.as_bytes()));
            shingles.extend(Self::shingles(text).into_iter().map(|(_, shingle)| shingle));
        }
        Self {
            files: files.into_iter().take(MAX_FILES).collect(),
            shingles: shingles.into_iter().take(MAX_SHINGLES).collect(),
        }
    }

    /// The fingerprint of the texts of the two together.
    pub fn with(&self, other: &Self) -> Self {
        let union = |a: &[u64], b: &[u64], max| -> Vec<u64> {
            let all: BTreeSet<u64> = a.iter().chain(b).copied().collect();
            all.into_iter().take(max).collect()
        };
        Self {
            files: union(&self.files, &other.files, MAX_FILES),
            shingles: union(&self.shingles, &other.shingles, MAX_SHINGLES),
        }
    }

    /// Whether it holds no hashes.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.shingles.is_empty()
    }

    /// Whether it has the form that [`Fingerprint::of`] gives.
    pub fn is_valid(&self) -> bool {
        let ascends = |hashes: &[u64]| hashes.is_sorted_by(|a, b| a < b);
        ascends(&self.files)
            && ascends(&self.shingles)
            && self.files.len() <= MAX_FILES
            && self.shingles.len() <= MAX_SHINGLES
    }

    /// Whether exactly this text was trained on; `None` if the sample does not cover it.
    pub fn knows_file(&self, text: &str) -> Option<bool> {
        lookup(&self.files, MAX_FILES, hash(text.as_bytes()))
    }

    /// Whether a text with this shingle was trained on; `None` if the sample does not cover it.
    pub fn knows(&self, shingle: u64) -> Option<bool> {
        lookup(&self.shingles, MAX_SHINGLES, shingle)
    }

    /// blake3 of all its hashes, in hex.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for hashes in [&self.files, &self.shingles] {
            hasher.update(&(hashes.len() as u64).to_le_bytes());
            for hash in hashes {
                hasher.update(&hash.to_le_bytes());
            }
        }
        hasher.finalize().to_string()
    }

    /// Runs of four lines that are not blank: their bytes in `text`, and the hash of their content without white space.
    /// Runs of little more than brackets and short words are left out.
    pub fn shingles(text: &str) -> Vec<(Range<usize>, u64)> {
        let mut lines: Vec<(Range<usize>, String)> = Vec::new();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let content: String = line.chars().filter(|c| !c.is_whitespace()).collect();
            if !content.is_empty() {
                lines.push((at..at + line.len(), content));
            }
            at += line.len();
        }
        let mut shingles = Vec::new();
        for run in lines.windows(N_LINES) {
            let content = run.iter().map(|(_, content)| content.as_str()).collect::<Vec<_>>().join("\n");
            if content.chars().filter(|c| c.is_alphanumeric()).count() >= MIN_WORD_CHARS {
                shingles.push((run[0].0.start..run[N_LINES - 1].0.end, hash(content.as_bytes())));
            }
        }
        shingles
    }
}

/// 52 bits of blake3: every JSON reader has such integers.
fn hash(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    u64::from_le_bytes(*first) >> 12
}

fn lookup(hashes: &[u64], max: usize, hash: u64) -> Option<bool> {
    match hashes.last() {
        Some(largest) if hashes.len() == max && hash > *largest => None,
        _ => Some(hashes.binary_search(&hash).is_ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seed: u32) -> String {
        (0..40).map(|i| format!("    let variable_{} = compute_something({i});\n", i * seed)).collect()
    }

    #[test]
    fn what_was_trained_on_is_known_in_any_layout() {
        let fingerprint = Fingerprint::of([text(3).as_str(), &text(5)].into_iter());
        assert!(fingerprint.is_valid());
        assert_eq!(fingerprint.knows_file(&text(3)), Some(true));
        assert_eq!(fingerprint.knows_file(&text(7)), Some(false));
        let relaid = text(5).replace("    ", "\t").replace('\n', "\n\n");
        let known = |text: &str| {
            let shingles = Fingerprint::shingles(text);
            shingles.iter().filter(|(_, shingle)| fingerprint.knows(*shingle) == Some(true)).count()
        };
        assert_eq!(known(&relaid), 37);
        assert_eq!(known(&text(7)), 0);
        assert_eq!(Fingerprint::of([text(5).as_str(), &text(3)].into_iter()), fingerprint);
    }

    #[test]
    fn of_many_texts_a_sample_is_kept() {
        let texts: Vec<String> = (1..400).map(text).collect();
        let fingerprint = Fingerprint::of(texts.iter().map(String::as_str));
        assert_eq!(fingerprint.shingles.len(), MAX_SHINGLES);
        let halves = texts.split_at(200);
        let [left, right] = [halves.0, halves.1].map(|texts| Fingerprint::of(texts.iter().map(String::as_str)));
        assert_eq!(left.with(&right), fingerprint);
        let (mut n_covered, mut n) = (0, 0);
        for (_, shingle) in texts.iter().flat_map(|text| Fingerprint::shingles(text)) {
            n += 1;
            if let Some(is_known) = fingerprint.knows(shingle) {
                assert!(is_known);
                n_covered += 1;
            }
        }
        assert!(n_covered >= MAX_SHINGLES && n_covered < n, "{n_covered} of {n}");
    }

    #[test]
    fn lists_out_of_order_are_not_valid() {
        assert!(!Fingerprint { files: vec![2, 1], shingles: vec![] }.is_valid());
        assert!(!Fingerprint { files: vec![], shingles: vec![1, 1] }.is_valid());
    }
}
