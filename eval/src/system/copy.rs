//! Controls that copy: the text after the longest match, and a random line of the same file.

mod index;

use std::sync::Arc;

use nanochat_engine::memory::Lookup;
use nanochat_engine::rng::Rng;
use nanochat_engine::score::Score;
use nanochat_engine::{Cancel, Memory, Tokenizer};

use super::{Completion, FileText, ProjectContext, System, SystemError, Task};
use crate::holes::first_unit;
use index::MatchIndex;

/// Copies the text after the longest match of the text before the cursor, from the files that the memory may hold or
/// from elsewhere in the same file.
///
/// For bits per byte it serves as a probability model that gives 1 − `DOUBT` to the token that most often followed the
/// longest match of tokens, as many as a memory counts, and shares the rest evenly among all others.
#[derive(Debug)]
pub struct Copy {
    tokenizer: Arc<Tokenizer>,
    index: MatchIndex,
    memory: Arc<Memory>,
}

/// How often the copied token is another one: 9,317 of 26,868 tokens of lines of the suite `develop`, counted by the
/// engine's `--example relearn -- blend`. No other constant would make a copy's bits fewer there.
const DOUBT: f64 = 0.35;

/// Copies a line of the same file, drawn by the position of the hole: what local vocabulary alone is worth.
#[derive(Debug, Default)]
pub struct RandomLine;

impl Copy {
    /// Knows nothing until it enters a project. The tokenizer is for bits per byte only: completions are copied as bytes.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, index: MatchIndex::default(), memory: Arc::default() }
    }
}

impl Default for Copy {
    /// Uses bytes as tokens.
    fn default() -> Self {
        Self::new(Arc::new(Tokenizer::bytes()))
    }
}

impl System for Copy {
    fn name(&self) -> &str {
        "copy-longest-match"
    }

    fn enter(&mut self, scene: &ProjectContext<'_>, cancel: &Cancel) -> Result<(), SystemError> {
        self.index = MatchIndex::new(scene.known.files().map(|file| (file.name.as_str(), file.text.as_str())));
        cancel.check()?;
        self.memory = scene.known.memory(&self.tokenizer);
        Ok(cancel.check()?)
    }

    /// Of all positions in all texts, the one before which the most bytes equal the bytes before the cursor. Ties go to
    /// the nearest text (before the cursor, after the hole, other files by name), and in it to the last position.
    fn complete(&mut self, task: &Task<'_>, cancel: &Cancel) -> Result<Completion, SystemError> {
        let context = task.prefix.as_bytes();
        let mut best: (usize, &str) = (0, "");
        for text in [task.prefix, task.suffix] {
            cancel.check()?;
            let found = index::longest_in(text, context);
            if found.len > best.0 {
                best = (found.len, &text[found.end..]);
            }
        }
        if let Some(found) = self.index.longest(context, task.file)
            && found.0 > best.0
        {
            best = found;
        }
        let (len, following) = best;
        Ok((len > 0).then(|| first_unit(task.kind, following).to_owned()).into())
    }

    fn costs(&mut self, text: &FileText<'_>, cancel: &Cancel) -> Result<Option<Vec<Score>>, SystemError> {
        let tokens = self.tokenizer.encode(text.to_last_hole().as_bytes());
        let memory = self.memory.with_overlay(text.file.to_owned(), tokens.clone());
        let n_others = (self.tokenizer.vocab_size() - 1) as f64;
        let mut lookup = Lookup::default();
        let (mut end, mut costs) = (0, Vec::with_capacity(tokens.len()));
        for (at, &token) in tokens.iter().enumerate() {
            cancel.check()?;
            let start = end;
            end += self.tokenizer.token_bytes(token).len();
            // Tokens outside of holes do not count.
            let p = if text.overlaps_hole(&(start..end)) {
                memory.lookup_within(&tokens, at, &mut lookup);
                match lookup.favourite() {
                    None => 1.0 / (n_others + 1.0),
                    Some(copied) if copied == token => 1.0 - DOUBT,
                    Some(_) => DOUBT / n_others,
                }
            } else {
                1.0
            };
            costs.push((end, -p.log2()));
        }
        Ok(Some(text.scores(&costs)))
    }
}

