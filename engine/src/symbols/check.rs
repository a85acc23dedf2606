//! Whether the members that a line names exist.

use std::ops::Range;

use super::standard::{is_plain_member, is_plain_trait};
use super::{Record, RecordKind, Symbols, head};
use crate::text::lex::{self, Token};
use crate::tier::{N_TIERS, Tier};

/// Most variables that are followed from one to the next, each set to the value of another.
const MOST_STEPS: usize = 6;
/// Longer lines are not checked.
const MOST_LINE_BYTES: usize = 400;

/// A name that is in scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Variable<'a> {
    pub(super) name: &'a str,
    /// The head of its type; empty if it is not written.
    pub(super) type_: &'a str,
    /// The text of what it is first set to; empty if that is not simple.
    pub(super) value: &'a str,
}

/// What is in scope at a cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope<'a> {
    /// The type of the `impl` or trait around the cursor.
    pub(super) self_type: Option<&'a str>,
    /// Names of generic parameters.
    pub(super) parameters: Vec<&'a str>,
    /// Variables, those of the innermost block last.
    pub(super) variables: Vec<Variable<'a>>,
    /// Names that are imported from other crates, and whether from the standard library.
    pub(super) imported: Vec<(&'a str, bool)>,
    /// Whether all of the file was read.
    pub(super) is_whole: bool,
}

/// How many members a line names whose receiver's type is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberCounts {
    /// Members that the receiver's type has.
    pub n_existing: u16,
    /// Members that no type of the receiver's name has.
    pub n_missing: u16,
    /// Calls with more or fewer arguments than the function takes.
    pub n_wrong_calls: u16,
}

/// Looks up members at a cursor, in tables and the scope.
#[derive(Debug)]
pub(super) struct MemberChecker<'a> {
    pub(super) tables: &'a [Symbols; N_TIERS],
    pub(super) path: &'a str,
    pub(super) scope: &'a Scope<'a>,
    /// Variables that the line itself binds.
    pub(super) bound: &'a [Variable<'a>],
}

enum Member<'a> {
    There { type_: &'a str, n_args: Option<usize>, is_method: bool },
    Missing,
    Unknown,
}

impl<'a> MemberChecker<'a> {
    /// Counts the members of `line` that end after its first `n_typed` bytes.
    pub(super) fn members(&self, line: &'a str, n_typed: usize) -> MemberCounts {
        let mut found = MemberCounts::default();
        if line.len() > MOST_LINE_BYTES {
            return found;
        }
        let tokens = lex::tokens(line);
        // The arguments of calls within a chain are read after the chain.
        let mut waiting: Vec<Range<usize>> = std::iter::once(0..tokens.len()).collect();
        while let Some(Range { start, end }) = waiting.pop() {
            let mut at = start;
            while at < end {
                let starts_chain =
                    at.checked_sub(1).is_none_or(|before| !tokens[before].is(".") && !tokens[before].is(":"));
                at = if starts_chain && tokens[at].kind == lex::TokenKind::Word {
                    self.chain(&tokens, at, n_typed, &mut found, &mut waiting, 0).1
                } else {
                    at + 1
                };
            }
        }
        found
    }

    /// Follows `first.a.b(…)` or `First::a(…).b` from its first token; returns the type of the chain, empty if it is
    /// unknown, and where it ends. Arguments that it skipped are added to `waiting`.
    fn chain(
        &self,
        tokens: &[Token<'a>],
        start: usize,
        n_typed: usize,
        found: &mut MemberCounts,
        waiting: &mut Vec<Range<usize>>,
        depth: usize,
    ) -> (&'a str, usize) {
        let first = tokens[start].text;
        let is = |at: usize, mark: &str| tokens.get(at).is_some_and(|token| token.is(mark));
        let word =
            |at: usize| tokens.get(at).filter(|token| token.kind == lex::TokenKind::Word).map(|token| token.text);
        let mut at = start + 1;
        let mut by_path = false;
        let mut type_ = if is(at, ":") && is(at + 1, ":") {
            by_path = true;
            if first == "Self" { self.scope.self_type.unwrap_or_default() } else { first }
        } else if first == "self" {
            self.scope.self_type.unwrap_or_default()
        } else if is(at, ".") || depth > 0 {
            self.variable(first, depth)
        } else {
            ""
        };
        if by_path && is(at, ":") && word(at + 2).is_none() {
            return ("", at);
        }
        loop {
            let name_at = if by_path { at + 2 } else { at + 1 };
            if !(by_path || is(at, ".")) {
                return (type_, at);
            }
            let Some(name) = word(name_at) else { return ("", at + 1) };
            if type_.is_empty() || !type_.starts_with(char::is_uppercase) {
                return ("", name_at + 1);
            }
            let is_new = tokens[name_at].end() > n_typed;
            let calls = is(name_at + 1, "(");
            match self.member(type_, name, by_path, calls) {
                Member::There { type_: next, n_args, is_method } => {
                    found.n_existing += u16::from(is_new);
                    type_ = head(next);
                    at = name_at + 1;
                    if calls {
                        let (n_given, end) = arguments(tokens, at);
                        let wanted = n_args.map(|n| n + usize::from(by_path && is_method));
                        if let (Some(n), Some(wanted)) = (n_given, wanted)
                            && tokens[end - 1].end() > n_typed
                        {
                            found.n_wrong_calls += u16::from(n != wanted);
                        }
                        waiting.push(at + 1..end);
                        at = end;
                    }
                }
                Member::Missing => {
                    found.n_missing += u16::from(is_new);
                    return ("", name_at + 1);
                }
                Member::Unknown => return ("", name_at + 1),
            }
            by_path = false;
        }
    }

    /// The type of a variable; empty if it is unknown.
    fn variable(&self, name: &str, depth: usize) -> &'a str {
        // It is not known whether the line binds a name before it uses it, so its own bindings are left alone.
        if depth == 0 && self.bound.iter().any(|variable| variable.name == name) {
            return "";
        }
        let Some(variable) = self.scope.variables.iter().rev().find(|variable| variable.name == name) else {
            return "";
        };
        if variable.type_ == "Self" {
            return self.scope.self_type.unwrap_or_default();
        }
        if !variable.type_.is_empty() || depth == MOST_STEPS {
            return variable.type_;
        }
        let value = variable.value.trim_start_matches(['&', ' ']);
        let value = value.strip_prefix("mut ").unwrap_or(value);
        let tokens = lex::tokens(value);
        // In `let a = a.b()` the second `a` is another variable.
        if tokens.first().is_none_or(|token| token.kind != lex::TokenKind::Word || token.text == name) {
            return "";
        }
        if tokens.get(1).is_some_and(|token| token.is("{")) {
            return if tokens[0].is("Self") { self.scope.self_type.unwrap_or_default() } else { tokens[0].text };
        }
        let (type_, end) = self.chain(&tokens, 0, usize::MAX, &mut MemberCounts::default(), &mut Vec::new(), depth + 1);
        if end == tokens.len() { type_ } else { "" }
    }

