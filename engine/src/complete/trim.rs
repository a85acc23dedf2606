//! What of a generated text is shown: not the tail that already follows the cursor, and no white space at its end.

use crate::text::Scanner;

/// The part of `new` that is shown, if any is. `closer` is the bracket that ended the text because the suffix has it
/// too; `at_cursor` has read the text before the cursor.
pub(super) fn trim(new: &str, closer: Option<char>, at_cursor: &Scanner, suffix: &str) -> Option<String> {
    // What precedes the bracket may precede the suffix's too: `g(▮, b)` and `a, b)`.
    let closed = closer.map(|closer| format!("{new}{closer}"));
    let trimmed = closed.as_deref().map(|closed| at_cursor.trim_overlap(closed, suffix));
    let text = match trimmed.filter(|trimmed| trimmed.len() < new.len()) {
        Some(trimmed) => trimmed,
        None => at_cursor.trim_overlap(new, suffix),
    };
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}
