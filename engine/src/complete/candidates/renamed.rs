//! Renamed clones: lines that are elsewhere in the file under other names.
//!
//! ```text
//! impl From<io::Error> for Error {            impl From<fmt::Error> for Error {         io → fmt, Io → Fmt
//!     fn from(io: io::Error) -> Self {            fn from(fmt: fmt::Error) -> Self {
//!         Self::Io(io)                                ▮                                 Self::Fmt(fmt)
//! ```
//!
//! Code repeats itself with names exchanged, which a search for equal text does not see. Lines are compared by their
//! shape: keywords and punctuation as they are, names and literals as slots. Where lines around the cursor have the
//! shape of others, what is in the slots tells which name corresponds to which, and the line there is written under
//! these names: whole names first, then words of names (`io` is in `read_io`, `IoError` and `IO`).

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Candidate, Cursor};
use crate::complete::line::is_keyword;
use crate::prompt::Prompt;
use crate::text::lex;

/// Text on each side of the cursor that is read, in bytes.
const BEFORE: usize = 128 << 10;
const AFTER: usize = 64 << 10;
/// Lines before and after that are compared.
const MOST_BEFORE: usize = 8;
const MOST_AFTER: usize = 4;
/// Lexemes of the cursor's line that are enough where the line before it has another shape.
const ENOUGH_TYPED: usize = 3;
/// Different texts, at most, and occurrences that are looked at for them.
const MOST: usize = 6;
const MOST_OCCURRENCES: usize = 48;

/// A line as it would be written here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RenamedClone {
    /// From the cursor on.
    text: String,
    matching: CloneMatch,
}

/// How well its occurrence agrees with the cursor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::complete) struct CloneMatch {
    /// Lines of the same shape before and after it.
    pub(in crate::complete) n_before: u32,
    pub(in crate::complete) n_after: u32,
    /// Renaming and literals that differ from those at its occurrence.
    pub(in crate::complete) n_renamed: u32,
    /// Names there that correspond to more than one here.
    pub(in crate::complete) n_clashes: u32,
}

/// What is compared of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LexemeKind {
    Name,
    Literal,
    /// A keyword or a character of punctuation.
    Fixed,
}

#[derive(Clone, Copy, Debug)]
struct Lexeme<'a> {
    kind: LexemeKind,
    /// Where it starts in its line.
    at: usize,
    text: &'a str,
}

impl Lexeme<'_> {
    fn end(&self) -> usize {
        self.at + self.text.len()
    }

    fn is_like(&self, other: &Self) -> bool {
        self.kind == other.kind && (self.kind != LexemeKind::Fixed || self.text == other.text)
    }
}

/// A line with code, which is read when it is asked for.
#[derive(Debug)]
struct CodeLine<'a> {
    text: &'a str,
    read: OnceCell<(Vec<Lexeme<'a>>, u64)>,
}

impl<'a> CodeLine<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, read: OnceCell::new() }
    }

    fn read(&self) -> &(Vec<Lexeme<'a>>, u64) {
        self.read.get_or_init(|| {
            let lexemes = lexemes(self.text);
            let mut shape = DefaultHasher::new();
            for lexeme in &lexemes {
                (lexeme.kind == LexemeKind::Literal, (lexeme.kind == LexemeKind::Fixed).then_some(lexeme.text))
                    .hash(&mut shape);
            }
            (lexemes, shape.finish())
        })
    }

    fn lexemes(&self) -> &[Lexeme<'a>] {
        &self.read().0
    }

    fn shape(&self) -> u64 {
        self.read().1
    }

    /// False only where its first lexeme is not like this one: told without reading it.
    fn may_start_like(&self, lexeme: &Lexeme<'_>) -> bool {
        let text = code(self.text);
        text.starts_with('/') || lexeme.kind != LexemeKind::Fixed || text.starts_with(lexeme.text)
    }

    /// Whether it has the shape of another.
    fn is_like(&self, other: &CodeLine<'_>) -> bool {
        other.lexemes().first().is_none_or(|first| self.may_start_like(first)) && self.shape() == other.shape()
    }

    fn indent(&self) -> &'a str {
        &self.text[..self.text.len() - self.text.trim_start().len()]
    }
}

/// From where it is not white space to a lexer.
fn code(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\r'])
}

/// Lines with code.
fn lines(text: &str) -> Vec<CodeLine<'_>> {
    let has_code = |line: &CodeLine<'_>| match code(line.text).as_bytes() {
        [] | [b'/', b'/', ..] => false,
        [b'/', ..] => !line.lexemes().is_empty(),
        _ => true,
    };
    text.lines().map(CodeLine::new).filter(has_code).collect()
}