    fn member(&self, owner: &'a str, name: &str, by_path: bool, calls: bool) -> Member<'a> {
        if owner.len() == 1 || self.scope.parameters.contains(&owner) {
            return Member::Unknown;
        }
        let (mut is_type, mut is_open) = (false, false);
        let mut found: Vec<Record<'a>> = Vec::new();
        // A local type of the same name says nothing of an imported one; of an unknown crate's type nothing is known.
        let tables = match self.scope.imported.iter().find(|(name, _)| *name == owner) {
            Some((_, true)) => &self.tables[Tier::Std as usize..],
            Some((_, false)) => &self.tables[Tier::Dependencies as usize..Tier::Std as usize],
            None => &self.tables[..],
        };
        for record in tables.iter().flat_map(|table| table.of_owner(owner, self.path)) {
            match record.kind {
                RecordKind::Type => is_type = true,
                RecordKind::Open | RecordKind::Trait => is_open = true,
                RecordKind::Implements => is_open |= !self.is_plain(record.name),
                _ if record.name == name => found.push(record),
                _ => {}
            }
        }
        // A field and a method may share a name.
        let is_meant = |record: &Record<'a>| (record.kind == RecordKind::Field) != calls;
        if !by_path && found.iter().any(is_meant) {
            found.retain(is_meant);
        }
        // Of several members of one name only what they agree in is known.
        if let [first, others @ ..] = &found[..] {
            let n_args = first.n_args.filter(|_| others.iter().all(|other| other.n_args == first.n_args));
            let type_ = if others.iter().all(|other| other.type_ == first.type_) { first.type_ } else { "" };
            return Member::There { type_, n_args, is_method: first.kind == RecordKind::Method };
        }
        let is_of_trait = || self.tables.iter().any(|table| table.is_of_trait(name)) || is_plain_member(name);
        if is_type
            && !is_open
            && self.scope.is_whole
            && name != "await"
            && !is_of_trait()
            && (!by_path || name != "Self")
        {
            Member::Missing
        } else {
            Member::Unknown
        }
    }

    /// Whether all members that a trait gives are known.
    fn is_plain(&self, name: &str) -> bool {
        if is_plain_trait(name) {
            return true;
        }
        let name = name.rsplit("::").next().unwrap_or_default();
        let has = |kind: RecordKind| {
            self.tables.iter().flat_map(|table| table.of_owner(name, self.path)).any(|record| record.kind == kind)
        };
        has(RecordKind::Trait) && !has(RecordKind::Open)
    }
}

/// The number of arguments between the parenthesis at `open` and its partner, and where they end; `None` where they do
/// not end within the line, or contain closures, whose parameters have commas too.
fn arguments(tokens: &[Token<'_>], open: usize) -> (Option<usize>, usize) {
    let (mut depth, mut n, mut is_empty, mut is_plain) = (0usize, 1usize, true, true);
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" if token.kind == lex::TokenKind::Mark => depth += 1,
            ")" | "]" | "}" if token.kind == lex::TokenKind::Mark => {
                depth -= 1;
                if depth == 0 {
                    // `f(a, )` has one.
                    n -= usize::from(!is_empty && tokens[at - 1].is(","));
                    return (is_plain.then_some(if is_empty { 0 } else { n }), at + 1);
                }
            }
            "," if depth == 1 => n += 1,
            // `f::<A, B>` and `a < b` look alike.
            "|" | "<" => is_plain = false,
            _ => {}
        }
        is_empty &= at == open;
    }
    (None, tokens.len())
}
