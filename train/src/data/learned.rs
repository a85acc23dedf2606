//! The corpus of the last finished run, in the state folder.
//!
//! When part of a workspace has changed since, the next run is an update: it starts from the finished weights, each
//! file stays on its side of the split, so that held-out files stay held out, and most sequences come from what
//! changed. Where more than half has changed, the run starts over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nanochat_engine::workspace::sources::SourceFile;
use serde::{Deserialize, Serialize};

use super::corpus::Corpus;
use crate::state_dir::{self, StateError};

const LEARNED_NAME: &str = "learned.json";

/// The largest share of the bytes that may have changed since a run that is updated.
const MOST_CHANGED: f64 = 0.5;

/// The corpus of a finished run: each file's name and hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learned {
    /// Hash of the corpus.
    pub corpus: String,
    train: BTreeMap<String, String>,
    held_out: BTreeMap<String, String>,
}

/// The files of a corpus that are new or have changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// Names of the changed training files.
    pub changed: BTreeSet<String>,
    /// Their share of the training bytes.
    pub share: f64,
}

impl Changes {
    /// The changes between two equal corpora: none.
    pub fn none() -> Self {
        Self { changed: BTreeSet::new(), share: 0.0 }
    }
}

impl Learned {
    /// The names and hashes of a corpus.
    pub fn of(corpus: &Corpus) -> Self {
        let hashes = |files: &[SourceFile]| files.iter().map(|file| (file.name.clone(), hash(&file.text))).collect();
        Self { corpus: corpus.hash.clone(), train: hashes(&corpus.train), held_out: hashes(&corpus.held_out) }
    }

    /// Reads what the last finished run of `folder` left; `None` if there was none.
    pub fn load(folder: &Path) -> Result<Option<Self>, StateError> {
        state_dir::read_json(&folder.join(LEARNED_NAME))
    }

    /// Writes it for the next run.
    pub fn save(&self, folder: &Path) -> Result<(), StateError> {
        state_dir::write_json(&folder.join(LEARNED_NAME), self)
    }

    /// Puts every known file on the side of the split where it was.
    pub fn keep_sides(&self, corpus: Corpus) -> Corpus {
        if corpus.within_one_file {
            return corpus;
        }
        let side = |file: &SourceFile, held_out: bool| match &file.name {
            name if self.train.contains_key(name) => false,
            name if self.held_out.contains_key(name) => true,
            _ => held_out,
        };
        let Corpus { train, held_out, .. } = &corpus;
        let files = train.iter().map(|file| (file, false)).chain(held_out.iter().map(|file| (file, true)));
        let (mut now_held_out, mut now_train) = (Vec::new(), Vec::new());
        for (file, is_held_out) in files {
            if side(file, is_held_out) { &mut now_held_out } else { &mut now_train }.push(file.clone());
        }
        if now_train.is_empty() || now_held_out.is_empty() {
            return corpus;
        }
        corpus.with_sides(now_train, now_held_out)
    }

    /// What is new in `corpus`; `None` where that is too much for an update.
    pub fn changes(&self, corpus: &Corpus) -> Option<Changes> {
        let is_known = |file: &&SourceFile| self.train.get(&file.name).is_some_and(|known| *known == hash(&file.text));
        let new: Vec<&SourceFile> = corpus.train.iter().filter(|file| !is_known(file)).collect();
        let n_bytes: usize = new.iter().map(|file| file.text.len()).sum();
        let own: usize = corpus.train.iter().map(|file| file.text.len()).sum();
        let share = n_bytes as f64 / own.max(1) as f64;
        let changed = new.into_iter().map(|file| file.name.clone()).collect();
        (share <= MOST_CHANGED && !corpus.within_one_file).then_some(Changes { changed, share })
    }
}

fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> SourceFile {
        SourceFile { name: name.into(), path: name.into(), text: text.into() }
    }

    fn corpus(files: &[(&str, &str)]) -> Corpus {
        Corpus::split(files.iter().map(|(name, text)| file(name, text)).collect(), 0.25, 1).expect("there are files")
    }

    #[test]
    fn files_stay_on_their_side_when_their_text_changes() {
        let before: Vec<(String, String)> =
            (0..20).map(|i| (format!("src/f{i}.rs"), format!("fn f{i}() {{}}\n").repeat(9))).collect();
        let as_pairs = |files: &[(String, String)]| {
            corpus(&files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect::<Vec<_>>())
        };
        let learned = Learned::of(&as_pairs(&before));
        let mut after = before.clone();
        after.iter_mut().step_by(3).for_each(|(_, text)| text.push_str("// changed\n"));
        after.push(("src/new.rs".into(), "struct New;\n".repeat(5)));
        let kept = learned.keep_sides(as_pairs(&after));
        let names = |files: &[SourceFile]| files.iter().map(|file| file.name.clone()).collect::<BTreeSet<_>>();
        assert!(learned.train.keys().all(|name| names(&kept.train).contains(name)));
        assert!(learned.held_out.keys().all(|name| names(&kept.held_out).contains(name)));
        let changes = learned.changes(&kept).expect("a third has changed");
        let expected: BTreeSet<String> = after
            .iter()
            .zip(before.iter().map(Some).chain([None]))
            .filter(|(now, then)| then.is_none_or(|then| then != *now))
            .map(|(now, _)| now.0.clone())
            .filter(|name| names(&kept.train).contains(name))
            .collect();
        assert_eq!(changes.changed, expected);
        assert!((0.2..0.5).contains(&changes.share), "{}", changes.share);
        assert_eq!(learned.keep_sides(as_pairs(&before)).hash, learned.corpus);
    }

    #[test]
    fn another_workspace_is_too_much_of_a_change() {
        let learned = Learned::of(&corpus(&[("a.rs", "fn a() {}\n"), ("b.rs", "fn b() {}\n")]));
        assert_eq!(learned.changes(&corpus(&[("c.rs", "fn c() {}\n"), ("d.rs", "fn d() {}\n")])), None);
    }
}
