//! Names that come into scope: imports, `let`, `for`, match arms and the parameters of closures.

use super::Reader;
use crate::symbols::check::Variable;
use crate::symbols::head;
use crate::text::lex;

/// Bytes of the value of a variable that are looked at.
const MOST_VALUE: usize = 400;

impl<'a> Reader<'a> {
    pub(super) fn import(&mut self) {
        let start = self.at;
        while self.at < self.tokens.len() && self.peek(0) != ";" {
            self.at += 1;
        }
        let words = self.tokens[start + 1..self.at].iter().filter(|token| token.kind == lex::TokenKind::Word);
        let mut words = words.map(|token| token.text);
        let root = words.next().unwrap_or_default();
        if !matches!(root, "crate" | "self" | "super") {
            let is_std = matches!(root, "std" | "core" | "alloc");
            let names = words.filter(|name| name.starts_with(char::is_uppercase));
            self.imported.extend(names.map(|name| (name, is_std)));
        }
    }

    /// Adds the names that a pattern binds. Only a pattern that is a single name gets the type.
    pub(super) fn bind(&self, from: usize, to: usize, type_: &'a str, variables: &mut Vec<Variable<'a>>) {
        let words = self.tokens[from..to].iter().filter(|token| token.kind == lex::TokenKind::Word);
        let names =
            words.map(|token| token.text).filter(|text| !matches!(*text, "mut" | "ref" | "box" | "Some" | "Ok"));
        let names: Vec<&str> = names.filter(|name| !name.starts_with(char::is_uppercase)).collect();
        let is_alone = self.tokens[from..to].iter().all(|token| token.kind == lex::TokenKind::Word);
        let type_ = if is_alone && names.len() == 1 { type_ } else { "" };
        variables.extend(names.into_iter().map(|name| Variable { name, type_, value: "" }));
    }

    /// `let`, `if let` and `while let`.
    pub(super) fn binding(&mut self) {
        let start = self.at + 1;
        self.at = start;
        self.skip_to_end_of_type(&[":", "=", ";", "else"]);
        // The `::` of a path in the pattern.
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
            type_ = head(self.text_of(from, self.at));
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

    pub(super) fn loop_(&mut self) {
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

    /// The names of the pattern before `=>`. They count until the braces around the arms close.
    pub(super) fn arm(&mut self) {
        let from = self.at.saturating_sub(24);
        let start = self.tokens[from..self.at].iter().rposition(|token| matches!(token.text, "{" | "}" | ";"));
        let start = start.map_or(from, |at| from + at + 1);
        // The pattern may have braces of its own.
        let start = if start == self.at { self.at.saturating_sub(12) } else { start };
        let mut variables = Vec::new();
        self.bind(start, self.at, "", &mut variables);
        self.frames.last_mut().expect("the file's is there").variables.append(&mut variables);
    }

    /// The parameters between the bars of a closure; an operator has a value on its left.
    pub(super) fn closure(&mut self) {
        let is_operator = self.at > 0 && {
            let last = self.tokens[self.at - 1];
            last.kind == lex::TokenKind::Literal
                || matches!(last.text, ")" | "]" | "|")
                || (last.kind == lex::TokenKind::Word && !matches!(last.text, "move" | "return"))
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
                let type_ = colon.map_or("", |colon| head(self.text_of(colon + 1, at)));
                self.bind(from, colon.unwrap_or(at), type_, &mut variables);
                from = at + 1;
            }
        }
        self.frames.last_mut().expect("the file's is there").variables.append(&mut variables);
        self.at = start + n;
    }
}
