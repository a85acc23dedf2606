//! Which holes a checkpoint saw in training: by the hash of their file, and by the lines around them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use nanochat_engine::checkpoint::Fingerprint;

use crate::holes::Hole;

/// A file of which more than this share was trained on counts as trained on in another version.
const MAX_OVERLAP: f64 = 0.5;

/// The files and byte ranges that were trained on.
pub(crate) struct Leaks<'a> {
    files: BTreeSet<&'a str>,
    parts: BTreeMap<&'a str, Vec<Range<usize>>>,
}

impl<'a> Leaks<'a> {
    pub(crate) fn new(trained_on: &Fingerprint, texts: &'a BTreeMap<String, String>) -> Self {
        let mut leaks = Self { files: BTreeSet::new(), parts: BTreeMap::new() };
        for (name, text) in texts {
            let mut n_told = 0;
            let mut parts = Vec::new();
            for (range, shingle) in Fingerprint::shingles(text) {
                if let Some(is_known) = trained_on.knows(shingle) {
                    n_told += 1;
                    parts.extend(is_known.then_some(range));
                }
            }
            if trained_on.knows_file(text) == Some(true) || parts.len() as f64 > MAX_OVERLAP * f64::from(n_told) {
                leaks.files.insert(name);
            }
            leaks.parts.insert(name, parts);
        }
        leaks
    }

    pub(crate) fn has(&self, hole: &Hole) -> bool {
        let parts = self.parts.get(hole.file.as_str()).map(Vec::as_slice).unwrap_or_default();
        self.files.contains(hole.file.as_str())
            || parts.iter().any(|part| part.start < hole.end && hole.start < part.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holes;

    fn function(name: &str) -> String {
        let lines = ["let first = input.iter().sum::<u32>();", "let second = first.pow(2) + 17;", "first ^ second"];
        let lines = lines.map(|line| format!("    {}\n", line.replace("first", &format!("{name}_one"))));
        format!("pub fn {name}(input: &[u32]) -> u32 {{\n{}}}\n\n", lines.concat())
    }

    fn leaking(trained_on: &[String], text: &str) -> (usize, usize) {
        let fingerprint = Fingerprint::of(trained_on.iter().map(String::as_str));
        let texts = BTreeMap::from([("a.rs".to_owned(), text.to_owned())]);
        let leaks = Leaks::new(&fingerprint, &texts);
        let holes = holes::cut("p", "a.rs", text, 1).expect("it parses");
        (holes.iter().filter(|hole| leaks.has(hole)).count(), holes.len())
    }

    #[test]
    fn a_file_that_was_trained_on_leaks_whole_even_if_edited() {
        let text: String = ["alpha", "beta", "gamma", "delta"].map(function).concat();
        let (n_leaking, n) = leaking(std::slice::from_ref(&text), &text);
        assert!(n > 8 && n_leaking == n);
        let edited = text.replace("delta(", "other(").replace("    ", "\t");
        let (n_leaking, n) = leaking(&[text], &edited);
        assert_eq!(n_leaking, n);
    }

    #[test]
    fn a_part_that_was_trained_on_leaks_and_the_rest_does_not() {
        let text: String = ["alpha", "beta", "gamma", "delta"].map(function).concat();
        let (n_leaking, n) = leaking(&[format!("// elsewhere\n{}", function("beta"))], &text);
        assert!(n_leaking > 0 && 3 * n_leaking <= n, "{n_leaking} of {n}");
        assert_eq!(leaking(&[function("omega")], &text).0, 0);
        assert_eq!(leaking(&[], &text).0, 0);
    }
}