impl System for RandomLine {
    fn name(&self) -> &str {
        "random-line"
    }

    fn complete(&mut self, task: &Task<'_>, cancel: &Cancel) -> Result<Completion, SystemError> {
        cancel.check()?;
        // The rest of the cursor's line, before and after the hole, is not a candidate.
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
            return Ok(Completion::default());
        }
        let position =
            task.file.bytes().fold(task.prefix.len() as u64, |hash, byte| hash.wrapping_mul(31) ^ u64::from(byte));
        let drawn = starts[Rng::new(position).below(starts.len())];
        Ok(Some(first_unit(task.kind, drawn).to_owned()).into())
    }
}

fn is_code(line: &str) -> bool {
    let line = line.trim();
    !line.starts_with("//") && line.chars().any(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nanochat_engine::workspace::sources::SourceFile;

    use super::*;
    use crate::holes::HoleKind;
    use crate::suite::Known;

    fn copied(prefix: &str, suffix: &str, files: &[(&str, &str)]) -> Option<String> {
        let file =
            |&(name, text): &(&str, &str)| SourceFile { name: name.into(), path: name.into(), text: text.into() };
        let files = Known::of(files.iter().map(file).collect());
        let task = Task { file: "a.rs", kind: HoleKind::LineTail, prefix, suffix };
        let scene = ProjectContext { texts: &BTreeMap::new(), known: &files };
        let mut copy = Copy::default();
        copy.enter(&scene, &Cancel::new()).expect("it is not cancelled");
        copy.complete(&task, &Cancel::new()).expect("it is not cancelled").text
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
    fn what_is_copied_rightly_costs_less_than_what_is_not() {
        let line = "let total = sum(&values);\n";
        let known = Known::of(vec![SourceFile { name: "b.rs".into(), path: "b.rs".into(), text: line.into() }]);
        let mut copy = Copy::default();
        copy.enter(&ProjectContext { texts: &BTreeMap::new(), known: &known }, &Cancel::new()).expect("it can");
        let mut cost = |text: &str| {
            let hole = 4..text.len();
            let text = FileText { file: "a.rs", text, holes: std::slice::from_ref(&hole) };
            copy.costs(&text, &Cancel::new()).expect("it can").expect("it has probabilities")[0].bits_per_byte()
        };
        let others = (Tokenizer::bytes().vocab_size() - 1) as f64;
        let (right, wrong) = (-(1.0 - DOUBT).log2(), -(DOUBT / others).log2());
        assert!((cost(line) - right).abs() < 1e-9);
        // A comma where a semicolon was seen: one byte in 22 is wrong, and after it nothing matches.
        assert!(cost("let total = sum(&values),\n") > right + (wrong - right) / 22.0);
    }

    #[test]
    fn a_random_line_is_one_of_the_files_other_lines() {
        let (prefix, suffix) = ("fn f() {\n    // never\n    let a = 1;\n    let b = ", ";\n}\n\nfn g() {}\n");
        for file in ["a.rs", "b.rs", "c.rs", "d.rs"] {
            let task = Task { file, kind: HoleKind::NextLine, prefix, suffix };
            let answer = RandomLine.complete(&task, &Cancel::new()).expect("it is not cancelled");
            assert_eq!(RandomLine.complete(&task, &Cancel::new()).expect("it is not cancelled"), answer);
            let text = answer.text.expect("there are lines");
            assert!(["fn f() {", "let a = 1;", "fn g() {}"].contains(&text.as_str()), "{text}");
        }
        let alone = Task { file: "a.rs", kind: HoleKind::NextLine, prefix: "let x = ", suffix: ";" };
        assert_eq!(RandomLine.complete(&alone, &Cancel::new()).expect("it is not cancelled").text, None);
    }
}