/// Of one line.
fn lexemes(line: &str) -> Vec<Lexeme<'_>> {
    let lexeme = |token: lex::Token<'_>| {
        let kind = match token.kind {
            lex::TokenKind::Literal => LexemeKind::Literal,
            lex::TokenKind::Word if !is_keyword(token.text.as_bytes()) => LexemeKind::Name,
            _ => LexemeKind::Fixed,
        };
        Lexeme { kind, at: token.at, text: &line[token.at..token.end()] }
    };
    lex::tokens(line).into_iter().map(lexeme).collect()
}

/// Adds renamed clones, and records for candidates that were found already that they are some.
pub(in crate::complete) fn add(cursor: &Cursor<'_, '_>, candidates: &mut Vec<Candidate>) {
    for RenamedClone { text, matching } in find(cursor.prompt) {
        let bytes = [&cursor.start.text.healed, text.as_bytes()].concat();
        let is_same = |candidate: &&mut Candidate| candidate.path.text.bytes.trim_ascii_end() == bytes.trim_ascii_end();
        if let Some(candidate) = candidates.iter_mut().find(is_same) {
            // Of several that come to the same the first agrees with most.
            candidate.renamed = candidate.renamed.or(Some(matching));
            continue;
        }
        candidates.push(Candidate { renamed: Some(matching), ..cursor.candidate(&bytes) });
    }
}

/// The lines that could be at the cursor, those that agree with most around them first.
fn find(prompt: &Prompt<'_>) -> Vec<RenamedClone> {
    let Prompt { prefix, suffix, .. } = *prompt;
    let line_start = prefix.rfind('\n').map_or(0, |at| at + 1);
    let mut from = prefix.ceil_char_boundary(line_start.saturating_sub(BEFORE));
    if from > 0 {
        from += prefix[from..line_start].find('\n').map_or(0, |at| at + 1);
    }
    let (rest, after) = suffix.split_once('\n').unwrap_or((suffix, ""));
    let after = &after[..after.floor_char_boundary(AFTER)];
    let typed = &prefix[line_start..];
    let Some(head) = head(typed) else { return Vec::new() };
    let (rest, before, after) = (lexemes(rest), lines(&prefix[from..line_start]), lines(after));
    CursorLines { typed, head, rest, before, after }.find()
}

/// What was typed of the cursor's line; `None` in a comment or a literal.
fn head(typed: &str) -> Option<Vec<Lexeme<'_>>> {
    let found = lexemes(typed);
    let last = found.last();
    let is_open = last.filter(|last| last.kind == LexemeKind::Literal).is_some_and(|last| {
        last.text.split_once('"').is_some_and(|(_, body)| !body.trim_end_matches('#').ends_with('"'))
    });
    let is_comment = typed[last.map_or(0, Lexeme::end)..].contains("//");
    (!is_open && !is_comment).then_some(found)
}

struct CursorLines<'a> {
    /// The cursor's line, to the cursor.
    typed: &'a str,
    /// The lexemes of `typed`.
    head: Vec<Lexeme<'a>>,
    /// The lexemes after the cursor on its line.
    rest: Vec<Lexeme<'a>>,
    before: Vec<CodeLine<'a>>,
    after: Vec<CodeLine<'a>>,
}

/// A line, and how many around it are like those around the cursor.
#[derive(Clone, Copy)]
struct Occurrence<'c, 'a> {
    lines: &'c [CodeLine<'a>],
    at: usize,
    n_before: usize,
    n_after: usize,
}

