//! Open documents, kept equal to the editor's: ropes, positions in the agreed encoding, versions.
//!
//! Positions that the editor sends are never trusted: a column beyond the end of its line is that end, a line
//! beyond the last is the end of the document, and one inside a character is the character's start.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use lsp_types::{Position, PositionEncodingKind, Range, TextDocumentContentChangeEvent};
use ropey::{Rope, RopeSlice};

use crate::uri;

/// What a column counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Bytes.
    Utf8,
    /// 16-bit units, what every client can do.
    Utf16,
    /// Characters.
    Utf32,
}

impl Encoding {
    /// Picks from what a client offers: bytes where possible, and 16-bit units where nothing is said.
    pub(crate) fn negotiate(offered: Option<&[PositionEncodingKind]>) -> Self {
        let offered = offered.unwrap_or_default();
        if offered.contains(&PositionEncodingKind::UTF8) {
            Self::Utf8
        } else if offered.contains(&PositionEncodingKind::UTF32) && !offered.contains(&PositionEncodingKind::UTF16) {
            Self::Utf32
        } else {
            Self::Utf16
        }
    }

    /// Its name in the protocol.
    pub(crate) fn kind(self) -> PositionEncodingKind {
        match self {
            Self::Utf8 => PositionEncodingKind::UTF8,
            Self::Utf16 => PositionEncodingKind::UTF16,
            Self::Utf32 => PositionEncodingKind::UTF32,
        }
    }
}

/// One open document.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// Its text.
    pub(crate) text: Rope,
    /// The version that the editor gave last.
    pub(crate) version: i32,
    /// Where it lies, if it is a file.
    pub(crate) path: Option<PathBuf>,
    /// Line of the last edit.
    pub(crate) edited_line: usize,
    /// When it was last edited, counted in edits of all documents; 0 is never.
    pub(crate) edited_at: u64,
    /// False once an edit came that is older than this text, until the document is sent whole. Positions that do
    /// not fit are clamped.
    pub(crate) in_step: bool,
}

impl Document {
    /// The byte that a position names, clamped into the text and to a character's start.
    pub(crate) fn offset(&self, position: Position, encoding: Encoding) -> usize {
        let line_idx = position.line as usize;
        if line_idx >= self.text.len_lines() {
            return self.text.len_bytes();
        }
        let line = content(self.text.line(line_idx));
        let column = position.character as usize;
        let column = match encoding {
            Encoding::Utf8 => {
                let column = column.min(line.len_bytes());
                line.char_to_byte(line.byte_to_char(column))
            }
            Encoding::Utf16 => {
                let column = column.min(line.len_utf16_cu());
                line.char_to_byte(line.utf16_cu_to_char(column))
            }
            Encoding::Utf32 => line.char_to_byte(column.min(line.len_chars())),
        };
        self.text.line_to_byte(line_idx) + column
    }

    /// The position of a byte.
    ///
    /// # Panics
    /// If `offset` is beyond the text.
    pub(crate) fn position(&self, offset: usize, encoding: Encoding) -> Position {
        let line_idx = self.text.byte_to_line(offset);
        let column = offset - self.text.line_to_byte(line_idx);
        let line = self.text.line(line_idx);
        let column = match encoding {
            Encoding::Utf8 => column,
            Encoding::Utf16 => line.char_to_utf16_cu(line.byte_to_char(column)),
            Encoding::Utf32 => line.byte_to_char(column),
        };
        // A document of 4 GiB cannot be sent; saturating keeps this total all the same.
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Position { line: narrow(line_idx), character: narrow(column) }
    }

    fn replace(&mut self, range: Range, text: &str, encoding: Encoding) {
        let (start, end) = (self.offset(range.start, encoding), self.offset(range.end, encoding));
        // Editors that send the ends swapped mean the same range.
        let (start, end) = (start.min(end), start.max(end));
        let start_char = self.text.byte_to_char(start);
        self.text.remove(start_char..self.text.byte_to_char(end));
        self.text.insert(start_char, text);
        self.edited_line = self.text.byte_to_line(start + text.len());
    }
}

/// What became of an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The text is the editor's.
    Yes,
    /// No such document is open.
    NotOpen,
    /// The edit is older than the text; nothing is suggested there until the document is sent whole.
    Stale,
}

/// All open documents, by their address.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    open: HashMap<String, Document>,
    n_edits: u64,
}

impl Documents {
    /// Opens a document, or replaces it.
    pub(crate) fn open(&mut self, address: &str, version: i32, text: &str) {
        let document = Document {
            text: Rope::from_str(text),
            version,
            path: uri::to_path(address),
            edited_line: 0,
            edited_at: 0,
            in_step: true,
        };
        self.open.insert(address.to_owned(), document);
    }

    /// Forgets a document.
    pub(crate) fn close(&mut self, address: &str) {
        self.open.remove(address);
    }

    /// An open document.
    pub(crate) fn get(&self, address: &str) -> Option<&Document> {
        self.open.get(address)
    }

    /// The folders that open files lie in.
    pub(crate) fn folders(&self) -> BTreeSet<PathBuf> {
        let paths = self.open.values().filter_map(|document| document.path.as_ref());
        paths.filter_map(|path| Some(path.parent()?.to_owned())).collect()
    }

    /// The documents but one, the last edited first.
    pub(crate) fn others(&self, but: &str) -> Vec<&Document> {
        let mut others: Vec<(&String, &Document)> = self.open.iter().filter(|(address, _)| *address != but).collect();
        others.sort_by_key(|(address, document)| (std::cmp::Reverse(document.edited_at), *address));
        others.into_iter().map(|(_, document)| document).collect()
    }

    /// As [`Documents::others`], without those never edited.
    pub(crate) fn recent(&self, but: &str) -> Vec<&Document> {
        let mut others = self.others(but);
        others.retain(|document| document.edited_at > 0);
        others
    }

    /// Applies the changes of one notification in their order.
    pub(crate) fn change(
        &mut self,
        address: &str,
        version: i32,
        changes: &[TextDocumentContentChangeEvent],
        encoding: Encoding,
    ) -> Applied {
        let Some(document) = self.open.get_mut(address) else {
            return Applied::NotOpen;
        };
        self.n_edits += 1;
        let is_stale = version < document.version;
        for change in changes {
            match change {
                TextDocumentContentChangeEvent::TextDocumentContentChangeWholeDocument(whole) if !is_stale => {
                    document.text = Rope::from_str(&whole.text);
                    document.edited_line = 0;
                    document.in_step = true;
                }
                TextDocumentContentChangeEvent::TextDocumentContentChangePartial(part) if !is_stale => {
                    document.replace(part.range, &part.text, encoding);
                }
                _ => document.in_step = false,
            }
        }
        if is_stale {
            return Applied::Stale;
        }
        document.version = version;
        document.edited_at = self.n_edits;
        Applied::Yes
    }
}

/// A line without what ends it.
fn content(line: RopeSlice<'_>) -> RopeSlice<'_> {
    let mut n_chars = line.len_chars();
    while n_chars > 0 && matches!(line.char(n_chars - 1), '\n' | '\r') {
        n_chars -= 1;
    }
    line.slice(..n_chars)
}

#[cfg(test)]
mod tests;
