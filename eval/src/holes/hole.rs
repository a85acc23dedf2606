//! One hole: the bytes of a file that were cut out, and which kind of code they are.

use serde::{Deserialize, Serialize};

/// Which kind of code was cut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoleKind {
    /// One expression on one line.
    Expression,
    /// One whole statement, without the indentation before it.
    Statement,
    /// From a cursor between two tokens of a line to the end of that line.
    LineTail,
    /// The inside of a block, between its braces.
    Block,
    /// The inside of a function, between its braces.
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

    /// The name in tables and in the baseline, for example `line tail`.
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

    /// Whether such a hole always extends to the end of its line.
    pub fn ends_with_line(self) -> bool {
        matches!(self, Self::LineTail | Self::NextLine | Self::RestOfLine)
    }
}

/// A hole to fill: the bytes `start..end` of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hole {
    /// 16 hex digits, a hash of project, file, range and text.
    pub id: String,
    /// The crate (or workspace) that it is cut from; intervals are clustered by it.
    #[serde(rename = "crate")]
    pub project: String,
    /// Path relative to the project's root, with `/`.
    pub file: String,
    /// Which kind of code was cut out.
    pub kind: HoleKind,
    /// Byte offset of the cursor.
    pub start: usize,
    /// Byte offset of the text after the hole.
    pub end: usize,
    /// Line of the cursor, from 1.
    pub line: usize,
    /// Column of the cursor in characters, from 1.
    pub col: usize,
    /// Byte range of the outermost function around it, signature and body: errors there are attributed to this hole.
    pub function: (usize, usize),
    /// blake3 of the file up to the cursor, 16 hex digits.
    pub prefix_hash: String,
    /// blake3 of the file after the hole, 16 hex digits.
    pub suffix_hash: String,
    /// blake3 of the text that was cut out, 16 hex digits.
    pub truth_hash: String,
}

impl Hole {
    /// The part of `text`, the file's text, that was cut out.
    pub fn truth<'a>(&self, text: &'a str) -> &'a str {
        &text[self.start..self.end]
    }

    /// The file's text with `middle` in the hole.
    pub fn splice(&self, text: &str, middle: &str) -> String {
        [&text[..self.start], middle, &text[self.end..]].concat()
    }

    /// Whether the hole was cut from exactly this text: the hashes of prefix, truth and suffix agree.
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

/// The first 16 hex digits of blake3 over the parts, each terminated by a byte that UTF-8 does not have.
pub(crate) fn short_hash(parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part.as_bytes()).update(&[0xff]);
    }
    let mut hex = hasher.finalize().to_hex();
    hex.truncate(16);
    hex.to_string()
}
