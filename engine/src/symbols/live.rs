//! Records of a text that need not parse, and what is in scope at a place of it.
//!
//! ```text
//! tokens up to the cursor's line → items, and a stack of the braces that are open → Scope
//! tokens behind it               → items
//! ```
//!
//! What the stack says is as good as the text before it: a bracket too few is a scope too many.

use super::check::{Scope, Variable};
use super::{Kind, Record, Records};
use crate::text::syntax::lex::{self, Token};

/// Text on each side of the cursor's line that is read, in bytes.
const BEFORE: usize = 256 << 10;
const AFTER: usize = 256 << 10;
/// Columns of indentation, and bytes of what a variable is set to, that are looked at.
const MOST_INDENT: usize = 256;
const MOST_VALUE: usize = 400;

/// The types of a text, and what is in scope where `behind` follows `before`. The cursor's line is in neither.
pub(super) fn live<'a>(before: &'a str, behind: &'a str) -> (Records, Scope<'a>) {
    let mut from = before.ceil_char_boundary(before.len().saturating_sub(BEFORE));
    if from > 0 {
        from += before[from..].find('\n').map_or(0, |at| at + 1);
    }
    let mut reader = Reader::new(&before[from..]);
    reader.read();
    let mut scope = reader.scope();
    reader.text = &behind[..behind.floor_char_boundary(AFTER)];
    (reader.tokens, reader.at) = (lex::tokens(reader.text), 0);
    reader.read();
    scope.is_whole = from == 0 && reader.text.len() == behind.len();
    (reader.found, scope)
}

/// Names that a line binds, and those of its arguments.
pub(super) fn bound(line: &str) -> Vec<Variable<'_>> {
    let mut reader = Reader::new(line);
    reader.read();
    let Scope { mut variables, .. } = reader.scope();
    variables.append(&mut reader.next.variables);
    variables
}

/// The types of a text.
pub(super) fn records(text: &str) -> Records {
    let mut reader = Reader::new(text);
    reader.read();
    reader.found
}

