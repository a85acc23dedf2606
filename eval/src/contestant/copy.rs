//! Copying: what followed the longest match, and a line drawn from the same file.

use nanochat_engine::Cancel;
use nanochat_engine::rng::Rng;
use nanochat_engine::sources::SourceFile;

use super::{Contestant, FillError, Scene, Task};
use crate::record::Answer;
use crate::unit;

/// What followed the longest match of the text before the cursor, in the files that the memory may hold or
/// elsewhere in the same file.
#[derive(Debug, Default)]
pub struct Copy {
    files: Vec<SourceFile>,
}

/// What stands at a line of the same file that is drawn by the place of the hole: what local vocabulary alone is worth.
#[derive(Debug, Default)]
pub struct RandomLine;

impl Contestant for Copy {
    fn name(&self) -> &str {
        "copy-longest-match"
    }

    fn enter(&mut self, scene: &Scene<'_>, cancel: &Cancel) -> Result<(), FillError> {
        self.files = scene.known.to_vec();
        self.files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(cancel.check()?)
    }

    /// For every place in every text: how many bytes before it equal the bytes before the cursor. The most wins;
    /// ties go to the nearest text (before the cursor, after the hole, other files by name), in it to the last place.
    fn fill(&mut self, task: &Task<'_>, cancel: &Cancel) -> Result<Answer, FillError> {
        let others = self.files.iter().filter(|file| file.name != task.file).map(|file| file.text.as_str());
        let mut best: Option<(usize, &str)> = None;
        for text in [task.prefix, task.suffix].into_iter().chain(others) {
            cancel.check()?;
            let (n_matched, at) = longest_match(task.prefix.as_bytes(), text);
            if n_matched > best.map_or(0, |(n, _)| n) {
                best = Some((n_matched, &text[at..]));
            }
        }
        Ok(best.map(|(_, following)| unit::first(task.kind, following).to_owned()).into())
    }
}

impl Contestant for RandomLine {
    fn name(&self) -> &str {
        "random-line"
    }

    fn fill(&mut self, task: &Task<'_>, cancel: &Cancel) -> Result<Answer, FillError> {
        cancel.check()?;
        // The line of the cursor and what is left of it after the hole are no lines.
        let before = &task.prefix[..task.prefix.rfind('\n').map_or(0, |at| at + 1)];
        let after = task.suffix.split_once('\n').map_or("", |(_, after)| after);
        let mut starts: Vec<&str> = Vec::new();
        for text in [before, after] {
            let lines = text.split_inclusive('\n').scan(0, |at, line| {
                let start = *at;
                *at += line.len();
                Some((start, line))
            });
            starts.extend(lines.filter(|(_, line)| is_code(line)).map(|(start, _)| text[start..].trim_start()));
        }
        if starts.is_empty() {
            return Ok(Answer::default());
        }
        let place =
            task.file.bytes().fold(task.prefix.len() as u64, |hash, byte| hash.wrapping_mul(31) ^ u64::from(byte));
        let drawn = starts[Rng::new(place).below(starts.len())];
        Ok(Some(unit::first(task.kind, drawn).to_owned()).into())
    }
}

fn is_code(line: &str) -> bool {
    let line = line.trim();
    !line.starts_with("//") && line.chars().any(char::is_alphanumeric)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::holes::HoleKind;

    fn copied(prefix: &str, suffix: &str, files: &[(&str, &str)]) -> Option<String> {
        let file =
            |&(name, text): &(&str, &str)| SourceFile { name: name.into(), path: name.into(), text: text.into() };
        let files: Vec<_> = files.iter().map(file).collect();
        let task = Task { file: "a.rs", kind: HoleKind::LineTail, prefix, suffix };
        let scene = Scene { project: "p", texts: &BTreeMap::new(), known: &files };
        let mut copy = Copy::default();
        copy.enter(&scene, &Cancel::new()).expect("it is not cancelled");
        copy.fill(&task, &Cancel::new()).expect("it is not cancelled").text
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

    #[test]
    fn a_random_line_is_one_of_the_files_other_lines() {
        let (prefix, suffix) = ("fn f() {\n    // never\n    let a = 1;\n    let b = ", ";\n}\n\nfn g() {}\n");
        for file in ["a.rs", "b.rs", "c.rs", "d.rs"] {
            let task = Task { file, kind: HoleKind::NextLine, prefix, suffix };
            let answer = RandomLine.fill(&task, &Cancel::new()).expect("it is not cancelled");
            assert_eq!(RandomLine.fill(&task, &Cancel::new()).expect("it is not cancelled"), answer);
            let text = answer.text.expect("there are lines");
            assert!(["fn f() {", "let a = 1;", "fn g() {}"].contains(&text.as_str()), "{text}");
        }
        let alone = Task { file: "a.rs", kind: HoleKind::NextLine, prefix: "let x = ", suffix: ";" };
        assert_eq!(RandomLine.fill(&alone, &Cancel::new()).expect("it is not cancelled").text, None);
    }
}
