//! Degenerate completions: they may compile and help nobody. They score 0, and a hole with a degenerate truth is not
//! used.

use crate::holes::HoleKind;
use crate::system::Task;

/// Why a completion is degenerate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Degenerate {
    /// Nothing, comments or punctuation without effect.
    Empty,
    /// It never returns: any type fits.
    Diverges,
    /// It gives up where the truth does something: `return;`, `return Default::default()`.
    GivesUp,
    /// New `unsafe`.
    Unsafe,
    /// It reads another file or the environment, or contains assembly.
    Includes,
    /// It hides code from the compiler: a false condition, a macro of its own.
    Hides,
    /// It repeats the code that follows.
    Repeats,
}

/// The first fault of `middle` in a hole, or `None`. If the truth looks like giving up itself, that is no fault.
pub(crate) fn fault(task: &Task<'_>, middle: &str, truth: Option<&str>) -> Option<Degenerate> {
    let inserted = words(middle);
    let says_something = |word: &String| word.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '"');
    let is_empty = match task.kind {
        HoleKind::LineTail | HoleKind::RestOfLine => inserted.is_empty(),
        _ => !inserted.iter().any(says_something),
    };
    if is_empty {
        return Some(Degenerate::Empty);
    }
    // The cursor may be within a word: a word that starts before it counts only if the completion ends it.
    let line = &task.prefix[task.prefix.rfind('\n').map_or(0, |at| at + 1)..];
    let before = words(line);
    let after = words(&[line, middle].concat());
    let is_new = |count: fn(&[String]) -> usize| count(&after) > count(&before);
    if is_new(n_diverging) {
        return Some(Degenerate::Diverges);
    }
    if is_new(|words| words.iter().filter(|word| *word == "unsafe").count()) {
        return Some(Degenerate::Unsafe);
    }
    if is_new(|words| n_macros(words, &INCLUDES)) {
        return Some(Degenerate::Includes);
    }
    if is_new(n_hiding) {
        return Some(Degenerate::Hides);
    }
    let is_truth = truth.is_some_and(|truth| truth.trim_end() == middle.trim_end());
    if !is_truth && gives_up(&inserted) && !truth.is_some_and(|truth| gives_up(&words(truth))) {
        return Some(Degenerate::GivesUp);
    }
    if task.suffix.trim_start().starts_with(middle.trim()) {
        return Some(Degenerate::Repeats);
    }
    None
}

/// Macros that read files from outside the workspace at compile time, or contain what the compiler does not check.
const INCLUDES: [&str; 7] = ["include", "include_str", "include_bytes", "env", "option_env", "asm", "global_asm"];

fn n_macros(words: &[String], names: &[&str]) -> usize {
    words.windows(2).filter(|pair| names.contains(&pair[0].as_str()) && pair[1] == "!").count()
}

/// Counts `#[cfg..]`, `cfg!` and macro definitions: the compiler need not check what they contain.
fn n_hiding(words: &[String]) -> usize {
    let attributes = words.windows(3).filter(|three| {
        three[0] == "#" && (three[1] == "[" && three[2].starts_with("cfg") || three[1] == "!" && three[2] == "[")
    });
    attributes.count() + n_macros(words, &["cfg", "macro_rules", "stringify", "compile_error"])
}

/// Whether it only returns, or is only a default value.
fn gives_up(words: &[String]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != ";").collect();
    let body = match words.as_slice() {
        ["return" | "break" | "continue"] => return true,
        ["return", rest @ ..] => rest,
        all => all,
    };
    // `let x: T = Default::default()` is one as well.
    let value = match body {
        ["let", .., "=", _, _, _, _, _, _] => &body[body.len() - 6..],
        all => all,
    };
    matches!(value, ["Default", ":", ":", "default", "(", ")"])
        || matches!(value, ["Default", ":", ":", "default", "(", ")", "?"])
        || words.first() == Some(&"return") && matches!(body, ["(", ")"] | ["None"])
}

/// Counts calls and loops that surely or possibly never return. Deliberately wide: a hole whose truth panics cannot
/// distinguish a model from a cheater.
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

/// Splits text, which need not lex, into words, literals and punctuation, without comments. A string is one word.
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
        let task = Task { file: "a.rs", kind, prefix, suffix };
        assert_eq!(super::fault(&task, middle, None), fault, "{text}");
    }

    #[test]
    fn completions_that_help_nobody_are_recognized() {
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
    fn giving_up_and_hiding_are_recognized() {
        for text in [
            "\n ‹return;›",
            "\n ‹return None;›",
            "\n ‹return Default::default()›",
            "\n ‹Default::default()›",
            "\n ‹let x = Default::default();›",
            "let x = ‹Default::default();›",
            "\n ‹continue›",
        ] {
            check(text, Some(Degenerate::GivesUp));
        }
        for text in [
            "\n ‹#[cfg(any())] let x = nonsense();›",
            "\n ‹#[cfg_attr(all(), allow(x))] f();›",
            "\n ‹macro_rules! m { () => {} }›",
            "\n ‹if cfg!(any()) { f() }›",
        ] {
            check(text, Some(Degenerate::Hides));
        }
        let task = Task { file: "a.rs", kind: HoleKind::Statement, prefix: "\n ", suffix: "\n}" };
        assert_eq!(fault(&task, "return;", Some("return;")), None);
        assert_eq!(fault(&task, "Default::default()", Some("return Default::default()")), None);
        assert_eq!(fault(&task, "Default::default()", Some("S { a: 1 }")), Some(Degenerate::GivesUp));
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
