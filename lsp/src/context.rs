//! Documents and a cursor to what the engine may look at: the text around the cursor, and snippets of other files.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use lsp_types::{Position, SelectedCompletionInfo};
use ropey::Rope;

use crate::documents::{Document, Documents, Encoding};

/// Most files that a snippet is taken from.
const MAX_SNIPPETS: usize = 3;
/// Most bytes of one snippet: about 250 tokens.
const MAX_SNIPPET_BYTES: usize = 800;
/// Lines shown before and after the last edit of another file.
const LINES_AROUND: usize = 8;
/// Starts of the items whose first line says how to use them.
const ITEMS: [&str; 6] = ["fn ", "struct ", "enum ", "trait ", "impl ", "type "];

/// A request to the engine, independent of the documents it came from. Line ends are `\n` where the document has
/// `\r\n`, as in training.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// The path of the document, if it is a file.
    pub(crate) path: Option<PathBuf>,
    /// Pieces of other files, the most important last.
    pub(crate) snippets: Vec<(PathBuf, String)>,
    /// The document's text.
    pub(crate) text: Arc<CursorText>,
    /// The other open files, the last edited first. Their texts are shared with the documents.
    pub(crate) open: Vec<(PathBuf, Rope)>,
}

/// The text of a document, divided at the cursor.
///
/// This is the one copy that a request makes of it: the job, the request that waits for it and the suggestion that is
/// shown share it. It is not `Clone`, so that it stays the only one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CursorText {
    /// The text before the cursor, including what the selected menu item inserts.
    pub(crate) prefix: String,
    /// The text after the cursor.
    pub(crate) suffix: String,
}

/// The query at a cursor. With an item of the editor's menu selected, the text is as if that item were accepted.
pub(crate) fn query(documents: &Documents, uri: &str, cursor: usize, selected: Option<&SelectedItem>) -> Option<Query> {
    let document = documents.get(uri)?;
    let recent = documents.recently_edited(uri).into_iter().take(MAX_SNIPPETS);
    let mut snippets: Vec<(PathBuf, String)> =
        recent.filter_map(|document| Some((document.path.clone()?, snippet(document)))).collect();
    snippets.retain(|(_, text)| !text.is_empty());
    snippets.reverse();
    let (before, after) = selected.map_or((cursor, cursor), |selected| (selected.start, selected.end.max(cursor)));
    let inserted = selected.map_or("", |selected| &selected.text);
    let mut prefix = unix_text(&document.text, 0..before, inserted.len());
    prefix.push_str(inserted);
    let suffix = unix_text(&document.text, after..document.text.len_bytes(), 0);
    let open = documents.others(uri).into_iter().filter(|document| document.is_in_sync);
    let open = open.filter_map(|document| Some((document.path.clone()?, document.text.clone()))).collect();
    let text = Arc::new(CursorText { prefix, suffix });
    Some(Query { path: document.path.clone(), snippets, text, open })
}

/// The item that is selected in the editor's completion menu; its range is in bytes of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SelectedItem {
    /// The first byte that it replaces.
    pub(crate) start: usize,
    /// The end of what it replaces.
    pub(crate) end: usize,
    /// The text that it inserts there.
    pub(crate) text: String,
}

impl SelectedItem {
    /// The selected item, if it can be continued at this cursor: its range is on the cursor's line and starts at or
    /// before it.
    pub(crate) fn new(
        info: &SelectedCompletionInfo,
        document: &Document,
        cursor: Position,
        encoding: Encoding,
    ) -> Option<Self> {
        let (start, end) = (document.offset(info.range.start, encoding), document.offset(info.range.end, encoding));
        let at = document.offset(cursor, encoding);
        let fits = info.range.start.line == cursor.line && info.range.end.line == cursor.line && start <= at;
        (fits && start <= end).then(|| Self { start, end, text: info.text.replace("\r\n", "\n") })
    }
}

/// A range of the text with `\n` where it has `\r\n`, as [`nanochat_engine::Sources::collect`] reads files. Copies each
/// byte once, into a string with room for `n_spare` bytes more.
fn unix_text(text: &Rope, bytes: Range<usize>, n_spare: usize) -> String {
    let mut out = String::with_capacity(bytes.len() + n_spare);
    for chunk in text.byte_slice(bytes).chunks() {
        // A `\r` at the end of the last chunk may belong to a `\n` at the start of this one.
        if chunk.starts_with('\n') && out.ends_with('\r') {
            out.pop();
        }
        let mut rest = chunk;
        while let Some(line_end) = rest.find("\r\n") {
            out.push_str(&rest[..line_end]);
            rest = &rest[line_end + 1..];
        }
        out.push_str(rest);
    }
    out
}

/// The lines around a document's last edit, preceded by the first lines of the items above them, as far as they fit.
fn snippet(document: &Document) -> String {
    let text = &document.text;
    let first = document.edited_line.saturating_sub(LINES_AROUND);
    let last = (document.edited_line + LINES_AROUND + 1).min(text.len_lines());
    let line = |line_idx: usize| unix_text(text, text.line_to_byte(line_idx)..text.line_to_byte(line_idx + 1), 0);
    let mut around = String::new();
    for line_idx in first..last {
        let line = line(line_idx);
        // The edited line matters most: lines before it are dropped to make room for it.
        while around.len() + line.len() > MAX_SNIPPET_BYTES && line_idx <= document.edited_line && !around.is_empty() {
            around.drain(..=around.find('\n').unwrap_or(around.len() - 1));
        }
        if around.len() + line.len() > MAX_SNIPPET_BYTES {
            break;
        }
        around.push_str(&line);
    }
    let mut items = String::new();
    for line_idx in 0..first {
        let line = line(line_idx);
        if is_item(&line) && items.len() + around.len() + line.len() <= MAX_SNIPPET_BYTES {
            items.push_str(&line);
        }
    }
    items + &around
}