/// A brace that is open.
struct Frame<'a> {
    /// Of an `impl` or a `trait`.
    owner: Option<&'a str>,
    /// Names of generic parameters, which stand for any type.
    parameters: Vec<&'a str>,
    variables: Vec<Variable<'a>>,
    /// Columns before the line that it was opened on.
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
    at: usize,
    found: Records,
    frames: Vec<Frame<'a>>,
    /// What belongs to the next brace: parameters and variables of a function, an `if let`, a `for`.
    next: Frame<'a>,
    /// Names that come from other crates, and whether from the standard library.
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
        self.tokens.get(self.at + ahead).filter(|token| token.kind != lex::Kind::Literal).map_or("", |token| token.text)
    }

    fn word(&self, ahead: usize) -> Option<&'a str> {
        self.tokens.get(self.at + ahead).filter(|token| token.kind == lex::Kind::Word).map(|token| token.text)
    }

    /// The text of some tokens.
    fn text_of(&self, from: usize, to: usize) -> &'a str {
        match (self.tokens.get(from), to.checked_sub(1).and_then(|last| self.tokens.get(last))) {
            (Some(first), Some(last)) if from < to => &self.text[first.at..last.end()],
            _ => "",
        }
    }

    fn add(&mut self, kind: Kind, owner: &str, name: &str, n_args: Option<usize>, type_: &str) {
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
                // In types `impl` stands behind a mark.
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

    /// Opens the brace at which this stands.
    fn open(&mut self) {
        let frame = std::mem::replace(&mut self.next, Frame::of(None));
        let (indent, _) = self.line();
        self.frames.push(Frame { indent, ..frame });
    }

    /// A brace that begins its line closes what was opened as far to the right, or nothing: one of the two that belong
    /// together may not be written yet.
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

    /// Columns before the line of the token at which this stands, and whether the token is its first.
    fn line(&self) -> (usize, bool) {
        let at = self.tokens.get(self.at).map_or(self.text.len(), |token| token.at);
        // No hand indents further; a file may be one line.
        let from = self.text.ceil_char_boundary(at.saturating_sub(MOST_INDENT));
        let line = &self.text[from..at];
        let line = line.rfind('\n').map_or(line, |newline| &line[newline + 1..]);
        (line.len() - line.trim_start().len(), line.trim().is_empty())
    }

    fn import(&mut self) {
        let start = self.at;
        while self.at < self.tokens.len() && self.peek(0) != ";" {
            self.at += 1;
        }
        let words = self.tokens[start + 1..self.at].iter().filter(|token| token.kind == lex::Kind::Word);
        let mut words = words.map(|token| token.text);
        let root = words.next().unwrap_or_default();
        if !matches!(root, "crate" | "self" | "super") {
            let is_std = matches!(root, "std" | "core" | "alloc");
            let names = words.filter(|name| name.starts_with(char::is_uppercase));
            self.imported.extend(names.map(|name| (name, is_std)));
        }
    }

    fn ends_item(&self, at: usize) -> bool {
        matches!(self.tokens[at].text, "}" | ";" | "]" | "{" | "unsafe" | "default")
    }

    /// Passes over `open … close`, at whose first token this stands, and stands behind it.
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

    /// Derives that are not known open the type that follows; which one is read ahead.
    fn attribute(&mut self) {
        if self.peek(1) != "[" {
            return;
        }
        let name = self.peek(2);
        let start = self.at + 2;
        self.at += 1;
        self.skip("[", "]");
        let is_known = match name {
            "derive" => self.tokens[start + 1..self.at]
                .iter()
                .filter(|token| token.kind == lex::Kind::Word)
                .all(|token| super::extract::is_known_derive(token.text)),
            name => super::extract::is_harmless(name),
        };
        if is_known {
            return;
        }
        let ahead = &self.tokens[self.at..self.tokens.len().min(self.at + 48)];
        let at = ahead.iter().position(|token| matches!(token.text, "struct" | "enum" | "union" | "impl" | "fn" | "}"));
        let Some(at) = at else { return };
        match ahead[at].text {
            "fn" | "}" => {
                if let Some(owner) = self.frames.last().and_then(|frame| frame.owner) {
                    self.add(Kind::Open, owner, "", None, "");
                }
            }
            _ => {
                let name = ahead[at + 1..].iter().find(|token| token.text.starts_with(char::is_uppercase));
                if let Some(name) = name.map(|token| token.text) {
                    self.add(Kind::Open, name, "", None, "");
                }
            }
        }
    }

    /// Names between `<` and `>`, at which this stands, and stands behind it.
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
            let begins = i == 0 || (depth == 0 && within[i - 1].is(","));
            match token.text {
                "<" | "(" | "[" => depth += 1,
                ">" | ")" | "]" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if begins && token.kind == lex::Kind::Word {
                names.push(token.text);
            }
        }
        names
    }

    fn structure(&mut self) {
        let Some(owner) = self.word(1) else { return };
        if !owner.starts_with(char::is_uppercase) {
            return;
        }
        self.type_(owner, |reader| {
            if reader.peek(0) == "pub" {
                reader.at += 1;
                if reader.peek(0) == "(" {
                    reader.skip("(", ")");
                }
            }
            let name = reader.word(0).filter(|_| reader.peek(1) == ":")?;
            reader.at += 2;
            let start = reader.at;
            reader.skip_to_end_of_type(&[",", "}"]);
            let type_ = reader.text_of(start, reader.at);
            reader.add(Kind::Field, owner, name, None, type_);
            Some(())
        });
    }

    fn enumeration(&mut self) {
        let Some(owner) = self.word(1) else { return };
        self.type_(owner, |reader| {
            let name = reader.word(0)?;
            reader.add(Kind::Variant, owner, name, None, "");
            reader.at += 1;
            match reader.peek(0) {
                "(" => reader.skip("(", ")"),
                "{" => reader.skip("{", "}"),
                _ => {}
            }
            reader.skip_to_end_of_type(&[",", "}"]);
            Some(())
        });
    }

    /// A type, at whose keyword this stands, and what it has in braces, as `member` reads each up to its comma; `None` where
    /// there is none.
    fn type_(&mut self, owner: &'a str, member: impl Fn(&mut Self) -> Option<()>) {
        self.at += 2;
        self.generics();
        self.add(Kind::Type, owner, "", None, "");
        self.skip_to_body();
        if self.peek(0) != "{" {
            return;
        }
        self.at += 1;
        while self.at < self.tokens.len() && self.peek(0) != "}" {
            while self.peek(0) == "#" && self.peek(1) == "[" {
                self.at += 1;
                self.skip("[", "]");
            }
            if member(self).is_none() {
                break;
            }
            if self.peek(0) == "," {
                self.at += 1;
            }
        }
        // Where a member is being written, what follows it is not known.
        if self.peek(0) == "}" {
            self.at += 1;
        } else {
            self.add(Kind::Open, owner, "", None, "");
            self.frames.push(Frame::of(None));
        }
    }

    /// On to the brace, parenthesis or semicolon where the head of an item ends.
    fn skip_to_body(&mut self) {
        while !matches!(self.peek(0), "{" | ";" | "}" | "(") && self.at < self.tokens.len() {
            self.at += 1;
        }
    }

    /// On to one of these outside brackets.
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

    fn trait_(&mut self) {
        let Some(owner) = self.word(1) else { return };
        self.at += 2;
        let parameters = self.generics();
        self.add(Kind::Trait, owner, "", None, "");
        self.skip_to_body();
        self.next = Frame { parameters, ..Frame::of(Some(owner)) };
        self.enter();
    }

    fn impl_(&mut self) {
        self.at += 1;
        let parameters = self.generics();
        let start = self.at;
        while !matches!(self.peek(0), "{" | ";" | "}" | "where") && self.at < self.tokens.len() {
            self.at += 1;
        }
        let head = &self.tokens[start..self.at];
        // Not that of `for<'a>`.
        let for_at =
            (0..head.len()).find(|i| head[*i].is("for") && head.get(i + 1).is_none_or(|behind| !behind.is("<")));
        let (trait_end, type_start) = match for_at {
            Some(at) => (Some(start + at), start + at + 1),
            None => (None, start),
        };
        let owner = super::head(self.text_of(type_start, self.at));
        let is_type = !owner.is_empty() && !parameters.contains(&owner);
        if let Some(end) = trait_end.filter(|_| is_type) {
            let name = super::extract::trait_name(self.text_of(start, end).trim_start_matches('!'));
            self.add(Kind::Implements, owner, name, None, "");
        }
        self.skip_to_body();
        self.next = Frame { parameters, ..Frame::of(is_type.then_some(owner)) };
        self.enter();
    }

    /// Through the brace, if there is one.
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

    fn function(&mut self) {
        let Some(name) = self.word(1) else { return };
        let is_async = self.at > 0 && self.tokens[self.at - 1].is("async");
        self.at += 2;
        let parameters = self.generics();
        if self.peek(0) != "(" {
            return;
        }
        self.at += 1;
        // Some that not every configuration has cannot be counted.
        let (mut has_self, mut n_args, mut is_certain) = (false, 0, true);
        let mut variables = Vec::new();
        while self.at < self.tokens.len() && self.peek(0) != ")" {
            let start = self.at;
            self.skip_to_end_of_type(&[",", ")"]);
            let tokens = &self.tokens[start..self.at];
            let colon = (0..tokens.len()).find(|i| tokens[*i].is(":"));
            let pattern = &tokens[..colon.unwrap_or(tokens.len())];
            if pattern.iter().any(|token| token.is("self")) {
                has_self = true;
            } else if let Some(colon) = colon {
                n_args += 1;
                is_certain &= !pattern.iter().any(|token| token.is("#"));
                let type_ = self.text_of(start + colon + 1, self.at);
                self.bind(start, start + colon, super::head(type_), &mut variables);
            }
            match self.peek(0) {
                "," => self.at += 1,
                ")" => {}
                _ => break,
            }
        }
        if self.peek(0) == ")" {
            self.at += 1;
        }
        let mut returned = "";
        if self.peek(0) == "-" && self.peek(1) == ">" {
            let start = self.at + 2;
            self.at += 2;
            self.skip_to_end_of_type(&["{", ";", "where"]);
            returned = self.text_of(start, self.at);
        }
        if is_async || parameters.contains(&super::head(returned)) {
            returned = "";
        }
        if let Some(owner) = self.frames.last().and_then(|frame| frame.owner) {
            let kind = if has_self { Kind::Method } else { Kind::Associated };
            self.add(kind, owner, name, is_certain.then_some(n_args), returned);
        }
        self.skip_to_body();
        self.next = Frame { parameters, variables, ..Frame::of(None) };
        self.enter();
    }

    /// A constant or a type of an `impl` or a trait.
    fn associated(&mut self) {
        let Some(name) = self.word(1).filter(|_| matches!(self.peek(2), ":" | "=" | "<" | ";")) else { return };
        if let Some(owner) = self.frames.last().and_then(|frame| frame.owner) {
            self.add(Kind::Associated, owner, name, None, "");
        }
        self.at += 2;
    }

    /// Names that a pattern binds; only one that is a name alone has the type.
    fn bind(&self, from: usize, to: usize, type_: &'a str, variables: &mut Vec<Variable<'a>>) {
        let words = self.tokens[from..to].iter().filter(|token| token.kind == lex::Kind::Word);
        let names =
            words.map(|token| token.text).filter(|text| !matches!(*text, "mut" | "ref" | "box" | "Some" | "Ok"));
        let names: Vec<&str> = names.filter(|name| !name.starts_with(char::is_uppercase)).collect();
        let is_alone = self.tokens[from..to].iter().all(|token| token.kind == lex::Kind::Word);
        let type_ = if is_alone && names.len() == 1 { type_ } else { "" };
        variables.extend(names.into_iter().map(|name| Variable { name, type_, value: "" }));
    }

    /// `let`, `if let` and `while let`.
    fn binding(&mut self) {
        let start = self.at + 1;
        self.at = start;
        self.skip_to_end_of_type(&[":", "=", ";", "else"]);
        // Of a path in a pattern.
        while self.peek(0) == ":" && self.peek(1) == ":" {
            self.at += 2;
            self.skip_to_end_of_type(&[":", "=", ";", "else"]);
        }
        let pattern_end = self.at;
        let mut type_ = "";
        if self.peek(0) == ":" {
            let from = self.at + 1;
            self.at = from;
            self.skip_to_end_of_type(&["=", ";"]);
            type_ = super::head(self.text_of(from, self.at));
        }
        let mut variables = Vec::new();
        self.bind(start, pattern_end, type_, &mut variables);
        if self.peek(0) == "=" && type_.is_empty() {
            let from = self.tokens.get(self.at + 1).map_or(self.text.len(), |token| token.at);
            let rest = &self.text[from..];
            let rest = &rest[..rest.floor_char_boundary(MOST_VALUE)];
            let value = &rest[..rest.find([';', '\n']).unwrap_or(rest.len())];
            let ends_there = rest[value.len()..].starts_with(';');
            if let [variable] = &mut variables[..]
                && pattern_end <= start + 2
                && ends_there
            {
                variable.value = value;
            }
        }
        let is_condition = start > 1 && matches!(self.tokens[start - 2].text, "if" | "while" | "&");
        let frame = if is_condition { &mut self.next } else { self.frames.last_mut().expect("the file's is there") };
        frame.variables.append(&mut variables);
    }

    fn loop_(&mut self) {
        let start = self.at + 1;
        let ahead = &self.tokens[start..self.tokens.len().min(start + 24)];
        if ahead.first().is_some_and(|token| token.is("<")) {
            return;
        }
        let Some(n) = ahead.iter().position(|token| token.is("in")) else { return };
        let mut variables = Vec::new();
        self.bind(start, start + n, "", &mut variables);
        self.next.variables.append(&mut variables);
        self.at = start + n;
    }

    /// The names of a pattern before `=>`, which may be in scope until the braces around the arms close.
    fn arm(&mut self) {
        let from = self.at.saturating_sub(24);
        let begin = self.tokens[from..self.at].iter().rposition(|token| matches!(token.text, "{" | "}" | ";"));
        let begin = begin.map_or(from, |at| from + at + 1);
        // The pattern may have braces of its own.
        let begin = if begin == self.at { self.at.saturating_sub(12) } else { begin };
        let mut variables = Vec::new();
        self.bind(begin, self.at, "", &mut variables);
        self.frames.last_mut().expect("the file's is there").variables.append(&mut variables);
    }

    /// Names between bars. An operator has a value on its left.
    fn closure(&mut self) {
        let is_operator = self.at > 0 && {
            let last = self.tokens[self.at - 1];
            last.kind == lex::Kind::Literal
                || matches!(last.text, ")" | "]" | "|")
                || (last.kind == lex::Kind::Word && !matches!(last.text, "move" | "return"))
        };
        if is_operator {
            return;
        }
        let start = self.at + 1;
        let ahead = &self.tokens[start..self.tokens.len().min(start + 32)];
        let Some(n) = ahead.iter().position(|token| token.is("|")) else { return };
        let mut variables = Vec::new();
        let mut from = start;
        for at in start..=start + n {
            if at == start + n || self.tokens[at].is(",") {
                let colon = (from..at).find(|i| self.tokens[*i].is(":"));
                let type_ = colon.map_or("", |colon| super::head(self.text_of(colon + 1, at)));
                self.bind(from, colon.unwrap_or(at), type_, &mut variables);
                from = at + 1;
            }
        }
        self.frames.last_mut().expect("the file's is there").variables.append(&mut variables);
        self.at = start + n;
    }

    /// One that stands where items do may write anything for the types that it is given, or names itself.
    fn macro_(&mut self, n_before: usize) {
        let start = self.at;
        self.at += n_before;
        match self.peek(0) {
            "{" => self.skip("{", "}"),
            "(" => self.skip("(", ")"),
            "[" => self.skip("[", "]"),
            _ => return,
        }
        let within = &self.tokens[start..self.at];
        let names: Vec<&str> = within
            .iter()
            .filter(|token| token.kind == lex::Kind::Word && token.text.starts_with(char::is_uppercase))
            .map(|token| token.text)
            .collect();
        names.into_iter().for_each(|name| self.add(Kind::Open, name, "", None, ""));
    }
}
