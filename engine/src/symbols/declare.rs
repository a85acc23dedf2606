//! A short declaration of each type that matters at a cursor, for the prompt.
//!
//! ```text
//! Builder .path: PathBuf .depth: usize .build() -> Walk ::new(_) -> Builder
//! Kind ::Dir ::File ::Link
//! ```
//!
//! Members are written as they are used, so that the text shows what may follow `builder` in the form in which it
//! follows.

use std::collections::HashSet;

use super::{Record, RecordKind, Symbols, tolerant};
use crate::text::lex;
use crate::tier::{N_TIERS, Tier};

/// Declarations change only every so many lines, so that they stay the same while one types.
const GRID: usize = 8;
/// Bytes before the grid's line and after the cursor in which types are looked for.
const NEAR_BEFORE: usize = 4 << 10;
const NEAR_AFTER: usize = 1 << 10;
/// Longer types are left out.
const MOST_TYPE: usize = 40;
/// Most members of one type.
const MOST_MEMBERS: usize = 40;

/// The part of the prefix that decides what is declared: up to eight lines less than all, and the same while those are
/// written.
pub fn settled(prefix: &str) -> &str {
    let n_kept = prefix.bytes().filter(|byte| *byte == b'\n').count() / GRID * GRID;
    if n_kept == 0 {
        return "";
    }
    let (end, _) = prefix.match_indices('\n').nth(n_kept - 1).expect("so many were counted");
    &prefix[..=end]
}

/// Declarations of the types that `before` and `after` name near the cursor between them, and of the one whose `impl`
/// it is in, from the file `path` itself and from the tables; one line each, in the order of their names, the nearest
/// ones that fit in `most_bytes`. Types of the standard library are left out.
pub fn declarations(tables: &[Symbols; N_TIERS], path: &str, before: &str, after: &str, most_bytes: usize) -> String {
    let (records, scope) = tolerant::read_around(before, after);
    let here = Symbols::of([(String::new(), records)]);
    let from = before.ceil_char_boundary(before.len().saturating_sub(NEAR_BEFORE));
    let near = lex::tokens(&before[from..]);
    let next = lex::tokens(&after[..after.floor_char_boundary(NEAR_AFTER)]);
    let words =
        near.iter().rev().chain(&next).filter(|token| token.kind == lex::TokenKind::Word).map(|token| token.text);
    let of_variables = scope.variables.iter().rev().map(|variable| variable.type_);
    let names = scope.self_type.into_iter().chain(words).chain(of_variables);
    let names = names.filter(|name| name.len() > 1 && name.starts_with(char::is_uppercase));

    let mut seen: HashSet<&str> = scope.parameters.iter().copied().collect();
    let (mut lines, mut left) = (Vec::new(), most_bytes);
    for name in names {
        if left == 0 {
            break;
        }
        if !seen.insert(name) {
            continue;
        }
        let others = match scope.imported.iter().find(|(imported, _)| *imported == name) {
            Some((_, true)) => continue,
            Some((_, false)) => &tables[Tier::Dependencies as usize..Tier::Std as usize],
            None => &tables[..Tier::Std as usize],
        };
        let records = here.of_owner(name, "").chain(others.iter().flat_map(|table| table.of_owner(name, path)));
        let line = line(name, records, left);
        left -= line.len();
        lines.extend((!line.is_empty()).then_some((name, line)));
    }
    lines.sort_unstable();
    lines.into_iter().map(|(_, line)| line).collect()
}

/// The declaration of one type, with as many members as fit; empty if no member does.
fn line<'a>(name: &str, records: impl Iterator<Item = Record<'a>>, most_bytes: usize) -> String {
    let mut members: Vec<(u8, String)> = Vec::new();
    let mut seen = HashSet::new();
    for record in records {
        let (order, mark) = match record.kind {
            RecordKind::Field => (0, "."),
            RecordKind::Variant => (1, "::"),
            RecordKind::Method => (2, "."),
            RecordKind::Associated => (3, "::"),
            RecordKind::Type | RecordKind::Open | RecordKind::Trait | RecordKind::Implements => continue,
        };
        if members.len() == MOST_MEMBERS || !seen.insert((order, record.name)) {
            continue;
        }
        let mut text = format!(" {mark}{}", record.name);
        if let Some(n_args) = record.n_args {
            let args = vec!["_"; n_args].join(", ");
            text.extend(["(", &args, ")"]);
        }
        if !record.type_.is_empty() && record.type_.len() <= MOST_TYPE {
            text.extend([if record.kind == RecordKind::Field { ": " } else { " -> " }, record.type_]);
        }
        members.push((order, text));
    }
    // Stable: members of a kind stay in the order of the source.
    members.sort_by_key(|(order, _)| *order);
    let mut line = String::from(name);
    for (_, member) in members {
        if line.len() + member.len() < most_bytes {
            line.push_str(&member);
        }
    }
    if line.len() == name.len() {
        return String::new();
    }
    line.push('\n');
    line
}
