//! One hole: the bytes of a file that were cut out, and which kind of code they are.

use serde::{Deserialize, Serialize};

/// What was cut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoleKind {
    /// One expression within a line.
    Expression,
    /// One whole statement, without the indentation before it.
    Statement,
    /// From a cursor between two tokens of a line to the end of that line.
    LineTail,
    /// What stands within the braces of a block.
    Block,
    /// What stands within the braces of a function.
    FunctionBody,
    /// A whole line after its indentation.
    NextLine,
    /// From any character of a line's middle half, even within a word, to the end of that line.
    RestOfLine,
}

impl HoleKind {
    /// All kinds, in the order of reports.
    pub const ALL: [Self; 7] = [
        Self::Expression,
        Self::Statement,
        Self::LineTail,
        Self::Block,
        Self::FunctionBody,
        Self::NextLine,
        Self::RestOfLine,
    ];

    /// Its name in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expression => "expression",
            Self::Statement => "statement",
            Self::LineTail => "line tail",
            Self::Block => "block",
            Self::FunctionBody => "function body",
            Self::NextLine => "next line",
            Self::RestOfLine => "rest of line",
        }
    }

    /// Whether it ends with the line.
    pub fn ends_with_line(self) -> bool {
        matches!(self, Self::LineTail | Self::NextLine | Self::RestOfLine)
    }
}

/// A place to fill: the bytes `start..end` of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hole {
    /// 16 hex digits that name the hole: of its project, file, place and text.
    pub id: String,
    /// The crate (or workspace) it is cut from: what intervals are clustered by.
    #[serde(rename = "crate")]
    pub project: String,
    /// Relative to the project's root, with `/`.
    pub file: String,
    /// What was cut out.
    pub kind: HoleKind,
    /// Byte offset of the cursor.
    pub start: usize,
    /// Byte offset of what follows.
    pub end: usize,
    /// Line of the cursor, from 1.
    pub line: usize,
    /// Column of the cursor in characters, from 1.
    pub col: usize,
    /// The bytes of the outermost function around it, signature and body: errors there are this hole's.
    pub function: (usize, usize),
    /// blake3 of the file up to the cursor, 16 hex digits.
    pub prefix_hash: String,
    /// Of the file after the hole.
    pub suffix_hash: String,
    /// Of what was cut out.
    pub truth_hash: String,
}

impl Hole {
    /// What was cut out of `text`, the file's text.
    pub fn truth<'a>(&self, text: &'a str) -> &'a str {
        &text[self.start..self.end]
    }

    /// The file's text with `middle` in the hole.
    pub fn splice(&self, text: &str, middle: &str) -> String {
        [&text[..self.start], middle, &text[self.end..]].concat()
    }

    /// Whether it is a place in `text`, and the texts before, in and after it are those that it was cut with.
    pub fn fits(&self, text: &str) -> bool {
        let (Some(prefix), Some(truth), Some(suffix)) =
            (text.get(..self.start), text.get(self.start..self.end), text.get(self.end..))
        else {
            return false;
        };
        let function = text.get(self.function.0..self.function.1);
        function.is_some()
            && self.function.0 <= self.start
            && self.end <= self.function.1
            && [(prefix, &self.prefix_hash), (truth, &self.truth_hash), (suffix, &self.suffix_hash)]
                .iter()
                .all(|(text, hash)| short_hash(&[text]) == **hash)
    }
}

/// The first 16 hex digits of blake3 over the parts, each ended by a byte that UTF-8 does not have.
pub(crate) fn short_hash(parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part.as_bytes()).update(&[0xff]);
    }
    let mut hex = hasher.finalize().to_hex();
    hex.truncate(16);
    hex.to_string()
}