impl<'a> CursorLines<'a> {
    /// The word at the cursor, which may be longer.
    fn partial(&self) -> &'a str {
        match self.head.last() {
            Some(last)
                if last.end() == self.typed.len() && last.text.ends_with(|c: char| c.is_alphanumeric() || c == '_') =>
            {
                last.text
            }
            _ => "",
        }
    }

    fn find(&self) -> Vec<RenamedClone> {
        let partial = self.partial();
        let head = if partial.is_empty() { &self.head[..] } else { &self.head[..self.head.len() - 1] };
        let needs_before = head.len() < ENOUGH_TYPED || head.iter().all(|lexeme| lexeme.kind == LexemeKind::Fixed);
        let mut occurrences: Vec<Occurrence<'_, 'a>> = Vec::new();
        for lines in [&self.before, &self.after] {
            for at in (0..lines.len()).rev() {
                let line = &lines[at];
                if head.first().is_some_and(|first| !line.may_start_like(first)) {
                    continue;
                }
                let n_before = n_equal(self.before.iter().rev(), lines[..at].iter().rev(), MOST_BEFORE);
                if n_before == 0 && needs_before {
                    continue;
                }
                let n_left = line.lexemes().len().checked_sub(head.len() + self.rest.len());
                let has_same_start = || head.iter().zip(line.lexemes()).all(|(a, b)| a.is_like(b));
                let has_same_end =
                    || self.rest.iter().rev().zip(line.lexemes().iter().rev()).all(|(a, b)| a.is_like(b));
                if n_left.is_none_or(|n_left| n_left == 0) || !has_same_start() || !has_same_end() {
                    continue;
                }
                let n_after = n_equal(self.after.iter(), lines[at + 1..].iter(), MOST_AFTER);
                occurrences.push(Occurrence { lines, at, n_before, n_after });
            }
        }
        // Stable: of equals the nearest above.
        occurrences.sort_by_key(|occurrence| Reverse(2 * occurrence.n_before + occurrence.n_after));
        let mut found: Vec<RenamedClone> = Vec::new();
        for occurrence in occurrences.into_iter().take(MOST_OCCURRENCES) {
            if let Some(clone) = self.write(head, partial, occurrence)
                && found.iter().all(|other| other.text != clone.text)
            {
                found.push(clone);
                if found.len() == MOST {
                    break;
                }
            }
        }
        found
    }

    /// The line of an occurrence under the names that are here.
    fn write(&self, head: &[Lexeme<'a>], partial: &str, occurrence: Occurrence<'_, 'a>) -> Option<RenamedClone> {
        let Occurrence { lines, at, n_before, n_after } = occurrence;
        let line = &lines[at];
        let mut renaming = Renaming::default();
        renaming.learn(line.lexemes(), head);
        renaming.learn_from_end(line.lexemes(), &self.rest);
        for n in 0..n_before {
            renaming.learn(lines[at - 1 - n].lexemes(), self.before[self.before.len() - 1 - n].lexemes());
        }
        for n in 0..n_after {
            renaming.learn(lines[at + 1 + n].lexemes(), self.after[n].lexemes());
        }
        let new = &line.lexemes()[head.len()..line.lexemes().len() - self.rest.len()];
        let mut text = String::new();
        let mut n_renamed = 0;
        let mut end = new.first()?.at;
        for lexeme in new {
            text.push_str(&line.text[end..lexeme.at]);
            end = lexeme.end();
            match renaming.here(lexeme) {
                Some(name) if name != lexeme.text => {
                    text.push_str(&name);
                    n_renamed += 1;
                }
                _ => text.push_str(lexeme.text),
            }
        }
        let text = text.strip_prefix(partial)?.trim_end();
        // White space that the occurrence has between what was typed and what follows.
        let is_apart = partial.is_empty()
            && !self.typed.ends_with(char::is_whitespace)
            && head.last().is_some_and(|_| line.lexemes()[head.len() - 1].end() < new[0].at);
        let before = match self.before.last() {
            _ if is_apart => " ".to_owned(),
            // At the start of a line: as much deeper than the line above as there.
            Some(above) if self.typed.is_empty() => {
                let there = at.checked_sub(1).map_or(0, |above| lines[above].indent().len());
                let deeper = line.indent().get(there..).unwrap_or_default();
                let kept = above.indent().len().saturating_sub(there.saturating_sub(line.indent().len()));
                format!("{}{deeper}", above.indent().get(..kept).unwrap_or_default())
            }
            _ => String::new(),
        };
        let text = format!("{before}{text}");
        let (n_before, n_after, n_clashes) = (n_before as u32, n_after as u32, renaming.n_clashes);
        let matching = CloneMatch { n_before, n_after, n_renamed, n_clashes };
        (!text.trim().is_empty()).then_some(RenamedClone { text, matching })
    }
}

/// How many lines have the same shape, from the first on.
fn n_equal<'l, 'a: 'l>(
    here: impl Iterator<Item = &'l CodeLine<'a>>,
    there: impl Iterator<Item = &'l CodeLine<'a>>,
    most: usize,
) -> usize {
    here.zip(there).take(most).take_while(|(here, there)| there.is_like(here)).count()
}

/// Which name corresponds to which.
#[derive(Default)]
struct Renaming<'a> {
    whole: HashMap<&'a str, &'a str>,
    /// Words of names, those that were met first first.
    words: Vec<(Vec<String>, Vec<String>)>,
    n_clashes: u32,
}

