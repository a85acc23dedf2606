//! Prose and names use the words of the field.

use proc_macro2::{TokenStream, TokenTree};

use super::{files, rust_files};
use crate::support::repository;

/// Parts of names that mean nothing to a reader from outside. An identifier is split at `_` and at capital letters.
const NAMES: [&str; 12] = [
    "voice",
    "voices",
    "shoots",
    "desk",
    "wish",
    "aside",
    "laid",
    "surroundings",
    "alike",
    "shelf",
    "analogy",
    "bridge",
];

/// The word whose sense in English is a place at the back. In a text, it does not mean what follows.
const WORD: &str = concat!("beh", "ind");

/// What the word means in one of these is known to every reader. `_` stands for the word.
const IDIOMS: [&str; 16] = [
    "_ a feature",
    "_ a lock",
    "_ a proxy",
    "_ a setting",
    "_ one trait",
    "_ the scenes",
    "_ the trait",
    "command _",
    "fall _",
    "falls _",
    "leave it _",
    "leave nothing _",
    "leaves nothing _",
    "left _",
    "points _",
    "stay _",
];

#[test]
fn what_follows_in_a_text_is_called_so() {
    let found: Vec<String> = files(&repository(), &["rs", "ts", "lua", "toml", "sh", "yml", "py", "md", "snap"])
        .into_iter()
        .filter(|path| !path.ends_with("train/LOG.md")) // a dated log is not written again
        .flat_map(|path| {
            let text = std::fs::read_to_string(&path).expect("text is UTF-8");
            let is_changelog = path.ends_with("CHANGELOG.md");
            let text = if is_changelog { without_quotes(&text) } else { text };
            senses(&text).into_iter().map(|line| format!("{}:{line}", path.display())).collect::<Vec<_>>()
        })
        .collect();
    assert!(found.is_empty(), "`{WORD}` in the sense of after: {found:#?}");
}

#[test]
fn names_are_those_of_the_field() {
    let mut found = Vec::new();
    for path in rust_files(&repository()) {
        let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
        let mut names = vec![path.file_stem().expect("a file has a name").to_string_lossy().into_owned()];
        identifiers(text.parse().expect("it compiles"), &mut names);
        // The name of a test is a sentence: its words are read as such.
        let is_sentence = |words: &[String]| words.len() > 4;
        names.retain(|name| {
            let words = words(name);
            !is_sentence(&words) && words.iter().any(|word| NAMES.contains(&word.as_str()))
        });
        names.sort();
        names.dedup();
        found.extend((!names.is_empty()).then(|| format!("{}: {}", path.display(), names.join(", "))));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_word_is_found_in_prose_and_in_names() {
    let text = format!("// left {WORD}\n// what is left\n//   {WORD}; {WORD} the cursor\nlet {WORD}_it = 1; {WORD}a\n");
    assert_eq!(senses(&text), [3, 4]);
    assert_eq!(words("HTTPServerOf_two_Things"), ["http", "server", "of", "two", "things"]);
    let mut names = Vec::new();
    identifiers("struct A { b: C } // d\nfn f() { g!(h(\"i\")) }".parse().expect("tokens"), &mut names);
    assert_eq!(names, ["struct", "A", "b", "C", "fn", "f", "g", "h"]);
    assert_eq!(without_quotes("a \"b\nc\" d `e` f"), "a \n d  f");
}

/// The lines in which the word has the sense that is not wanted.
fn senses(text: &str) -> Vec<usize> {
    // Prose is wrapped: what surrounds the word may be on the next line, after a comment sign.
    let mut lines = Vec::new();
    let mut all: Vec<String> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let is_sign = |word: &str| word.chars().all(|c| "/!#*->|".contains(c));
        for word in line.split(|c: char| c.is_whitespace() || "_\"`(".contains(c)).filter(|word| !is_sign(word)) {
            all.push(word.to_lowercase());
            lines.push(number + 1);
        }
    }
    let plain = |word: &String| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
    let words: Vec<String> = all.iter().map(plain).collect();
    let is_idiom = |at: usize| {
        IDIOMS.iter().any(|idiom| {
            let parts: Vec<&str> = idiom.split(' ').collect();
            let before = parts.iter().position(|part| *part == "_").expect("an idiom has the word");
            let start = at.checked_sub(before);
            let meets = |start: usize| {
                let found = words.get(start..start + parts.len()).unwrap_or_default();
                !found.is_empty() && found.iter().zip(&parts).all(|(word, part)| *part == "_" || word == part)
            };
            start.is_some_and(meets)
        })
    };
    let contains = |word: &str| word.split(|c: char| !c.is_alphanumeric()).any(|part| part == WORD);
    (0..all.len()).filter(|at| contains(&all[*at]) && !is_idiom(*at)).map(|at| lines[at]).collect()
}

/// A text without what it quotes, line breaks kept.
fn without_quotes(text: &str) -> String {
    let mut open = None;
    text.chars()
        .filter(|c| {
            let is_quoted = open.is_some() || matches!(c, '"' | '`');
            match open {
                Some(sign) if sign == *c => open = None,
                None if matches!(c, '"' | '`') => open = Some(*c),
                _ => {}
            }
            !is_quoted || *c == '\n'
        })
        .collect()
}

/// Adds every identifier, keywords among them.
fn identifiers(tokens: TokenStream, names: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => names.push(ident.to_string()),
            TokenTree::Group(group) => identifiers(group.stream(), names),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// The words of an identifier, in small letters: `HTTPServer_of` has three.
fn words(name: &str) -> Vec<String> {
    let chars: Vec<char> = name.chars().collect();
    let mut words = vec![String::new()];
    for (at, &c) in chars.iter().enumerate() {
        let is_capital = |at: usize| chars.get(at).is_some_and(|c| c.is_uppercase());
        let follows_small = at > 0 && !is_capital(at - 1);
        let is_before_small = at + 1 < chars.len() && !is_capital(at + 1);
        if c == '_' || (c.is_uppercase() && at > 0 && (follows_small || is_before_small)) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().expect("there is one").extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
