//! Parsing untrusted text: where its code starts, how deep it nests, whether it parses.

use proc_macro2::TokenStream;

use crate::holes::Hole;

/// The parser recurses; deeper text is refused before it is parsed.
const MAX_DEPTH: usize = 128;
/// Prefix operators nest without brackets.
const MAX_RUN: usize = 4096;
/// Enough for the depths above in a debug build; only what is touched costs memory.
const STACK_BYTES: usize = 256 << 20;

/// The code without byte order mark and `#!` line, preceded by how many bytes these take.
pub(crate) fn code(text: &str) -> (usize, &str) {
    let mut offset = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let rest = &text[offset..];
    let is_shebang = rest.strip_prefix("#!").is_some_and(|after| !after.trim_start().starts_with('['));
    if is_shebang {
        offset += rest.find('\n').unwrap_or(rest.len());
    }
    (offset, &text[offset..])
}

/// Whether the text is a Rust file.
pub(crate) fn parses(text: &str) -> bool {
    let (_, code) = code(text);
    is_shallow(code) && with_large_stack(|| syn::parse_str::<syn::File>(code).is_ok())
}

/// Whether a file that parses does so with `middle` in the hole. Most completions stay within their function,
/// and then only the function is parsed.
pub(crate) fn parses_with(text: &str, hole: &Hole, middle: &str) -> bool {
    let function = [&text[hole.function.0..hole.start], middle, &text[hole.end..hole.function.1]].concat();
    let within = is_shallow(&function) && with_large_stack(|| syn::parse_str::<syn::ImplItemFn>(&function).is_ok());
    within || parses(&hole.splice(text, middle))
}

/// Parses the inside of a block into statements; `None` if it does not parse.
pub(crate) fn statements(text: &str) -> Option<Vec<syn::Stmt>> {
    if !is_shallow(text) {
        return None;
    }
    let stream: TokenStream = text.parse().ok()?;
    syn::parse::Parser::parse2(syn::Block::parse_within, stream).ok()
}

/// Whether a recursive parser is safe with the text. Brackets in literals count too: a refusal is only a missed
/// hole or a completion that no person would accept.
pub(crate) fn is_shallow(text: &str) -> bool {
    let (mut depth, mut run) = (0usize, 0usize);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        run = match byte {
            b'!' | b'&' | b'*' | b'-' | b'|' | b'<' => run + 1,
            b'\n' | b';' => 0,
            _ => run,
        };
        if depth > MAX_DEPTH || run > MAX_RUN {
            return false;
        }
    }
    true
}

/// Parses on a thread of its own: a deep tree cannot overflow the caller's stack, and the parser's per-thread copy
/// of the text goes with the thread.
pub(crate) fn with_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        match thread.expect("the system gives a thread").join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_before_the_code_are_skipped() {
        assert_eq!(code("\u{feff}#!/bin/x\nfn f() {}").1, "\nfn f() {}");
        assert_eq!(code("#![allow(x)]\n").1, "#![allow(x)]\n");
        assert!(parses("#!/bin/x\nfn f() {}"));
    }

    #[test]
    fn bombs_for_the_parser_are_refused() {
        for bomb in ["(", "!", "&", "if x {", "Vec<", "-", "[", "|x| "] {
            assert!(!parses(&format!("fn f() {{ {} }}", bomb.repeat(50_000))), "{bomb}");
        }
    }
}
