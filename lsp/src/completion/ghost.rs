//! A completion to ghost text, and what is left of that as the user types.

use std::sync::Arc;

use lsp_types::{Command, InlineCompletionItem, Range};
use serde_json::json;

use crate::context::CursorText;

/// The command that the editor executes after it has inserted a suggestion; the protocol has no other sign of
/// acceptance.
pub(crate) const ACCEPTED: &str = "nanochat.accepted";

/// The text without trailing white space; `None` where nothing is left to see.
pub(crate) fn visible(text: &str) -> Option<&str> {
    let text = text.trim_end();
    (!text.is_empty()).then_some(text)
}

/// The item that replaces `range`, which ends at the cursor or at the end of the selected menu item. Its line ends are
/// always `\n`: editors convert them to the document's own, and some would show a `\r` as text.
pub(crate) fn item(text: String, range: Range) -> InlineCompletionItem {
    let command = Command {
        title: "Suggestion accepted".to_owned(),
        tooltip: None,
        command: ACCEPTED.to_owned(),
        arguments: Some(vec![json!(text.chars().count())]),
    };
    InlineCompletionItem { insert_text: text.into(), filter_text: None, range: Some(range), command: Some(command) }
}

/// The last suggestion in a document, and the text that it was made for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The document's text when it was shown, as the engine saw it.
    pub(crate) at: Arc<CursorText>,
    /// What was suggested at the cursor.
    pub(crate) text: String,
}

impl Shown {
    /// What is left of the suggestion after the user has typed its start, or deleted some of that again. `None` where
    /// they typed something else, or all of it.
    pub(crate) fn rest(&self, now: &CursorText) -> Option<&str> {
        let typed = now.prefix.strip_prefix(self.at.prefix.as_str())?;
        let rest = self.text.strip_prefix(typed)?;
        (now.suffix == self.at.suffix && !rest.is_empty()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_alone_is_not_shown() {
        assert_eq!(visible(" \n\t"), None);
        assert_eq!(visible(""), None);
        assert_eq!(visible("  x();\n  "), Some("  x();"));
    }

    #[test]
    fn typing_the_start_keeps_the_rest() {
        let at = |prefix: &str, suffix: &str| CursorText { prefix: prefix.into(), suffix: suffix.into() };
        let shown = Shown { at: Arc::new(at("let x = ", ";\n")), text: "é.len()".into() };
        let rest = |prefix, suffix| shown.rest(&at(prefix, suffix)).map(str::to_owned);
        assert_eq!(rest("let x = ", ";\n").as_deref(), Some("é.len()"));
        assert_eq!(rest("let x = é.l", ";\n").as_deref(), Some("en()"));
        assert_eq!(rest("let x = é.len()", ";\n"), None);
        assert_eq!(rest("let x = y", ";\n"), None);
        assert_eq!(rest("let x =", ";\n"), None);
        assert_eq!(rest("let x = é", ")\n"), None);
    }
}
