//! Open documents, kept equal to the editor's: ropes, positions in the agreed encoding, versions.
//!
//! Positions that the editor sends are never trusted: a column beyond the end of its line is that end, a line
//! beyond the last is the end of the document, and one inside a character is the character's start.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use lsp_types::{Position, PositionEncodingKind, Range, TextDocumentContentChangeEvent};
use ropey::{Rope, RopeSlice};

use crate::uri;

/// The unit in which positions count columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Bytes of UTF-8.
    Utf8,
    /// 16-bit units of UTF-16, the one encoding that every client supports.
    Utf16,
    /// Unicode scalar values.
    Utf32,
}

impl Encoding {
    /// Chooses from what a client offers: UTF-8 where possible, and UTF-16 where the client offers nothing.
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

    /// The protocol's name for it.
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
    /// The current text. Clones share it.
    pub(crate) text: Rope,
    /// The version in the last notification that was applied.
    pub(crate) version: i32,
    /// The path, if it is a file on this machine.
    pub(crate) path: Option<PathBuf>,
    /// The line on which the last edit ended.
    pub(crate) edited_line: usize,
    /// The number of edits to all documents up to its own last one; 0 if it was never edited.
    pub(crate) edited_at: u64,
    /// False after an edit arrived that is older than the text, until the document is sent whole. Positions out of
    /// range are clamped and do not count.
    pub(crate) is_in_sync: bool,
}

impl Document {
    /// The byte offset of a position, clamped to the text and to the start of a character.
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

    /// The position of a byte offset.
    ///
    /// # Panics
    /// If `offset` is past the end of the text.
    pub(crate) fn position(&self, offset: usize, encoding: Encoding) -> Position {
        let line_idx = self.text.byte_to_line(offset);
        let column = offset - self.text.line_to_byte(line_idx);
        let line = self.text.line(line_idx);
        let column = match encoding {
            Encoding::Utf8 => column,
            Encoding::Utf16 => line.char_to_utf16_cu(line.byte_to_char(column)),
            Encoding::Utf32 => line.byte_to_char(column),
        };
        // No editor sends 4 GiB; saturating keeps this function total.
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Position { line: narrow(line_idx), character: narrow(column) }
    }

    fn replace(&mut self, range: Range, text: &str, encoding: Encoding) {
        let (start, end) = (self.offset(range.start, encoding), self.offset(range.end, encoding));
        // Editors that send start and end swapped mean the same range.
        let (start, end) = (start.min(end), start.max(end));
        let start_char = self.text.byte_to_char(start);
        self.text.remove(start_char..self.text.byte_to_char(end));
        self.text.insert(start_char, text);
        self.edited_line = self.text.byte_to_line(start + text.len());
    }
}

/// What an edit did to its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EditOutcome {
    /// The text equals the editor's.
    Applied,
    /// Nothing: the document is not open.
    NotOpen,
    /// Nothing, because it is older than the text; there are no suggestions until the document is sent whole.
    Stale,
}

/// All open documents, by URI.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    open: HashMap<String, Document>,
    n_edits: u64,
}

impl Documents {
    /// Opens a document, or replaces it if it is open already.
    pub(crate) fn open(&mut self, uri: &str, version: i32, text: &str) {
        let document = Document {
            text: Rope::from_str(text),
            version,
            path: uri::to_path(uri),
            edited_line: 0,
            edited_at: 0,
            is_in_sync: true,
        };
        self.open.insert(uri.to_owned(), document);
    }

    /// Closes a document.
    pub(crate) fn close(&mut self, uri: &str) {
        self.open.remove(uri);
    }

    /// The open document at a URI.
    pub(crate) fn get(&self, uri: &str) -> Option<&Document> {
        self.open.get(uri)
    }

    /// The folders of the open files.
    pub(crate) fn folders(&self) -> BTreeSet<PathBuf> {
        let paths = self.open.values().filter_map(|document| document.path.as_ref());
        paths.filter_map(|path| Some(path.parent()?.to_owned())).collect()
    }

    /// All documents except one, the last edited first.
    pub(crate) fn others(&self, except: &str) -> Vec<&Document> {
        let mut others: Vec<(&String, &Document)> = self.open.iter().filter(|(uri, _)| *uri != except).collect();
        others.sort_by_key(|(uri, document)| (std::cmp::Reverse(document.edited_at), *uri));
        others.into_iter().map(|(_, document)| document).collect()
    }

    /// Like [`Documents::others`], without those never edited.
    pub(crate) fn recently_edited(&self, except: &str) -> Vec<&Document> {
        let mut others = self.others(except);
        others.retain(|document| document.edited_at > 0);
        others
    }

    /// Applies the changes of one notification in order.
    pub(crate) fn change(
        &mut self,
        uri: &str,
        version: i32,
        changes: &[TextDocumentContentChangeEvent],
        encoding: Encoding,
    ) -> EditOutcome {
        let Some(document) = self.open.get_mut(uri) else {
            return EditOutcome::NotOpen;
        };
        self.n_edits += 1;
        let is_stale = version < document.version;
        for change in changes {
            match change {
                TextDocumentContentChangeEvent::TextDocumentContentChangeWholeDocument(whole) if !is_stale => {
                    document.text = Rope::from_str(&whole.text);
                    document.edited_line = 0;
                    document.is_in_sync = true;
                }
                TextDocumentContentChangeEvent::TextDocumentContentChangePartial(part) if !is_stale => {
                    document.replace(part.range, &part.text, encoding);
                }
                _ => document.is_in_sync = false,
            }
        }
        if is_stale {
            return EditOutcome::Stale;
        }
        document.version = version;
        document.edited_at = self.n_edits;
        EditOutcome::Applied
    }
}

/// A line without its line ending.
fn content(line: RopeSlice<'_>) -> RopeSlice<'_> {
    let mut n_chars = line.len_chars();
    while n_chars > 0 && matches!(line.char(n_chars - 1), '\n' | '\r') {
        n_chars -= 1;
    }
    line.slice(..n_chars)
}

#[cfg(test)]
mod tests;
