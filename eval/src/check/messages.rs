//! Errors among the compiler's JSON messages, its own or as cargo passes them on.

use std::ops::Range;

use serde_json::Value;

use super::{Outcome, Verdict};
use crate::sandbox::Finished;

/// One error of the compiler.
pub(super) struct Error {
    /// First line of the message, with file and line.
    pub(super) line: String,
    /// File, relative to where the compiler ran, and bytes of each primary span and of the macro calls around it.
    sites: Vec<(String, Range<usize>)>,
}

pub(super) fn outcome(finished: &Finished, messages: &[u8]) -> Outcome {
    let mut failed = !finished.success;
    let mut sites = Vec::new();
    for error in errors(messages) {
        failed = true;
        sites.extend(error.sites);
    }
    let verdict = match (finished.timed_out, failed) {
        (true, _) => Verdict::TimedOut,
        (false, true) => Verdict::Fails,
        (false, false) => Verdict::Compiles,
    };
    Outcome { verdict, sites }
}

pub(super) fn errors(messages: &[u8]) -> impl Iterator<Item = Error> {
    messages.split(|&byte| byte == b'\n').filter_map(|line| {
        let message: Value = serde_json::from_slice(line).ok()?;
        let diagnostic = message.get("message").filter(|inner| inner.is_object()).unwrap_or(&message);
        if !diagnostic.get("level")?.as_str()?.starts_with("error") {
            return None;
        }
        let spans = diagnostic.get("spans").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let position = spans.first().and_then(|span| {
            Some(format!(" ({}:{})", span.get("file_name")?.as_str()?, span.get("line_start")?.as_u64()?))
        });
        let text = diagnostic.get("message")?.as_str()?.lines().next().unwrap_or_default();
        let is_primary = |span: &&Value| span.get("is_primary").and_then(Value::as_bool).unwrap_or(false);
        Some(Error {
            line: format!("{text}{}", position.unwrap_or_default()),
            sites: spans.iter().filter(is_primary).flat_map(sites).collect(),
        })
    })
}

/// The span and the positions of the macro calls that it comes from, innermost first.
fn sites(span: &Value) -> Vec<(String, Range<usize>)> {
    let mut sites = Vec::new();
    let mut next = Some(span);
    while let Some(span) = next {
        let byte = |name: &str| span.get(name).and_then(Value::as_u64).and_then(|at| usize::try_from(at).ok());
        if let (Some(file), Some(start), Some(end)) =
            (span.get("file_name").and_then(Value::as_str), byte("byte_start"), byte("byte_end"))
        {
            sites.push((file.replace('\\', "/"), start..end));
        }
        next = span.get("expansion").and_then(|expansion| expansion.get("span"));
    }
    sites
}
