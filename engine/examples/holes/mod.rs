//! Lines of a crate's files to be completed: what the examples that calibrate read.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use nanochat_engine::rng::Rng;
use nanochat_engine::text::Scanner;
use nanochat_engine::workspace::sources::{Role, SourceFile};
use nanochat_engine::{Memory, Sources, Tokenizer};

/// What of a line is to be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From a character of its middle half on.
    Rest,
    /// All of it.
    Line,
    /// From the begin of a line on to the end of some later line with whose end all brackets are closed again. The first line
    /// is what is to be completed.
    Several,
    /// What stands between a bracket, comma or `=` and the end of what begins there, with more behind it.
    Within,
}

/// A place in a text.
pub(crate) type Hole = (Kind, Range<usize>);

/// The files of one crate.
pub(crate) struct Crate(Vec<SourceFile>);

impl Crate {
    pub(crate) fn read(folder: &Path) -> Self {
        Self(Sources::folder(folder).collect(&[Role::Member]).0)
    }

    /// A memory of all files; the one that is written is left out by its name.
    pub(crate) fn memory(&self, tokenizer: &Tokenizer) -> Arc<Memory> {
        Arc::new(Memory::of_files(&self.0, tokenizer))
    }

    /// Files that are not small, at most `n_files`, for large crates shall not outvote small ones; and places in at most
    /// `n_lines` lines of each, of each kind about as many.
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
        // Every other line has nothing of the last two.
        let kinds = [Kind::Rest, Kind::Line, Kind::Within, Kind::Within, Kind::Several, Kind::Several];
        let kind = kinds[rng.below(kinds.len())];
        let range = match kind {
            Kind::Line => line,
            Kind::Several => {
                let ends = ends_of_several(text, line.start);
                line.start..*ends.get(rng.below(ends.len().max(1)))?
            }
            Kind::Rest => {
                let at = line.start + line.len() / 4 + rng.below(line.len() / 2 + 1);
                text.floor_char_boundary(at).max(line.start)..line.end
            }
            Kind::Within => {
                let parts = parts(&text[line.clone()]);
                let part = parts.get(rng.below(parts.len().max(1)))?;
                line.start + part.start..line.start + part.end
            }
        };
        Some((kind, range))
    };
    lines.into_iter().filter_map(place).collect()
}

/// Ends of the next lines, behind which no more brackets are open or closed than at `start`.
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

/// What is like an argument or an operand in a line, and not at its end.
fn parts(line: &str) -> Vec<Range<usize>> {
    let begins = ["(", "[", ", ", "= ", "&", "=> "];
    let starts = begins.iter().flat_map(|begin| line.match_indices(begin).map(|(at, begin)| at + begin.len()));
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
