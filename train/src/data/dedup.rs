//! Leaves out duplicates: exact copies, and other versions of the same file.
//!
//! ```text
//! in a fixed order, each file:
//!   a copy         its text is that of a kept file
//!   nearly a copy  of its lines, 80 % or more occur in one kept file
//!   kept           otherwise
//! ```
//!
//! Lines are compared without indentation; those of few letters, which occur in every file, do not count, nor does how
//! often a line occurs. A file of few lines is kept unless it is a copy: its lines may be the same by chance.

use std::cmp::Reverse;
use std::collections::HashMap;

/// Percentage of the lines of a file that, found in one other file, makes it nearly a copy.
const SHARE: usize = 80;
/// Letters and digits of a line that counts.
const LEAST_WORD_BYTES: usize = 8;
/// Lines that count of a file that may be nearly a copy.
const LEAST_LINES: usize = 24;
/// Kept files whose lines are compared with a file's: those that share most with it.
const N_CANDIDATES: usize = 4;

/// Order that decides which of two duplicates is kept: the lesser.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    is_dependency: bool,
    package: String,
    version: Reverse<Version>,
    file: String,
}

impl Precedence {
    /// Members before dependencies, packages by name, of a package the newest version first, its files by name.
    pub fn new(is_dependency: bool, package: &str, version: &str, file: &str) -> Self {
        let version = Reverse(Version::new(version));
        Self { is_dependency, package: package.to_owned(), version, file: file.to_owned() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    numbers: [u64; 3],
    is_release: bool,
    text: String,
}

impl Version {
    fn new(text: &str) -> Self {
        let core = text.split(['-', '+']).next().unwrap_or_default();
        let mut parts = core.split('.').map(|part| part.parse().unwrap_or(0));
        let numbers = [0; 3].map(|_| parts.next().unwrap_or(0));
        Self { numbers, is_release: !text.contains('-'), text: text.to_owned() }
    }
}

/// Hashes by which a file is compared with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    text: blake3::Hash,
    /// Hashes of the lines that count, ascending, each once.
    lines: Vec<u64>,
}

impl Sketch {
    /// Sketches a text.
    pub fn new(text: &str) -> Self {
        let counts = |line: &&str| line.bytes().filter(u8::is_ascii_alphanumeric).take(LEAST_WORD_BYTES).count();
        let lines = text.lines().map(str::trim).filter(|line| counts(line) == LEAST_WORD_BYTES);
        let mut lines: Vec<u64> = lines.map(|line| hash(line.as_bytes())).collect();
        lines.sort_unstable();
        lines.dedup();
        Self { text: blake3::hash(text.as_bytes()), lines }
    }

    /// How many lines both have.
    fn n_common(&self, other: &Self) -> usize {
        let (mut n, mut at) = (0, 0);
        for line in &self.lines {
            while other.lines.get(at).is_some_and(|theirs| theirs < line) {
                at += 1;
            }
            n += usize::from(other.lines.get(at) == Some(line));
        }
        n
    }
}

/// What is done with a file; the number is the index of the kept file that it duplicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not a duplicate.
    Kept,
    /// The same text as a kept file.
    Copy(usize),
    /// Most of its lines are in a kept file.
    NearCopy(usize),
}

/// A verdict on each file, by its rank and what it holds; the same whatever order they are in, if no two ranks are
/// equal.
pub fn verdicts(files: &[(Precedence, Sketch)]) -> Vec<Verdict> {
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by(|a, b| files[*a].0.cmp(&files[*b].0));
    let mut verdicts = vec![Verdict::Kept; files.len()];
    let mut texts: HashMap<blake3::Hash, usize> = HashMap::new();
    // The first kept file that has a line: where versions follow each other, a file's own lines lead to its newest
    // version.
    let mut holders: HashMap<u64, u32> = HashMap::new();
    let mut votes: HashMap<u32, u32> = HashMap::new();
    for idx in order {
        let sketch = &files[idx].1;
        if let Some(kept) = texts.get(&sketch.text) {
            verdicts[idx] = Verdict::Copy(*kept);
            continue;
        }
        if sketch.lines.len() >= LEAST_LINES {
            votes.clear();
            for holder in sketch.lines.iter().filter_map(|line| holders.get(line)) {
                *votes.entry(*holder).or_default() += 1;
            }
            let mut candidates: Vec<(Reverse<u32>, u32)> = votes.iter().map(|(file, n)| (Reverse(*n), *file)).collect();
            candidates.sort_unstable_by(|a, b| {
                // Equal votes go by rank, not by place.
                a.0.cmp(&b.0).then_with(|| files[a.1 as usize].0.cmp(&files[b.1 as usize].0))
            });
            let is_near = |file: u32| sketch.n_common(&files[file as usize].1) * 100 >= sketch.lines.len() * SHARE;
            if let Some((_, file)) = candidates.into_iter().take(N_CANDIDATES).find(|(_, file)| is_near(*file)) {
                verdicts[idx] = Verdict::NearCopy(file as usize);
                continue;
            }
        }
        texts.insert(sketch.text, idx);
        for line in &sketch.lines {
            holders.entry(*line).or_insert(idx as u32);
        }
    }
    verdicts
}

