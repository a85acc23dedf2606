//! Cuts text into pre-tokens, by bytes, left to right, in linear time.
//!
//! ```text
//! newlines indent        "\n\n    "     blank lines go with the line break; then spaces and tabs
//! space? word            " let" "fn" "_x1"
//! space? digits          " 12"
//! space? punctuation     " =>" "();" "::" "//"
//! spaces                 the rest of a run whose last space belongs to what follows
//! bytes ≥ 0x80, control  runs of their own
//! ```

/// A longer run is cut here, so that joining inside a pre-token stays cheap on a megabyte of base64.
pub const MAX_PRETOKEN: usize = 64;

/// The pre-tokens of a text, in order; together they are the text. Merges never cross them.
pub fn pretokens(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (pretoken, tail) =
            rest.split_at_checked(pretoken_len(rest)).filter(|(pretoken, _)| !pretoken.is_empty())?;
        rest = tail;
        Some(pretoken)
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ByteClass {
    Newline,
    Blank,
    Word,
    Digit,
    Punctuation,
    Control,
    High,
}

const CLASSES: [ByteClass; 256] = {
    let mut classes = [ByteClass::High; 256];
    let mut byte = 0;
    while byte < 128 {
        classes[byte] = match byte as u8 {
            b'\n' => ByteClass::Newline,
            b' ' | b'\t' => ByteClass::Blank,
            b'A'..=b'Z' | b'a'..=b'z' | b'_' => ByteClass::Word,
            b'0'..=b'9' => ByteClass::Digit,
            b'!'..=b'~' => ByteClass::Punctuation,
            _ => ByteClass::Control,
        };
        byte += 1;
    }
    classes
};

fn class(byte: u8) -> ByteClass {
    CLASSES[usize::from(byte)]
}

/// Length of the first pre-token; 0 only for no text.
fn pretoken_len(text: &[u8]) -> usize {
    let text = &text[..text.len().min(MAX_PRETOKEN)];
    let Some(&first) = text.first() else { return 0 };
    let line_breaks = line_breaks_len(text);
    if line_breaks > 0 {
        return line_breaks + run_len(&text[line_breaks..], |byte| class(byte) == ByteClass::Blank);
    }
    if class(first) != ByteClass::Blank {
        return same_class_len(text);
    }
    let blanks = run_len(text, |byte| class(byte) == ByteClass::Blank);
    let joins = |byte: &u8| matches!(class(*byte), ByteClass::Word | ByteClass::Digit | ByteClass::Punctuation);
    match text.get(blanks) {
        Some(next) if joins(next) && text[blanks - 1] == b' ' => {
            if blanks > 1 {
                blanks - 1
            } else {
                1 + same_class_len(&text[1..])
            }
        }
        _ => blanks,
    }
}

/// Length of the run of `\n` and `\r\n` at the start.
fn line_breaks_len(text: &[u8]) -> usize {
    let mut len = 0;
    loop {
        match &text[len..] {
            [b'\n', ..] => len += 1,
            [b'\r', b'\n', ..] => len += 2,
            _ => return len,
        }
    }
}

/// Length of the run of the class of its first byte; a word includes digits.
fn same_class_len(text: &[u8]) -> usize {
    match class(text[0]) {
        ByteClass::Word => run_len(text, |byte| matches!(class(byte), ByteClass::Word | ByteClass::Digit)),
        // One at a time, so that the `\r` of a `\r\n` is never swallowed.
        ByteClass::Control => 1,
        first => run_len(text, |byte| class(byte) == first),
    }
}

fn run_len(text: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|&byte| !belongs(byte)).unwrap_or(text.len())
}
