//! Places in the files of a crate to be completed.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use nanochat_engine::rng::Rng;
use nanochat_engine::text::Scanner;
use nanochat_engine::workspace::sources::{Role, SourceFile};
use nanochat_engine::{Memory, Sources, Tokenizer};

/// Which part of a line is to be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoleKind {
    /// The rest of it, from a character of its middle half on.
    Rest,
    /// The whole line.
    Line,
    /// From the start of a line to the end of some later line at which all brackets are closed again. The first line is
    /// what is to be completed.
    Several,
    /// A part of the line that starts after a bracket, comma or `=`, with more text after it.
    Within,
}

/// A place in a text, as a range of bytes.
pub(crate) type Hole = (HoleKind, Range<usize>);

/// The files of one crate.
pub(crate) struct Crate(Vec<SourceFile>);

impl Crate {
    pub(crate) fn read(folder: &Path) -> Self {
        Self(Sources::folder(folder).collect(&[Role::Member]).0)
    }

    /// A memory of all files; the one that is being completed is left out by its name.
    pub(crate) fn memory(&self, tokenizer: &Tokenizer) -> Arc<Memory> {
        Arc::new(Memory::of_files(&self.0, tokenizer))
    }

    /// Files that are not small, at most `n_files` so that large crates do not outvote small ones, and places in at
    /// most `n_lines` lines of each, about as many of each kind.
    pub(crate) fn holes(&self, n_files: usize, n_lines: usize) -> Vec<(&SourceFile, Vec<Hole>)> {
        let large: Vec<&SourceFile> = self.0.iter().filter(|file| file.text.len() >= 2048).collect();
        let mut rng = Rng::new(20_261_123);
        let some = large.iter().step_by(large.len().div_ceil(n_files).max(1));
        some.map(|file| (*file, holes(&file.text, n_lines, &mut rng))).collect()
    }
}

fn holes(text: &str, n_lines: usize, rng: &mut Rng) -> Vec<Hole> {
    let mut lines = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim();
        let first = start + line.len() - line.trim_start().len();
        start += line.len();
        let n_letters = content.chars().filter(|c| c.is_alphanumeric()).count();
        if n_letters >= 4 && !content.starts_with("//") && first > start - line.len() {
            lines.push(first..first + content.len());
        }
    }
    rng.shuffle(&mut lines);
    lines.truncate(n_lines);
    let place = |line: Range<usize>| {
        // Every other line has no place of the last two kinds.
        let kinds =
            [HoleKind::Rest, HoleKind::Line, HoleKind::Within, HoleKind::Within, HoleKind::Several, HoleKind::Several];
        let kind = kinds[rng.below(kinds.len())];
        let range = match kind {
            HoleKind::Line => line,
            HoleKind::Several => {
                let ends = ends_of_several(text, line.start);
                line.start..*ends.get(rng.below(ends.len().max(1)))?
            }
            HoleKind::Rest => {
                let at = line.start + line.len() / 4 + rng.below(line.len() / 2 + 1);
                text.floor_char_boundary(at).max(line.start)..line.end
            }
            HoleKind::Within => {
                let parts = parts(&text[line.clone()]);
                let part = parts.get(rng.below(parts.len().max(1)))?;
                line.start + part.start..line.start + part.end
            }
        };
        Some((kind, range))
    };
    lines.into_iter().filter_map(place).collect()
}

/// The ends of the next lines at which as many brackets are open as at `start`.
fn ends_of_several(text: &str, start: usize) -> Vec<usize> {
    const MOST_LINES: usize = 10;
    let (mut at, mut scanner, mut ends) = (start, Scanner::default(), Vec::new());
    for (i, line) in text[start..].split_inclusive('\n').take(MOST_LINES).enumerate() {
        scanner.feed(line);
        if scanner.n_stray() > 0 {
            break;
        }
        if i > 0 && scanner.depth() == 0 && !line.trim().is_empty() {
            ends.push(at + line.trim_end().len());
        }
        at += line.len();
    }
    ends
}

/// Parts of a line that look like arguments or operands and are not at its end.
fn parts(line: &str) -> Vec<Range<usize>> {
    let openers = ["(", "[", ", ", "= ", "&", "=> "];
    let starts = openers.iter().flat_map(|opener| line.match_indices(opener).map(|(at, opener)| at + opener.len()));
    let part = |start: usize| {
        let mut depth = 0usize;
        for (at, c) in line[start..].char_indices() {
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' if depth > 0 => depth -= 1,
                ')' | ']' | '}' | ',' | ';' if depth == 0 => {
                    let n_letters = line[start..start + at].chars().filter(|c| c.is_alphanumeric()).count();
                    return (n_letters >= 4).then_some(start..start + at);
                }
                _ => {}
            }
        }
        None
    };
    starts.filter_map(part).collect()
}