impl<'a> Renaming<'a> {
    /// From lexemes of the same shape, as far as both go. What was learned first stays.
    fn learn(&mut self, there: &[Lexeme<'a>], here: &[Lexeme<'a>]) {
        there.iter().zip(here).for_each(|(there, here)| self.pair(there, here));
    }

    fn learn_from_end(&mut self, there: &[Lexeme<'a>], here: &[Lexeme<'a>]) {
        there.iter().rev().zip(here.iter().rev()).for_each(|(there, here)| self.pair(there, here));
    }

    fn pair(&mut self, there: &Lexeme<'a>, here: &Lexeme<'a>) {
        if there.kind == LexemeKind::Fixed || !there.is_like(here) {
            return;
        }
        match self.whole.get(there.text) {
            None => {
                self.whole.insert(there.text, here.text);
                self.learn_words(there.text, here.text);
            }
            Some(known) => self.n_clashes += u32::from(*known != here.text),
        }
    }

    fn learn_words(&mut self, there: &str, here: &str) {
        let (Some((_, there)), Some((_, here))) = (words(bare(there)), words(bare(here))) else { return };
        let n_first = there.iter().zip(&here).take_while(|(a, b)| a == b).count();
        let (there, here) = (&there[n_first..], &here[n_first..]);
        let n_last = there.iter().rev().zip(here.iter().rev()).take_while(|(a, b)| a == b).count();
        let (there, here) = (&there[..there.len() - n_last], &here[..here.len() - n_last]);
        if !there.is_empty() && !here.is_empty() && self.words.iter().all(|(known, _)| known != there) {
            self.words.push((there.to_vec(), here.to_vec()));
        }
    }

    /// What a name or a literal corresponds to here, if anything is known of it.
    fn here(&self, lexeme: &Lexeme<'_>) -> Option<String> {
        if lexeme.kind == LexemeKind::Fixed {
            return None;
        }
        if let Some(name) = self.whole.get(lexeme.text) {
            return Some((*name).to_owned());
        }
        let inner = bare(lexeme.text);
        let (style, words) = words(inner)?;
        self.words.iter().find_map(|(there, here)| {
            let at = words.windows(there.len()).position(|window| window == there)?;
            let renamed = [&words[..at], here, &words[at + there.len()..]].concat();
            Some(lexeme.text.replacen(inner, &style.write(&renamed), 1))
        })
    }
}

/// A string's inside.
fn bare(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// How the words of a name are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// `read_io`.
    Snake,
    /// `READ_IO`.
    Screaming,
    /// `ReadIo`.
    Camel,
}

impl Style {
    fn write(self, words: &[String]) -> String {
        match self {
            Self::Snake => words.join("_"),
            Self::Screaming => words.join("_").to_ascii_uppercase(),
            Self::Camel => {
                let capital = |word: &String| {
                    let mut chars = word.chars();
                    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect::<String>()
                };
                words.iter().map(capital).collect()
            }
        }
    }
}

