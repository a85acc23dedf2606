//! Reads a text that need not parse: records of its types, and what is in scope at a cursor.
//!
//! ```text
//! tokens up to the cursor's line → items, and a stack of the open braces → Scope
//! tokens after it                → items
//! ```
//!
//! The stack is only as good as the text before it: a missing bracket is a scope too many.

mod bindings;
mod items;

use super::check::{Scope, Variable};
use super::{Record, RecordKind, Records};
use crate::text::lex::{self, Token};

/// Most bytes that are read before the cursor's line.
const BEFORE: usize = 256 << 10;
/// Most bytes that are read after the cursor's line.
const AFTER: usize = 256 << 10;
/// Columns of indentation that are looked at: no hand indents further, and a file may be one line.
const MOST_INDENT: usize = 256;

/// The types of a text, and what is in scope between `before` and `after`. The cursor's line is in neither.
pub(super) fn read_around<'a>(before: &'a str, after: &'a str) -> (Records, Scope<'a>) {
    let mut from = before.ceil_char_boundary(before.len().saturating_sub(BEFORE));
    if from > 0 {
        from += before[from..].find('\n').map_or(0, |at| at + 1);
    }
    let mut reader = Reader::new(&before[from..]);
    reader.read();
    let mut scope = reader.scope();
    reader.text = &after[..after.floor_char_boundary(AFTER)];
    (reader.tokens, reader.at) = (lex::tokens(reader.text), 0);
    reader.read();
    scope.is_whole = from == 0 && reader.text.len() == after.len();
    (reader.found, scope)
}

/// Names that a line binds, also as arguments of a function or a closure.
pub(super) fn bound_by_line(line: &str) -> Vec<Variable<'_>> {
    let mut reader = Reader::new(line);
    reader.read();
    let Scope { mut variables, .. } = reader.scope();
    variables.append(&mut reader.next.variables);
    variables
}

/// The records of a text.
pub(super) fn records(text: &str) -> Records {
    let mut reader = Reader::new(text);
    reader.read();
    reader.found
}

/// An open brace.
struct Frame<'a> {
    /// The type of an `impl`, or a trait.
    owner: Option<&'a str>,
    /// Names of generic parameters.
    parameters: Vec<&'a str>,
    variables: Vec<Variable<'a>>,
    /// Indentation of the line that it was opened on, in columns.
    indent: usize,
}

impl Frame<'_> {
    fn of(owner: Option<&str>) -> Frame<'_> {
        Frame { owner, parameters: Vec::new(), variables: Vec::new(), indent: 0 }
    }
}