fn is_item(line: &str) -> bool {
    let line = line.trim_start();
    let line = line.strip_prefix("pub ").or(line.strip_prefix("pub(crate) ")).unwrap_or(line);
    ITEMS.iter().any(|item| line.starts_with(item))
}

#[cfg(test)]
mod tests {
    use lsp_types::TextDocumentContentChangePartial;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn line_ends_become_unix_ones_also_between_chunks_of_the_rope(
            pieces in prop::collection::vec("[a\\r\\n]{0,8}", 1..4),
            ends in (0usize..9000, 0usize..9000),
        ) {
            let text = pieces.concat().repeat(400);
            let ends = (ends.0.min(text.len()), ends.1.min(text.len()));
            let bytes = ends.0.min(ends.1)..ends.0.max(ends.1);
            let expected = text[bytes.clone()].replace("\r\n", "\n");
            prop_assert_eq!(unix_text(&Rope::from_str(&text), bytes, 0), expected);
        }
    }

    fn insert(documents: &mut Documents, uri: &str, line: u32, text: &str) {
        let at = Position { line, character: 0 };
        #[expect(deprecated, reason = "the field must be given a value")]
        let part = TextDocumentContentChangePartial {
            range: lsp_types::Range { start: at, end: at },
            range_length: None,
            text: text.to_owned(),
        };
        documents.change(uri, 2, &[part.into()], Encoding::Utf8);
    }

    #[test]
    fn the_last_edited_file_comes_last_and_the_file_itself_never() {
        let mut documents = Documents::default();
        for name in ["a", "b", "c", "untouched"] {
            documents.open(&format!("file:///{name}.rs"), 1, &format!("fn {name}() {{}}\n"));
        }
        for name in ["b", "c", "a"] {
            insert(&mut documents, &format!("file:///{name}.rs"), 0, "// edited\n");
        }
        let query = query(&documents, "file:///c.rs", 3, None).expect("it is open");
        let snippets: Vec<String> = query.snippets.iter().map(|(path, _)| path.display().to_string()).collect();
        assert_eq!(snippets, ["/b.rs", "/a.rs"]);
        assert_eq!(query.snippets[1].1, "// edited\nfn a() {}\n");
        assert_eq!((query.text.prefix.as_str(), query.text.suffix.as_str()), ("// ", "edited\nfn c() {}\n"));
        let open: Vec<String> = query.open.iter().map(|(path, _)| path.display().to_string()).collect();
        assert_eq!(open, ["/a.rs", "/b.rs", "/untouched.rs"]);
    }

    #[test]
    fn a_long_file_gives_its_signatures_and_the_lines_around_the_edit() {
        let mut text = "pub fn first(x: u8) -> u8 {\n".to_owned();
        text.push_str(&"    let filler = 1;\n".repeat(60));
        let mut documents = Documents::default();
        documents.open("file:///a.rs", 1, &text);
        documents.open("file:///b.rs", 1, "x\r\ny\r\n");
        insert(&mut documents, "file:///a.rs", 40, "    let edited = 2;\n");
        let query = query(&documents, "file:///b.rs", 3, None).expect("it is open");
        let snippet = &query.snippets[0].1;
        assert!(snippet.starts_with("pub fn first(x: u8) -> u8 {\n    let filler"), "{snippet}");
        assert!(snippet.contains("let edited = 2;"));
        assert!(snippet.len() <= MAX_SNIPPET_BYTES);
        assert_eq!((query.text.prefix.as_str(), query.text.suffix.as_str()), ("x\n", "y\n"));
    }

    #[test]
    fn one_endless_line_gives_no_snippet() {
        let mut documents = Documents::default();
        documents.open("file:///a.rs", 1, "");
        documents.open("file:///b.rs", 1, "");
        insert(&mut documents, "file:///a.rs", 0, &"é".repeat(MAX_SNIPPET_BYTES));
        assert_eq!(query(&documents, "file:///b.rs", 0, None).expect("it is open").snippets, []);
    }

    #[test]
    fn a_selected_item_counts_as_accepted() {
        let mut documents = Documents::default();
        documents.open("file:///a.rs", 1, "x.unw;");
        let document = documents.get("file:///a.rs").expect("opened above");
        let at = |character| Position { line: 0, character };
        let info =
            SelectedCompletionInfo { range: lsp_types::Range { start: at(2), end: at(5) }, text: "unwrap".to_owned() };
        let selected = SelectedItem::new(&info, document, at(5), Encoding::Utf8).expect("it can be continued");
        let query = query(&documents, "file:///a.rs", 5, Some(&selected)).expect("it is open");
        assert_eq!((query.text.prefix.as_str(), query.text.suffix.as_str()), ("x.unwrap", ";"));
        let elsewhere = Position { line: 7, character: 0 };
        assert_eq!(SelectedItem::new(&info, document, elsewhere, Encoding::Utf8), None);
    }
}
