//! Fillers that may compile and help nobody. They score 0, and a hole whose truth is one is not used.

use crate::holes::HoleKind;

/// What is wrong with a filler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Degenerate {
    /// Nothing, comments or punctuation that does nothing.
    Empty,
    /// It never returns: any type fits.
    Diverges,
    /// `unsafe` that was not there.
    Unsafe,
    /// It reads another file or the environment, or brings assembly.
    Includes,
    /// What follows anyway.
    Repeats,
}

/// The first fault of `middle` between `prefix` and `suffix`, or `None`.
pub(crate) fn fault(kind: HoleKind, prefix: &str, middle: &str, suffix: &str) -> Option<Degenerate> {
    let inserted = words(middle);
    let says_something = |word: &String| word.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '"');
    let is_empty = match kind {
        HoleKind::Statement => !inserted.iter().any(says_something),
        HoleKind::LineTail => inserted.is_empty(),
    };
    if is_empty {
        return Some(Degenerate::Empty);
    }
    // The cursor may stand within a word: what was begun before it counts only if the filler ends it.
    let line = &prefix[prefix.rfind('\n').map_or(0, |at| at + 1)..];
    let before = words(line);
    let after = words(&[line, middle].concat());
    let is_new = |count: fn(&[String]) -> usize| count(&after) > count(&before);
    if is_new(n_diverging) {
        return Some(Degenerate::Diverges);
    }
    if is_new(|words| words.iter().filter(|word| *word == "unsafe").count()) {
        return Some(Degenerate::Unsafe);
    }
    if is_new(|words| {
        let macros = ["include", "include_str", "include_bytes", "env", "option_env", "asm", "global_asm"];
        words.windows(2).filter(|pair| macros.contains(&pair[0].as_str()) && pair[1] == "!").count()
    }) {
        return Some(Degenerate::Includes);
    }
    if suffix.trim_start().starts_with(middle.trim()) {
        return Some(Degenerate::Repeats);
    }
    None
}

/// Places at which control surely or possibly never comes back. Deliberately wide: a hole whose truth panics is
/// no place to tell a model from a cheater.
fn n_diverging(words: &[String]) -> usize {
    const MACROS: [&str; 4] = ["todo", "unimplemented", "panic", "unreachable"];
    const CALLS: [&str; 5] = ["exit", "abort", "panic_any", "resume_unwind", "panic_fmt"];
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    let leaves = |from: usize| words[from..].iter().any(|word| word == "break" || word == "return" || word == "?");
    (0..words.len())
        .filter(|&at| match word(at) {
            name if MACROS.contains(&name) => word(at + 1) == "!" || word(at + 1) == "as",
            name if CALLS.contains(&name) => word(at + 1) == "(" && at > 0 && word(at - 1) == ":",
            "loop" => word(at + 1) == "{" && !leaves(at),
            "while" => word(at + 1) == "true" && !leaves(at),
            "None" => {
                let call = (at + 1..words.len()).find(|&i| word(i) == ".");
                call.is_some_and(|dot| {
                    let turbofish =
                        words[at + 1..dot].iter().all(|word| !["(", ")", ",", ";", "="].contains(&word.as_str()));
                    turbofish
                        && (word(dot + 1).starts_with("unwrap") || word(dot + 1) == "expect")
                        && word(dot + 1) != "unwrap_or"
                })
            }
            _ => false,
        })
        .count()
}

/// Words, literals and single marks of text that need not lex, without comments. A string is one word.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let rest = &text[at..];
        if rest.starts_with("//") || rest.starts_with("/*") {
            let (end, n) = if rest.starts_with("//") { ("\n", 1) } else { ("*/", 2) };
            let to = rest.find(end).map_or(text.len(), |i| at + i + n);
            while letters.next_if(|&(i, _)| i < to).is_some() {}
        } else if letter == '"' {
            let mut word = String::from('"');
            while let Some((_, c)) = letters.next() {
                word.push(c);
                match c {
                    '\\' => word.extend(letters.next().map(|(_, c)| c)),
                    '"' => break,
                    _ => {}
                }
            }
            words.push(word);
        } else if letter.is_alphanumeric() || letter == '_' {
            let mut word = String::from(letter);
            while let Some((_, c)) = letters.next_if(|&(_, c)| c.is_alphanumeric() || c == '_') {
                word.push(c);
            }
            words.push(word);
        } else if !letter.is_whitespace() {
            words.push(letter.to_string());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, fault: Option<Degenerate>) {
        let (prefix, rest) = text.split_once('‹').expect("a hole");
        let (middle, suffix) = rest.split_once('›').expect("its end");
        let kind = if prefix.trim_end_matches(' ').ends_with('\n') { HoleKind::Statement } else { HoleKind::LineTail };
        assert_eq!(super::fault(kind, prefix, middle, suffix), fault, "{text}");
    }

    #[test]
    fn fillers_that_help_nobody_are_known() {
        for text in ["\n ‹›", "\n ‹  ›", "\n ‹// soon›", "\n ‹/* a */;›", "\n ‹{}›", "let x = ‹ // y›"]
        {
            check(text, Some(Degenerate::Empty));
        }
        for text in [
            "\n ‹todo!();›",
            "\n ‹let x: u8 = unimplemented!(\"later\");›",
            "\n ‹loop {}›",
            "\n ‹while true { }›",
            "\n ‹std::process::exit(1)›",
            "\n ‹std::process::abort();›",
            "\n ‹let x = None.unwrap();›",
            "\n ‹let x = None::<u8>.expect(\"\");›",
            "\n ‹use std::todo as t;›",
            "let x = to‹do!();›",
            "let x = panic‹!();›",
        ] {
            check(text, Some(Degenerate::Diverges));
        }
        check("\n ‹unsafe { f() }›", Some(Degenerate::Unsafe));
        check("\n ‹let k = include_str!(\"/etc/passwd\");›", Some(Degenerate::Includes));
        check("\n ‹let h = env!(\"HOME\");›", Some(Degenerate::Includes));
        check("\n ‹let b = a + 1;›\n    let b = a + 1;", Some(Degenerate::Repeats));
    }

    #[test]
    fn honest_code_is_left_alone() {
        for text in [
            "\n ‹let a = b + 1;›\n let c = 2;",
            "\n ‹loop { if done() { break; } }›",
            "\n ‹assert_eq!(a, \"todo!()\");›",
            "\n ‹x.exit(); // panic!›",
            "\n ‹let v = map.get(&k).unwrap();›",
            "\n ‹match x { None => a.unwrap_or(1), Some(b) => b }›",
            "panic!(‹\"bad {x}\");›",
            "unsafe { f‹(x) }›",
            "match x ‹=> {›",
        ] {
            check(text, None);
        }
    }
}