struct Reader<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    /// The current token.
    at: usize,
    found: Records,
    frames: Vec<Frame<'a>>,
    /// What belongs to the next brace: parameters and variables of a function, an `if let`, a `for`.
    next: Frame<'a>,
    /// Names that are imported from other crates, and whether from the standard library.
    imported: Vec<(&'a str, bool)>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            tokens: lex::tokens(text),
            at: 0,
            found: Records::default(),
            frames: vec![Frame::of(None)],
            next: Frame::of(None),
            imported: Vec::new(),
        }
    }

    fn scope(&self) -> Scope<'a> {
        Scope {
            self_type: self.frames.iter().rev().find_map(|frame| frame.owner),
            parameters: self.frames.iter().flat_map(|frame| frame.parameters.iter().copied()).collect(),
            variables: self.frames.iter().flat_map(|frame| frame.variables.iter().copied()).collect(),
            imported: self.imported.clone(),
            is_whole: true,
        }
    }

    fn peek(&self, ahead: usize) -> &'a str {
        self.tokens
            .get(self.at + ahead)
            .filter(|token| token.kind != lex::TokenKind::Literal)
            .map_or("", |token| token.text)
    }

    fn word(&self, ahead: usize) -> Option<&'a str> {
        self.tokens.get(self.at + ahead).filter(|token| token.kind == lex::TokenKind::Word).map(|token| token.text)
    }

    /// The text of some tokens.
    fn text_of(&self, from: usize, to: usize) -> &'a str {
        match (self.tokens.get(from), to.checked_sub(1).and_then(|last| self.tokens.get(last))) {
            (Some(first), Some(last)) if from < to => &self.text[first.at..last.end()],
            _ => "",
        }
    }

    fn add(&mut self, kind: RecordKind, owner: &str, name: &str, n_args: Option<usize>, type_: &str) {
        let type_ = if type_ == "Self" { owner } else { type_ };
        self.found.add(Record { kind, owner, name, n_args, type_ });
    }

    fn read(&mut self) {
        while self.at < self.tokens.len() {
            let before = self.at;
            match self.peek(0) {
                "{" => self.open(),
                "}" => self.close(),
                "use" => self.import(),
                "#" => self.attribute(),
                "struct" | "union" => self.structure(),
                "enum" => self.enumeration(),
                "trait" => self.trait_(),
                // Within a type `impl` follows a mark.
                "impl" if before == 0 || self.ends_item(before - 1) => self.impl_(),
                "fn" => self.function(),
                "const" | "type" => self.associated(),
                "let" => self.binding(),
                "for" => self.loop_(),
                "=" if self.peek(1) == ">" => self.arm(),
                "|" => self.closure(),
                "macro_rules" => self.macro_(3),
                _ if self.frames.len() == 1 && self.peek(1) == "!" => self.macro_(2),
                _ => {}
            }
            self.at = self.at.max(before + 1);
        }
    }

    /// Opens a brace at the current token.
    fn open(&mut self) {
        let frame = std::mem::replace(&mut self.next, Frame::of(None));
        let (indent, _) = self.line();
        self.frames.push(Frame { indent, ..frame });
    }

    /// A closing brace at the start of a line closes whatever was opened at its indentation or deeper, or nothing: its
    /// partner may not be written yet.
    fn close(&mut self) {
        let (indent, is_first) = self.line();
        if is_first {
            while self.frames.len() > 1 && self.frames.last().is_some_and(|frame| frame.indent >= indent) {
                self.frames.pop();
            }
        } else if self.frames.len() > 1 {
            self.frames.pop();
        }
    }

    /// The indentation of the current token's line, in columns, and whether the token is the first of it.
    fn line(&self) -> (usize, bool) {
        let at = self.tokens.get(self.at).map_or(self.text.len(), |token| token.at);
        let from = self.text.ceil_char_boundary(at.saturating_sub(MOST_INDENT));
        let line = &self.text[from..at];
        let line = line.rfind('\n').map_or(line, |newline| &line[newline + 1..]);
        (line.len() - line.trim_start().len(), line.trim().is_empty())
    }

    fn ends_item(&self, at: usize) -> bool {
        matches!(self.tokens[at].text, "}" | ";" | "]" | "{" | "unsafe" | "default")
    }

    /// Skips `open … close` from its first token to the one after it.
    fn skip(&mut self, open: &str, close: &str) {
        let mut depth = 0usize;
        while self.at < self.tokens.len() {
            let text = self.peek(0);
            // `->` and `=>` close nothing.
            let is_arrow = text == ">" && self.at > 0 && matches!(self.tokens[self.at - 1].text, "-" | "=");
            if text == open {
                depth += 1;
            } else if text == close && !is_arrow {
                depth = depth.saturating_sub(1);
            }
            self.at += 1;
            if depth == 0 || (open == "<" && matches!(text, "{" | "}" | ";")) {
                return;
            }
        }
    }

    /// Skips to the brace, parenthesis or semicolon where the head of an item ends.
    fn skip_to_body(&mut self) {
        while !matches!(self.peek(0), "{" | ";" | "}" | "(") && self.at < self.tokens.len() {
            self.at += 1;
        }
    }

    /// Skips to one of these tokens outside brackets.
    fn skip_to_end_of_type(&mut self, ends: &[&str]) {
        let mut depth = 0usize;
        while self.at < self.tokens.len() {
            let text = self.peek(0);
            if depth == 0 && ends.contains(&text) {
                return;
            }
            match text {
                "<" | "(" | "[" | "{" => depth += 1,
                ">" if self.at > 0 && self.tokens[self.at - 1].is("-") => {}
                ">" | ")" | "]" | "}" => match depth.checked_sub(1) {
                    Some(less) => depth = less,
                    None => return,
                },
                ";" if depth == 0 => return,
                _ => {}
            }
            self.at += 1;
        }
    }

    /// The names between `<`, the current token, and `>`; skips to the token after it.
    fn generics(&mut self) -> Vec<&'a str> {
        if self.peek(0) != "<" {
            return Vec::new();
        }
        let start = self.at;
        self.skip("<", ">");
        let within = &self.tokens[start + 1..self.at];
        let mut names = Vec::new();
        let mut depth = 0usize;
        for (i, token) in within.iter().enumerate() {
            let starts = i == 0 || (depth == 0 && within[i - 1].is(","));
            match token.text {
                "<" | "(" | "[" => depth += 1,
                ">" | ")" | "]" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if starts && token.kind == lex::TokenKind::Word {
                names.push(token.text);
            }
        }
        names
    }

    /// Opens the next brace and skips it, if there is one.
    fn enter(&mut self) {
        while !matches!(self.peek(0), "{" | ";" | "}") && self.at < self.tokens.len() {
            self.at += 1;
        }
        if self.peek(0) == "{" {
            self.open();
            self.at += 1;
        } else {
            self.next = Frame::of(None);
        }
    }
}
