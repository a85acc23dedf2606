//! A completion to what the editor shows, and back from what was typed since.

use lsp_types::{Command, InlineCompletionItem, Range};
use serde_json::json;

/// Executed by the editor after it inserted a suggestion: the protocol's only sign of acceptance.
pub(crate) const ACCEPTED: &str = "nanochat.accepted";

/// The text to show, if there is anything to see: without white space at its end.
pub(crate) fn visible(text: &str) -> Option<&str> {
    let text = text.trim_end();
    (!text.is_empty()).then_some(text)
}

/// One item that replaces `range`, which ends at the cursor or where the selected menu item ends. Its line ends are
/// `\n` in every document: editors write their document's own, and some would show a `\r` as text.
pub(crate) fn item(text: String, range: Range) -> InlineCompletionItem {
    let command = Command {
        title: "Suggestion accepted".to_owned(),
        tooltip: None,
        command: ACCEPTED.to_owned(),
        arguments: Some(vec![json!(text.chars().count())]),
    };
    InlineCompletionItem { insert_text: text.into(), filter_text: None, range: Some(range), command: Some(command) }
}

/// The last suggestion in a document and where it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Text before the cursor then.
    pub(crate) prefix: String,
    /// Text after it.
    pub(crate) suffix: String,
    /// The suggestion.
    pub(crate) text: String,
}

impl Shown {
    /// What is left of the suggestion once the user typed its beginning, or took some of that back.
    /// `None` where they wrote something else, or all of it.
    pub(crate) fn rest(&self, prefix: &str, suffix: &str) -> Option<&str> {
        let typed = prefix.strip_prefix(self.prefix.as_str())?;
        let rest = self.text.strip_prefix(typed)?;
        (suffix == self.suffix && !rest.is_empty()).then_some(rest)
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
    fn typing_the_beginning_keeps_the_rest() {
        let shown = Shown { prefix: "let x = ".into(), suffix: ";\n".into(), text: "é.len()".into() };
        assert_eq!(shown.rest("let x = ", ";\n"), Some("é.len()"));
        assert_eq!(shown.rest("let x = é.l", ";\n"), Some("en()"));
        assert_eq!(shown.rest("let x = é.len()", ";\n"), None);
        assert_eq!(shown.rest("let x = y", ";\n"), None);
        assert_eq!(shown.rest("let x =", ";\n"), None);
        assert_eq!(shown.rest("let x = é", ")\n"), None);
    }
}
