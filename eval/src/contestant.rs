//! Who fills holes: the completer and the controls it is measured against. To the runner they are all the same.

use std::collections::BTreeMap;

use nanochat_engine::complete::CompleteError;
use nanochat_engine::sources::SourceFile;
use nanochat_engine::{Cancel, Completer, Limits, Prompt};

use crate::holes::{Hole, HoleKind};
use crate::unit;

/// What a contestant may see of a hole.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The file, relative to the workspace's root.
    pub file: &'a str,
    /// What was cut out; the answer is read up to the end of one such thing.
    pub kind: HoleKind,
    /// The file up to the cursor.
    pub prefix: &'a str,
    /// The file after the hole.
    pub suffix: &'a str,
}

/// Something that fills holes.
pub trait Contestant {
    /// Its name in the report.
    fn name(&self) -> &str;

    /// Text for the hole, or `None` where it stays silent. The runner takes the time.
    fn fill(&mut self, task: &Task<'_>, cancel: &Cancel) -> Result<Option<String>, CompleteError>;
}

/// What was cut out. It must score 100 %, or the run is void.
#[derive(Debug)]
pub struct Truth {
    texts: BTreeMap<String, String>,
}

/// Nothing. It scores 0 % by rule, for an empty answer is a filler; that it would not compile anyway is what the gates
/// saw to, which drop the holes where it does. In the table it is the floor of similarity.
#[derive(Debug)]
pub struct Empty;

/// What followed the longest match of the text before the cursor, in the files that the memory may hold or
/// elsewhere in the same file.
#[derive(Debug)]
pub struct Copy {
    files: Vec<SourceFile>,
}

/// The product.
#[derive(Debug)]
pub struct Model<'a> {
    completer: &'a mut Completer,
}

impl Truth {
    /// The files (name, text) that holes are cut from.
    pub fn new(texts: BTreeMap<String, String>) -> Self {
        Self { texts }
    }
}

impl Contestant for Truth {
    fn name(&self) -> &str {
        "truth"
    }

    fn fill(&mut self, task: &Task<'_>, _cancel: &Cancel) -> Result<Option<String>, CompleteError> {
        let text = self.texts.get(task.file).map(String::as_str).unwrap_or_default();
        let end = text.len().checked_sub(task.suffix.len());
        Ok(end.and_then(|end| text.get(task.prefix.len()..end)).map(str::to_owned))
    }
}

impl Contestant for Empty {
    fn name(&self) -> &str {
        "empty"
    }

    fn fill(&mut self, _task: &Task<'_>, _cancel: &Cancel) -> Result<Option<String>, CompleteError> {
        Ok(Some(String::new()))
    }
}

impl Copy {
    /// The files it may copy from besides the one at hand: what the memory holds, see [`crate::known_files`].
    pub fn new(mut files: Vec<SourceFile>) -> Self {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Self { files }
    }
}

impl Contestant for Copy {
    fn name(&self) -> &str {
        "copy-longest-match"
    }

    /// For every place in every text: how many bytes before it equal the bytes before the cursor. The most wins;
    /// ties go to the nearest text (before the cursor, after the hole, other files by name), in it to the last place.
    fn fill(&mut self, task: &Task<'_>, cancel: &Cancel) -> Result<Option<String>, CompleteError> {
        let others = self.files.iter().filter(|file| file.name != task.file).map(|file| file.text.as_str());
        let mut best: Option<(usize, &str)> = None;
        for text in [task.prefix, task.suffix].into_iter().chain(others) {
            cancel.check()?;
            let (n_matched, at) = longest_match(task.prefix.as_bytes(), text);
            if n_matched > best.map_or(0, |(n, _)| n) {
                best = Some((n_matched, &text[at..]));
            }
        }
        Ok(best.map(|(_, following)| unit::first(task.kind, following).to_owned()))
    }
}

/// Length and end of the longest suffix of `context` within `text` that something follows.
fn longest_match(context: &[u8], text: &str) -> (usize, usize) {
    let Some(&last) = context.last() else { return (0, 0) };
    let bytes = text.as_bytes();
    let mut best = (0, 0);
    for at in 1..bytes.len() {
        // One byte tells most places apart.
        if bytes[at - 1] != last || !text.is_char_boundary(at) {
            continue;
        }
        let n = bytes[..at].iter().rev().zip(context.iter().rev()).take_while(|(a, b)| a == b).count();
        if n >= best.0 {
            best = (n, at);
        }
    }
    best
}

impl<'a> Model<'a> {
    /// The caller has given the completer the memory of the files that may be known: see [`crate::memory_of`].
    pub fn new(completer: &'a mut Completer) -> Self {
        Self { completer }
    }
}

impl Contestant for Model<'_> {
    fn name(&self) -> &str {
        "nanochat"
    }

    fn fill(&mut self, task: &Task<'_>, cancel: &Cancel) -> Result<Option<String>, CompleteError> {
        let prompt = Prompt { path: task.file, snippets: &[], prefix: task.prefix, suffix: task.suffix };
        // The same limits for every hole of a kind: the length of the truth is not to be known.
        let limits = match task.kind {
            HoleKind::LineTail => Limits { max_tokens: 48, max_lines: 1, ..Limits::default() },
            HoleKind::Statement => Limits { max_tokens: 96, max_lines: 8, ..Limits::default() },
        };
        Ok(self.completer.complete(&prompt, &limits, cancel)?.map(|completion| completion.text))
    }
}

impl Task<'_> {
    /// The hole as a contestant sees it; `text` is the file's.
    pub fn of<'a>(hole: &'a Hole, text: &'a str) -> Task<'a> {
        Task { file: &hole.file, kind: hole.kind, prefix: &text[..hole.start], suffix: &text[hole.end..] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(prefix: &str, suffix: &str, files: &[(&str, &str)]) -> Option<String> {
        let file =
            |&(name, text): &(&str, &str)| SourceFile { name: name.into(), path: name.into(), text: text.into() };
        let files = files.iter().map(file).collect();
        let task = Task { file: "a.rs", kind: HoleKind::LineTail, prefix, suffix };
        Copy::new(files).fill(&task, &Cancel::new()).expect("it is not cancelled")
    }

    #[test]
    fn the_longest_match_is_copied_to_the_end_of_the_line() {
        let files = [("b.rs", "let total = sum(&xs);\nlet größe = 1;"), ("c.rs", "total = wrong();")];
        assert_eq!(copied("  let total = s", "\n}", &files).as_deref(), Some("um(&xs);"));
        assert_eq!(copied("let größe = ", "\n", &files).as_deref(), Some("1;"));
    }

    #[test]
    fn the_file_at_hand_is_read_from_the_prompt_only() {
        let saved = [("a.rs", "let q = secret;")];
        assert_ne!(copied("let q = ", "\n", &saved).as_deref(), Some("secret;"));
        assert_eq!(copied("q", "\n", &saved), None);
        assert_eq!(copied("let q = 1;\nlet q = ", "\n", &[]).as_deref(), Some("1;"));
        assert_eq!(copied("x.go(", "\nx.go(7);", &[]).as_deref(), Some("7);"));
    }
}
