use lsp_types::{TextDocumentContentChangePartial, TextDocumentContentChangeWholeDocument};
use proptest::prelude::*;

use super::*;

const ENCODINGS: [Encoding; 3] = [Encoding::Utf8, Encoding::Utf16, Encoding::Utf32];
const URI: &str = "file:///a.rs";

/// The simplest implementation of a position: walks the text character by character.
fn oracle_offset(text: &str, position: Position, encoding: Encoding) -> usize {
    let (mut line, mut column) = (0u32, 0u32);
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let ends_line = c == '\n' || c == '\r';
        if line == position.line {
            let width = match encoding {
                Encoding::Utf8 => c.len_utf8(),
                Encoding::Utf16 => c.len_utf16(),
                Encoding::Utf32 => 1,
            };
            if ends_line || position.character < column + width as u32 {
                return at;
            }
            column += width as u32;
        }
        if ends_line && !(c == '\r' && chars.peek().is_some_and(|(_, next)| *next == '\n')) {
            line += 1;
        }
    }
    text.len()
}

fn part(range: Range, text: &str) -> TextDocumentContentChangeEvent {
    #[expect(deprecated, reason = "the field must be given a value")]
    let part = TextDocumentContentChangePartial { range, range_length: None, text: text.to_owned() };
    part.into()
}

fn range(start: (u32, u32), end: (u32, u32)) -> Range {
    Range { start: Position { line: start.0, character: start.1 }, end: Position { line: end.0, character: end.1 } }
}

fn opened(text: &str) -> Documents {
    let mut documents = Documents::default();
    documents.open(URI, 1, text);
    documents
}

fn text_of(documents: &Documents) -> String {
    documents.get(URI).expect("opened above").text.to_string()
}

proptest! {
    #[test]
    fn edits_equal_those_of_a_plain_string(
        text in "[a-c\\n\\ré𝄞\u{2028}]{0,24}",
        edits in prop::collection::vec(((0u32..8, 0u32..12), (0u32..8, 0u32..12), "[xy\\n\\rü𝄞]{0,4}"), 1..6),
        which in 0usize..3,
    ) {
        let encoding = ENCODINGS[which];
        let mut documents = opened(&text);
        let mut plain = text;
        for (version, (start, end, insert)) in edits.into_iter().enumerate() {
            let range = range(start, end);
            let (a, b) = (oracle_offset(&plain, range.start, encoding), oracle_offset(&plain, range.end, encoding));
            plain.replace_range(a.min(b)..a.max(b), &insert);
            let applied = documents.change(URI, version as i32 + 2, &[part(range, &insert)], encoding);
            prop_assert_eq!(applied, EditOutcome::Applied);
            prop_assert_eq!(text_of(&documents), &plain[..]);
        }
    }

    #[test]
    fn positions_read_back_as_they_were_written(text in "[a-c\\n\\ré𝄞]{0,24}", which in 0usize..3) {
        let encoding = ENCODINGS[which];
        let documents = opened(&text);
        let document = documents.get(URI).expect("opened above");
        for (offset, _) in text.char_indices().chain([(text.len(), ' ')]) {
            // Between \r and \n there is no position that names the byte.
            if offset > 0 && text[..offset].ends_with('\r') && text[offset..].starts_with('\n') {
                continue;
            }
            prop_assert_eq!(document.offset(document.position(offset, encoding), encoding), offset);
        }
    }
}

#[test]
fn positions_anywhere_are_clamped() {
    let documents = opened("aé\r\n𝄞b");
    let document = documents.get(URI).expect("opened above");
    let offset = |line, character, encoding| document.offset(Position { line, character }, encoding);
    for encoding in ENCODINGS {
        assert_eq!(offset(0, u32::MAX, encoding), 3, "{encoding:?}");
        assert_eq!(offset(1, u32::MAX, encoding), 10);
        assert_eq!(offset(u32::MAX, 0, encoding), 10);
        assert_eq!(offset(2, 0, encoding), 10);
    }
    assert_eq!(offset(0, 2, Encoding::Utf8), 1, "inside é");
    assert_eq!(offset(1, 1, Encoding::Utf16), 5, "between surrogates");
    assert_eq!(offset(1, 2, Encoding::Utf16), 9);
    assert_eq!(offset(1, 1, Encoding::Utf32), 9);
}

#[test]
fn a_stale_edit_stops_suggestions_until_the_document_is_sent_whole() {
    let mut documents = opened("abc");
    let edit = [part(range((0, 0), (0, 1)), "x")];
    assert_eq!(documents.change(URI, 5, &edit, Encoding::Utf8), EditOutcome::Applied);
    assert_eq!(documents.change(URI, 4, &edit, Encoding::Utf8), EditOutcome::Stale);
    assert_eq!(text_of(&documents), "xbc");
    assert!(!documents.get(URI).expect("opened above").is_in_sync);
    let whole = TextDocumentContentChangeWholeDocument { text: "new".to_owned() };
    assert_eq!(documents.change(URI, 6, &[whole.into()], Encoding::Utf8), EditOutcome::Applied);
    assert!(documents.get(URI).expect("opened above").is_in_sync);
    assert_eq!(documents.change("file:///other.rs", 1, &edit, Encoding::Utf8), EditOutcome::NotOpen);
}

#[test]
fn utf_8_is_preferred_and_utf_16_is_the_default() {
    use PositionEncodingKind as Kind;
    assert_eq!(Encoding::negotiate(None), Encoding::Utf16);
    assert_eq!(Encoding::negotiate(Some(&[Kind::UTF16, Kind::UTF32, Kind::UTF8])), Encoding::Utf8);
    assert_eq!(Encoding::negotiate(Some(&[Kind::UTF32, Kind::UTF16])), Encoding::Utf16);
    assert_eq!(Encoding::negotiate(Some(&[Kind::UTF32])), Encoding::Utf32);
    assert_eq!(Encoding::negotiate(Some(&[])), Encoding::Utf16);
}
