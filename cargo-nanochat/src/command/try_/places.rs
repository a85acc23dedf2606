//! Places to complete, drawn by seed and not picked.

use nanochat_engine::rng::Rng;
use nanochat_engine::workspace::sources::SourceFile;
use nanochat_engine::{Completion, Prompt};

/// A cut within a line. The truth is the rest of that line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) file: &'a SourceFile,
    /// From 1.
    pub(super) line: usize,
    /// From 1, in characters.
    pub(super) column: usize,
    line_start: usize,
    cut: usize,
    line_end: usize,
}

/// A line shorter than this, without its indentation, has nothing to complete; in characters.
const SHORTEST: usize = 12;
/// Characters that are left on either side of the cut.
const MARGIN: usize = 4;

/// Draws `n` lines of code, evenly among all that the files have, and a cut within each.
pub(super) fn draw(files: &[SourceFile], n: usize, seed: u64) -> Vec<Place<'_>> {
    let mut rng = Rng::new(seed);
    let mut lines: Vec<_> = files.iter().flat_map(lines_of_code).collect();
    rng.shuffle(&mut lines);
    lines.truncate(n);
    lines.into_iter().map(|line| cut(line, &mut rng)).collect()
}

/// Lines that are long enough and not comments, uncut.
fn lines_of_code(file: &SourceFile) -> impl Iterator<Item = Place<'_>> {
    let mut start = 0;
    file.text.split_inclusive('\n').enumerate().filter_map(move |(i, line)| {
        let line_start = start;
        start += line.len();
        let content = line.trim_end();
        let code = content.trim_start();
        let is_code = code.chars().count() >= SHORTEST && !code.starts_with("//");
        let line_end = line_start + content.len();
        is_code.then_some(Place { file, line: i + 1, column: 1, line_start, cut: line_start, line_end })
    })
}

fn cut<'a>(place: Place<'a>, rng: &mut Rng) -> Place<'a> {
    let line = &place.file.text[place.line_start..place.line_end];
    let n_chars = line.chars().count();
    let n_indent = n_chars - line.trim_start().chars().count();
    let at = n_indent + MARGIN + rng.below(n_chars - n_indent - 2 * MARGIN + 1);
    let offset = line.char_indices().nth(at).map_or(line.len(), |(offset, _)| offset);
    Place { column: at + 1, cut: place.line_start + offset, ..place }
}

impl<'a> Place<'a> {
    /// Everything but the truth.
    pub(super) fn prompt(&self) -> Prompt<'a> {
        let text = &self.file.text;
        Prompt { path: &self.file.name, snippets: &[], prefix: &text[..self.cut], suffix: &text[self.line_end..] }
    }

    pub(super) fn line_prefix(&self) -> &'a str {
        &self.file.text[self.line_start..self.cut]
    }

    pub(super) fn truth(&self) -> &'a str {
        &self.file.text[self.cut..self.line_end]
    }

    /// Whether the completion is the rest of the line to the letter.
    pub(super) fn is_exact(&self, completion: Option<&Completion>) -> bool {
        completion.is_some_and(|completion| completion.text.trim_end() == self.truth())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> SourceFile {
        let text = "// a comment that is long enough\n    let é = \"an é in it\";\r\n}\nuse std::collections::HashMap;";
        SourceFile { name: "a.rs".to_owned(), path: "a.rs".into(), text: text.to_owned() }
    }

    #[test]
    fn places_are_drawn_from_long_lines_of_code_and_come_back_with_the_seed() {
        let files = [file()];
        for seed in 0..50 {
            let places = draw(&files, 9, seed);
            let mut lines: Vec<usize> = places.iter().map(|place| place.line).collect();
            lines.sort_unstable();
            assert_eq!(lines, [2, 4]);
            let columns = |places: &[Place<'_>]| places.iter().map(|p| (p.line, p.column)).collect::<Vec<_>>();
            assert_eq!(columns(&places), columns(&draw(&files, 9, seed)));
        }
    }

    #[test]
    fn prefix_truth_and_suffix_are_the_file() {
        let files = [file()];
        for seed in 0..200 {
            for place in draw(&files, 9, seed) {
                let prompt = place.prompt();
                assert_eq!(format!("{}{}{}", prompt.prefix, place.truth(), prompt.suffix), files[0].text);
                assert!(place.truth().chars().count() >= MARGIN && !place.truth().contains(['\r', '\n']));
                assert!(prompt.prefix.ends_with(place.line_prefix()));
                assert_eq!(place.line_prefix().chars().count() + 1, place.column);
            }
        }
    }
}