/// The words of a name in small letters; `None` of what is not written in one of the styles.
fn words(name: &str) -> Option<(Style, Vec<String>)> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let first = name.bytes().next().filter(|first| is_plain && first.is_ascii_alphabetic())?;
    let has_small = name.bytes().any(|byte| byte.is_ascii_lowercase());
    let style = match (first.is_ascii_uppercase(), has_small) {
        (false, _) => Style::Snake,
        (true, true) => Style::Camel,
        (true, false) if name.len() == 1 => Style::Camel,
        (true, false) => Style::Screaming,
    };
    let words: Vec<String> = match style {
        Style::Snake => name.split('_').map(str::to_owned).collect(),
        Style::Screaming => name.split('_').map(str::to_ascii_lowercase).collect(),
        Style::Camel => {
            let mut words: Vec<String> = Vec::new();
            for c in name.chars() {
                match words.last_mut() {
                    Some(word) if !c.is_ascii_uppercase() => word.push(c),
                    _ => words.push(c.to_ascii_lowercase().to_string()),
                }
            }
            words
        }
    };
    (style.write(&words) == name).then_some((style, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Vec<String> {
        let (prefix, suffix) = text.split_once("$0").expect("a cursor");
        find(&Prompt { prefix, suffix, ..Prompt::default() }).into_iter().map(|clone| clone.text).collect()
    }

    #[test]
    fn at_the_start_of_a_line_it_is_indented_as_there() {
        let there = "    fn a() {\n        if x {\n            first(x);\n        }\n    }\n\n";
        let found = |here: &str| at(&format!("{there}{here}$0\n")).remove(0);
        assert_eq!(found("fn b() {\n"), "    if x {");
        assert_eq!(found("fn b() {\n    if y {\n"), "        first(y);");
        assert_eq!(found("fn b() {\n    if y {\n        first(y);\n"), "    }");
    }

    const IMPLS: &str = "impl From<io::Error> for Error {\n    fn from(io: io::Error) -> Self {\n        Self::Io(io)\n    }\n}\n\n\
        impl From<fmt::Error> for Error {\n    fn from(fmt: fmt::Error) -> Self {\n        ";

    #[test]
    fn a_line_is_written_under_the_names_around_the_cursor() {
        assert_eq!(at(&format!("{IMPLS}$0\n    }}\n}}\n")), ["Self::Fmt(fmt)"]);
        assert_eq!(at(&format!("{IMPLS}Self::F$0\n    }}\n}}\n")), ["mt(fmt)"]);
        assert_eq!(at(&format!("{IMPLS}Self::Fmt($0)\n    }}\n}}\n")), ["fmt"]);
        assert_eq!(at(&format!("{IMPLS}Other::F$0\n    }}\n}}\n")), [""; 0], "another name was typed");
    }

    #[test]
    fn what_follows_is_evidence_too_and_literals_are_places() {
        let text = "fn a() {\n    let x = load(\"a\", 1);\n    store(\"a\", x);\n}\nfn b() {\n    let x = load(\"b\", 2);\n    $0\n}\n";
        let found =
            find(&Prompt { prefix: text.split("$0").next().expect("text"), suffix: "\n}\n", ..Prompt::default() });
        assert_eq!(found[0].text, "store(\"b\", x);");
        assert_eq!(found[0].matching, CloneMatch { n_before: 2, n_after: 1, n_renamed: 1, n_clashes: 0 });
    }

    #[test]
    fn words_of_names_are_renamed_in_their_style() {
        let mut renaming = Renaming::default();
        let lexeme = |text| lexemes(text)[0];
        renaming.pair(&lexeme("read_io"), &lexeme("read_tcp_stream"));
        for (there, here) in [
            ("IoError", "TcpStreamError"),
            ("IO_LIMIT", "TCP_STREAM_LIMIT"),
            ("io", "tcp_stream"),
            ("\"io\"", "\"tcp_stream\""),
        ] {
            assert_eq!(renaming.here(&lexeme(there)).as_deref(), Some(here));
        }
        assert_eq!(renaming.here(&lexeme("ioctl")), None);
        assert_eq!(renaming.here(&lexeme("xIo")), None, "in no style");
    }

    #[test]
    fn a_line_that_is_read_when_it_is_asked_for_is_what_it_would_be() {
        let texts = [
            "",
            " \t",
            "// a",
            "  /* a */",
            "/* a */ b",
            "/ b",
            "\u{a0}",
            "let x = 1;",
            "  x = 1;",
            "'a: loop {",
            "\"a\"",
            ".b()",
            "r#let",
            "é",
            "#[a]",
            "}",
        ];
        for text in texts {
            let found = lexemes(text);
            assert_eq!(lines(text).len(), usize::from(!found.is_empty()), "{text}");
            for first in texts.iter().filter_map(|text| lexemes(text).first().copied()) {
                let is_like = found.first().is_some_and(|lexeme| lexeme.is_like(&first));
                assert!(!is_like || CodeLine::new(text).may_start_like(&first), "{text} and {}", first.text);
            }
        }
    }

    #[test]
    fn comments_open_literals_and_strange_text_have_no_analogies() {
        assert_eq!(at("    // a\n    // b $0"), [""; 0]);
        assert_eq!(at("f(\"a\");\nf(\"b$0"), [""; 0]);
        assert_eq!(at("$0"), [""; 0]);
        for text in
            ["'", "'\\", "'a", "\"\\", "'\\u{10ffff}'", "'é'", "'é", "r#\"x\"#", "\u{1F600}'\u{1F600}'", "a\\\"'"]
        {
            for line in [text.to_owned(), format!("let x = {text}; // {text}")] {
                let found = lexemes(&line);
                assert!(found.windows(2).all(|pair| pair[0].end() <= pair[1].at), "{line}");
                _ = at(&format!("{line}\n{line}\n$0\n{line}"));
            }
        }
    }
}
