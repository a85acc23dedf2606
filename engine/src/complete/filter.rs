//! Candidates that are never shown: those that break the brackets or literals around them, those that name a member
//! that is not there, and those that would write a secret.

use super::candidates::{Candidate, Cursor};
use crate::prompt::Prompt;
use crate::symbols::CursorSymbols;
use crate::text::secrets;

/// Drops candidates that close what is not open or leave a literal open, as far as the start of the suffix tells.
pub(super) fn drop_unbalanced(cursor: &Cursor<'_, '_>, candidates: &mut Vec<Candidate>) {
    let suffix = cursor.start.text.suffix_scan(cursor.prompt.suffix);
    candidates.retain(|candidate| candidate.path.text.fits(&suffix));
}

/// Counts the members that candidates name, and drops those with one that is missing.
pub(super) fn drop_missing_members(cursor: &Cursor<'_, '_>, candidates: &mut Vec<Candidate>) {
    let Some(memory) = &cursor.next_token.memory else { return };
    let prompt = cursor.prompt;
    let line_start = prompt.prefix.rfind('\n').map_or(0, |at| at + 1);
    let (before, typed) = prompt.prefix.split_at(line_start);
    let (rest, after) = prompt.suffix.split_once('\n').unwrap_or((prompt.suffix, ""));
    let symbols = CursorSymbols::of(memory.symbols(), prompt.path, before, after);
    candidates.retain_mut(|candidate| {
        let text = candidate.path.text.new_text();
        candidate.members = symbols.members(&[typed, text, rest].concat(), typed.len());
        candidate.members.n_missing == 0
    });
}

/// How far before the cursor the header of a private key is looked for.
const MAX_KEY_BYTES: usize = 4 << 10;

/// Whether the text completes a secret or holds one. It is read with the cursor's line, the line before it, which may
/// end with the secret's name, and the lines of a private key.
pub(super) fn writes_secret(prompt: &Prompt<'_>, text: &str) -> bool {
    let prefix = prompt.prefix;
    let window = &prefix[prefix.ceil_char_boundary(prefix.len().saturating_sub(MAX_KEY_BYTES))..];
    let line = window.rmatch_indices('\n').nth(1).map_or(0, |(at, _)| at + 1);
    let start = window.rfind("-----BEGIN ").map_or(line, |key| key.min(line));
    let before = &window[start..];
    secrets::find(&[before, text].concat()).iter().any(|finding| finding.range.end > before.len())
}