/// Eight bytes at a time, then mixed (the finaliser of splitmix64). It stays within the process, and nobody gains by
/// making two lines collide.
fn hash(bytes: &[u8]) -> u64 {
    let mut state = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = (state.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        state ^= state >> 32;
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(range: std::ops::Range<usize>) -> String {
        range.map(|i| format!("    let value_{i} = compute_{i}(input);\n")).collect()
    }

    fn file(is_dependency: bool, package: &str, version: &str, text: &str) -> (Precedence, Sketch) {
        (Precedence::new(is_dependency, package, version, "src/lib.rs"), Sketch::new(text))
    }

    #[test]
    fn the_newest_version_is_kept_and_the_members_before_all() {
        let (old, new, newest) = (lines(0..100), lines(0..110), lines(0..115));
        let files = [
            file(true, "a", "1.9.0", &old),
            file(true, "a", "1.10.0", &newest),
            file(true, "a", "1.10.0-rc.1", &new),
            file(true, "b", "9.0.0", &lines(500..600)),
            file(false, "z", "0.1.0", &lines(500..600)),
        ];
        use Verdict::{Copy, Kept, NearCopy};
        assert_eq!(verdicts(&files), [NearCopy(1), Kept, NearCopy(1), Copy(4), Kept]);
    }

    #[test]
    fn a_file_with_much_that_is_new_is_kept() {
        let files = [file(false, "a", "1.0.0", &lines(0..100)), file(false, "b", "1.0.0", &lines(30..140))];
        assert_eq!(verdicts(&files), [Verdict::Kept; 2]);
        let files = [file(false, "a", "1.0.0", &lines(0..100)), file(false, "b", "1.0.0", &lines(15..110))];
        assert_eq!(verdicts(&files)[1], Verdict::NearCopy(0));
    }

    #[test]
    fn few_lines_may_be_the_same_by_chance() {
        let files = [file(false, "a", "1.0.0", &lines(0..20)), file(false, "b", "1.0.0", &lines(0..19))];
        assert_eq!(verdicts(&files), [Verdict::Kept; 2]);
    }

    #[test]
    fn indentation_and_braces_do_not_tell_files_apart() {
        let text = lines(0..50);
        let indented: String = text.lines().map(|line| format!("{{\n        {line}  \n}}\n")).collect();
        let files = [file(false, "a", "1.0.0", &text), file(false, "b", "1.0.0", &indented)];
        assert_eq!(verdicts(&files)[1], Verdict::NearCopy(0));
    }

    proptest! {
        #[test]
        fn the_order_of_the_files_does_not_matter(
            spans in proptest::collection::vec((0usize..200, 20usize..80), 2..24),
            keys in proptest::collection::vec(any::<u64>(), 24),
        ) {
            let files: Vec<(Precedence, Sketch)> = spans
                .iter()
                .enumerate()
                .map(|(i, (from, n))| file(i % 3 > 0, &format!("p{}", i % 5), &format!("1.{i}.0"), &lines(*from..from + n)))
                .collect();
            let told = |files: &[(Precedence, Sketch)]| {
                let verdicts = verdicts(files);
                let name = |idx: usize| files[idx].0.clone();
                let mut told: Vec<_> = verdicts
                    .into_iter()
                    .zip(files)
                    .map(|(verdict, file)| match verdict {
                        Verdict::Kept => (file.0.clone(), 0, None),
                        Verdict::Copy(kept) => (file.0.clone(), 1, Some(name(kept))),
                        Verdict::NearCopy(kept) => (file.0.clone(), 2, Some(name(kept))),
                    })
                    .collect();
                told.sort();
                told
            };
            let mut shuffled: Vec<_> = files.clone().into_iter().zip(&keys).collect();
            shuffled.sort_by_key(|(_, key)| **key);
            let shuffled: Vec<_> = shuffled.into_iter().map(|(file, _)| file).collect();
            prop_assert_eq!(told(&files), told(&shuffled));
        }
    }
}
