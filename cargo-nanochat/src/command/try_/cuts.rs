//! Cuts within lines of held-out files, drawn by seed and not picked.

use nanochat_engine::rng::Rng;
use nanochat_engine::workspace::sources::SourceFile;
use nanochat_engine::{Completion, Prompt};

/// A line that is cut at a position, to be completed from there. The truth is the rest of the line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut<'a> {
    pub(super) file: &'a SourceFile,
    /// From 1.
    pub(super) line: usize,
    /// From 1, in characters.
    pub(super) column: usize,
    line_start: usize,
    /// The byte of the file at which the line is cut.
    at: usize,
    line_end: usize,
}

/// Shortest line that is worth completing, in characters without its indentation.
const SHORTEST: usize = 12;
/// Characters that remain on either side of the cut.
const MARGIN: usize = 4;

/// Draws `n` of all lines of code in the files, each with the same probability, and cuts each at a random column.
pub(super) fn draw(files: &[SourceFile], n: usize, seed: u64) -> Vec<Cut<'_>> {
    let mut rng = Rng::new(seed);
    let mut lines: Vec<_> = files.iter().flat_map(lines_of_code).collect();
    rng.shuffle(&mut lines);
    lines.truncate(n);
    lines.into_iter().map(|line| cut(line, &mut rng)).collect()
}

/// Lines that are long enough and not comments, cut at their start.
fn lines_of_code(file: &SourceFile) -> impl Iterator<Item = Cut<'_>> {
    let mut start = 0;
    file.text.split_inclusive('\n').enumerate().filter_map(move |(i, line)| {
        let line_start = start;
        start += line.len();
        let content = line.trim_end();
        let code = content.trim_start();
        let is_code = code.chars().count() >= SHORTEST && !code.starts_with("//");
        let line_end = line_start + content.len();
        is_code.then_some(Cut { file, line: i + 1, column: 1, line_start, at: line_start, line_end })
    })
}

fn cut<'a>(whole: Cut<'a>, rng: &mut Rng) -> Cut<'a> {
    let line = &whole.file.text[whole.line_start..whole.line_end];
    let n_chars = line.chars().count();
    let n_indent = n_chars - line.trim_start().chars().count();
    let n_before = n_indent + MARGIN + rng.below(n_chars - n_indent - 2 * MARGIN + 1);
    let offset = line.char_indices().nth(n_before).map_or(line.len(), |(offset, _)| offset);
    Cut { column: n_before + 1, at: whole.line_start + offset, ..whole }
}

impl<'a> Cut<'a> {
    /// A prompt with everything in the file but the truth.
    pub(super) fn prompt(&self) -> Prompt<'a> {
        let text = &self.file.text;
        Prompt { path: &self.file.name, snippets: &[], prefix: &text[..self.at], suffix: &text[self.line_end..] }
    }

    pub(super) fn line_prefix(&self) -> &'a str {
        &self.file.text[self.line_start..self.at]
    }

    pub(super) fn truth(&self) -> &'a str {
        &self.file.text[self.at..self.line_end]
    }

    /// Whether the completion is exactly the rest of the line.
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
    fn cuts_are_drawn_from_long_lines_of_code_and_come_back_with_the_seed() {
        let files = [file()];
        for seed in 0..50 {
            let cuts = draw(&files, 9, seed);
            let mut lines: Vec<usize> = cuts.iter().map(|cut| cut.line).collect();
            lines.sort_unstable();
            assert_eq!(lines, [2, 4]);
            let columns = |cuts: &[Cut<'_>]| cuts.iter().map(|p| (p.line, p.column)).collect::<Vec<_>>();
            assert_eq!(columns(&cuts), columns(&draw(&files, 9, seed)));
        }
    }

    #[test]
    fn prefix_truth_and_suffix_are_the_file() {
        let files = [file()];
        for seed in 0..200 {
            for cut in draw(&files, 9, seed) {
                let prompt = cut.prompt();
                assert_eq!(format!("{}{}{}", prompt.prefix, cut.truth(), prompt.suffix), files[0].text);
                assert!(cut.truth().chars().count() >= MARGIN && !cut.truth().contains(['\r', '\n']));
                assert!(prompt.prefix.ends_with(cut.line_prefix()));
                assert_eq!(cut.line_prefix().chars().count() + 1, cut.column);
            }
        }
    }
}
