//! `FILE:LINE:COL`, and its byte offset in a text.

use std::path::PathBuf;
use std::str::FromStr;

/// A position in a file. Both numbers count from 1; the column counts characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// The text has no such position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutsideError {
    #[error("{file} has {n_lines} lines; there is no line {line}", file = file.display())]
    Line { file: PathBuf, n_lines: usize, line: usize },
    #[error(
        "line {line} of {file} has {n_chars} characters, so columns 1 to {}; there is no column {column}",
        n_chars + 1,
        file = file.display()
    )]
    Column { file: PathBuf, line: usize, n_chars: usize, column: usize },
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = || {
            let (rest, column) = text.rsplit_once(':')?;
            let (file, line) = rest.rsplit_once(':')?;
            let count = |text: &str| text.parse().ok().filter(|n| *n > 0);
            (!file.is_empty()).then_some(())?;
            Some(Self { file: file.into(), line: count(line)?, column: count(column)? })
        };
        parts().ok_or_else(|| "write it as FILE:LINE:COL, both counted from 1".to_owned())
    }
}

impl Position {
    /// The byte offset of the cursor in `text`. The end of a line is a position too, before its line break.
    pub(crate) fn offset(&self, text: &str) -> Result<usize, OutsideError> {
        let Self { file, line, column } = self.clone();
        let mut lines = text.split('\n');
        let Some(content) = lines.nth(line - 1) else {
            return Err(OutsideError::Line { file, n_lines: text.split('\n').count(), line });
        };
        let start = content.as_ptr() as usize - text.as_ptr() as usize;
        let content = content.strip_suffix('\r').unwrap_or(content);
        let mut places = content.char_indices().map(|(at, _)| at).chain([content.len()]);
        match places.nth(column - 1) {
            Some(at) => Ok(start + at),
            None => Err(OutsideError::Column { file, line, n_chars: content.chars().count(), column }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, line: usize, column: usize) -> Result<usize, OutsideError> {
        Position { file: "a.rs".into(), line, column }.offset(text)
    }

    #[test]
    fn columns_count_characters_and_line_breaks_are_outside() {
        let text = "fn é() {\r\n    x\n";
        assert_eq!(at(text, 1, 1), Ok(0));
        assert_eq!(at(text, 1, 5), Ok(5)); // é is two bytes
        assert_eq!(at(text, 1, 9), Ok(9)); // before \r\n
        assert_eq!(at(text, 2, 6), Ok(16));
        assert_eq!(at(text, 3, 1), Ok(17)); // the empty last line
    }

    #[test]
    fn positions_outside_the_text_are_errors_that_name_them() {
        let message = |result: Result<usize, OutsideError>| result.expect_err("outside").to_string();
        assert_eq!(message(at("ab\nc", 3, 1)), "a.rs has 2 lines; there is no line 3");
        assert_eq!(
            message(at("ab\nc", 1, 4)),
            "line 1 of a.rs has 2 characters, so columns 1 to 3; there is no column 4"
        );
        assert!(at("", 1, 1).is_ok());
        assert!(at("", usize::MAX, usize::MAX).is_err());
        assert!(at("x", 1, usize::MAX).is_err());
    }

    #[test]
    fn a_position_is_read_from_its_end() {
        let position: Position = r"C:\a.rs:3:4".parse().expect("a drive letter is part of the file");
        assert_eq!(position, Position { file: r"C:\a.rs".into(), line: 3, column: 4 });
        for text in ["a.rs", "a.rs:1", "a.rs:0:1", "a.rs:1:0", ":1:1", "a.rs:1:x", "a.rs:1:99999999999999999999999"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
