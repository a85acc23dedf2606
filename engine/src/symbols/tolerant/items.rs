//! Items: types, traits, `impl`s and functions become records; attributes and macros may open a type.

use super::{Frame, Reader};
use crate::symbols::standard::{is_harmless, is_known_derive, trait_name};
use crate::symbols::{RecordKind, head};
use crate::text::lex;

impl<'a> Reader<'a> {
    /// Unknown attributes and derives open the type that follows, which is looked up ahead.
    pub(super) fn attribute(&mut self) {
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
                .filter(|token| token.kind == lex::TokenKind::Word)
                .all(|token| is_known_derive(token.text)),
            name => is_harmless(name),
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
                    self.add(RecordKind::Open, owner, "", None, "");
                }
            }
            _ => {
                let name = ahead[at + 1..].iter().find(|token| token.text.starts_with(char::is_uppercase));
                if let Some(name) = name.map(|token| token.text) {
                    self.add(RecordKind::Open, name, "", None, "");
                }
            }
        }
    }

    pub(super) fn structure(&mut self) {
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
            reader.add(RecordKind::Field, owner, name, None, type_);
            Some(())
        });
    }

    pub(super) fn enumeration(&mut self) {
        let Some(owner) = self.word(1) else { return };
        self.type_(owner, |reader| {
            let name = reader.word(0)?;
            reader.add(RecordKind::Variant, owner, name, None, "");
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

    /// A type, from its keyword on, and what it has in braces: `member` reads one up to its comma and gives `None`
    /// where there is none.
    fn type_(&mut self, owner: &'a str, member: impl Fn(&mut Self) -> Option<()>) {
        self.at += 2;
        self.generics();
        self.add(RecordKind::Type, owner, "", None, "");
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
            self.add(RecordKind::Open, owner, "", None, "");
            self.frames.push(Frame::of(None));
        }
    }

    pub(super) fn trait_(&mut self) {
        let Some(owner) = self.word(1) else { return };
        self.at += 2;
        let parameters = self.generics();
        self.add(RecordKind::Trait, owner, "", None, "");
        self.skip_to_body();
        self.next = Frame { parameters, ..Frame::of(Some(owner)) };
        self.enter();
    }

    pub(super) fn impl_(&mut self) {
        self.at += 1;
        let parameters = self.generics();
        let start = self.at;
        while !matches!(self.peek(0), "{" | ";" | "}" | "where") && self.at < self.tokens.len() {
            self.at += 1;
        }
        let header = &self.tokens[start..self.at];
        // Not the one of `for<'a>`.
        let for_at =
            (0..header.len()).find(|i| header[*i].is("for") && header.get(i + 1).is_none_or(|next| !next.is("<")));
        let (trait_end, type_start) = match for_at {
            Some(at) => (Some(start + at), start + at + 1),
            None => (None, start),
        };
        let owner = head(self.text_of(type_start, self.at));
        let is_type = !owner.is_empty() && !parameters.contains(&owner);
        if let Some(end) = trait_end.filter(|_| is_type) {
            let name = trait_name(self.text_of(start, end).trim_start_matches('!'));
            self.add(RecordKind::Implements, owner, name, None, "");
        }
        self.skip_to_body();
        self.next = Frame { parameters, ..Frame::of(is_type.then_some(owner)) };
        self.enter();
    }

    pub(super) fn function(&mut self) {
        let Some(name) = self.word(1) else { return };
        let is_async = self.at > 0 && self.tokens[self.at - 1].is("async");
        self.at += 2;
        let parameters = self.generics();
        if self.peek(0) != "(" {
            return;
        }
        self.at += 1;
        // Arguments under a `cfg` cannot be counted.
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
                self.bind(start, start + colon, head(type_), &mut variables);
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
        if is_async || parameters.contains(&head(returned)) {
            returned = "";
        }
        if let Some(owner) = self.frames.last().and_then(|frame| frame.owner) {
            let kind = if has_self { RecordKind::Method } else { RecordKind::Associated };
            self.add(kind, owner, name, is_certain.then_some(n_args), returned);
        }
        self.skip_to_body();
        self.next = Frame { parameters, variables, ..Frame::of(None) };
        self.enter();
    }

    /// A constant or a type of an `impl` or a trait.
    pub(super) fn associated(&mut self) {
        let Some(name) = self.word(1).filter(|_| matches!(self.peek(2), ":" | "=" | "<" | ";")) else { return };
        if let Some(owner) = self.frames.last().and_then(|frame| frame.owner) {
            self.add(RecordKind::Associated, owner, name, None, "");
        }
        self.at += 2;
    }

    /// A macro among items may add anything to the types that it is given or that it names.
    pub(super) fn macro_(&mut self, n_before: usize) {
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
            .filter(|token| token.kind == lex::TokenKind::Word && token.text.starts_with(char::is_uppercase))
            .map(|token| token.text)
            .collect();
        names.into_iter().for_each(|name| self.add(RecordKind::Open, name, "", None, ""));
    }
}
