//! The only prompt format: suffix first, so that typing only appends.
//!
//! ```text
//! (SNIPPET path '\n' text)* SUFFIX suffix PREFIX prefix ▸ middle END
//! ```
//!
//! Training lays out a file as `SUFFIX (text from the cut on) PREFIX (text up to the cut) END`, some after snippets
//! of other files: prefix and
//! middle are encoded together, as they are at the cursor once the last token is healed. A whole document
//! is the same with an empty suffix.

use crate::text::tokenizer::{END, PREFIX, SNIPPET, SUFFIX, TokenId, Tokenizer, pretokens};

/// What the model may look at.
///
/// ```
/// use nanochat_engine::{Prompt, Snippet, Tokenizer};
///
/// let text = "fn main() {\n    let answer = compute(6, 7);\n}\n";
/// let (prefix, suffix) = text.split_at(text.find("(6").expect("it is there"));
/// let snippets = [Snippet { path: "src/lib.rs", text: "pub fn compute(a: u32, b: u32) -> u32;\n" }];
/// let prompt = Prompt { path: "src/main.rs", snippets: &snippets, prefix, suffix };
///
/// // The last word is taken back, since it may be the start of a longer one, and is written again.
/// let tokens = prompt.tokens(&Tokenizer::bytes(), 200);
/// assert_eq!(tokens.healed, b" compute");
/// assert!(tokens.tokens.len() <= 200);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Prompt<'a> {
    /// The live file, so that the memory does not quote its saved copy. Empty: none.
    pub path: &'a str,
    /// Text from elsewhere, most important last.
    pub snippets: &'a [Snippet<'a>],
    /// Everything before the cursor.
    pub prefix: &'a str,
    /// Everything after the cursor.
    pub suffix: &'a str,
}

/// A piece of another file.
#[derive(Clone, Copy, Debug)]
pub struct Snippet<'a> {
    /// Its path as the user would write it, relative to the workspace.
    pub path: &'a str,
    /// What is in it, or the part that matters.
    pub text: &'a str,
}

/// A prompt in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptTokens {
    /// What the session is given.
    pub tokens: Vec<TokenId>,
    /// Bytes before the cursor that were taken back; the completion must start with them (token healing).
    pub healed: Vec<u8>,
}

/// The path of a snippet that tells what the types nearby have (see [`crate::symbols::declarations`]).
pub const DECLARED: &str = "types";

/// Bytes that one token of budget may be worth before a window is cut by bytes, so that the cost does not
/// depend on the file's size. Rust has 3 to 4 bytes per token.
const BYTES_PER_TOKEN: usize = 8;
/// Most bytes taken back at the cursor.
pub const MAX_HEALED: usize = 24;
/// A snippet is not started with fewer tokens than this.
const MIN_SNIPPET: usize = 16;

/// The tokens of a budget that snippets get at most.
pub fn for_snippets(budget: usize) -> usize {
    budget.saturating_sub(2) * 3 / 16
}

impl Prompt<'_> {
    /// Tokens within `budget`, with windows cut on a coarse grid so that they stay put while one types. Never fewer
    /// than `[SUFFIX, PREFIX]`. Snippets and suffix get three sixteenths of the budget each, the prefix the rest.
    pub fn tokens(&self, tokenizer: &Tokenizer, budget: usize) -> PromptTokens {
        let share = for_snippets(budget);
        let mut tokens = snippet_tokens(tokenizer, self.snippets, share);
        tokens.push(SUFFIX);
        tokens.extend(first_lines(tokenizer, self.suffix.as_bytes(), share));
        tokens.push(PREFIX);
        let left = budget.saturating_sub(tokens.len());
        let (prefix, healed) = prefix_tokens(tokenizer, self.prefix.as_bytes(), left);
        tokens.extend(prefix);
        PromptTokens { tokens, healed }
    }
}

/// The training form of a file whose hole ends at byte `cut` (a character boundary is not needed), after snippets
/// in the prompt's layout, in full. `cut == text.len()` is a whole document; so is a cut beyond it.
pub fn document(tokenizer: &Tokenizer, snippets: &[Snippet<'_>], text: &[u8], cut: usize) -> Vec<TokenId> {
    let (before, after) = text.split_at(cut.min(text.len()));
    // No token is shorter than a byte, so within this nothing is cut off.
    let enough: usize = snippets.iter().map(|snippet| snippet.path.len() + snippet.text.len() + MIN_SNIPPET).sum();
    let mut tokens = snippet_tokens(tokenizer, snippets, enough);
    tokens.push(SUFFIX);
    tokens.extend(tokenizer.encode(after));
    tokens.push(PREFIX);
    tokens.extend(tokenizer.encode(before));
    tokens.push(END);
    tokens
}

/// The last snippets that fit, in their order. The earliest of them may be cut at a line.
fn snippet_tokens(tokenizer: &Tokenizer, snippets: &[Snippet<'_>], budget: usize) -> Vec<TokenId> {
    let mut left = budget;
    let mut taken = Vec::new();
    for snippet in snippets.iter().rev() {
        if left < MIN_SNIPPET {
            break;
        }
        let mut text = format!("{}\n", snippet.path).into_bytes();
        // Not the whole text: it may be a large file.
        text.extend_from_slice(&snippet.text.as_bytes()[..snippet.text.len().min(left * BYTES_PER_TOKEN)]);
        let mut tokens = vec![SNIPPET];
        tokens.extend(first_lines(tokenizer, &text, left - 1));
        left -= tokens.len();
        taken.push(tokens);
    }
    taken.into_iter().rev().flatten().collect()
}

/// At most `budget` tokens from the start of `text`, cut at the end of a line where there is one.
fn first_lines(tokenizer: &Tokenizer, text: &[u8], budget: usize) -> Vec<TokenId> {
    let window = &text[..text.len().min(budget * BYTES_PER_TOKEN)];
    let mut tokens = tokenizer.encode(window);
    if tokens.len() > budget || window.len() < text.len() {
        tokens.truncate(budget);
        if let Some(line_end) = tokens.iter().rposition(|&token| breaks_line(tokenizer, token)) {
            tokens.truncate(line_end + 1);
        }
    }
    tokens
}

/// At most `budget` tokens from the end of `text`, less the last pre-token, whose bytes are returned: it may
/// be the beginning of a longer one, so its tokens are not those that training saw there.
fn prefix_tokens(tokenizer: &Tokenizer, text: &[u8], budget: usize) -> (Vec<TokenId>, Vec<u8>) {
    let window = &text[window_start(text, budget * BYTES_PER_TOKEN)..];
    let mut tokens = tokenizer.encode(window);
    let dropped = n_dropped(tokenizer, &tokens, budget);
    tokens.drain(..dropped);

    let Some(last) = pretokens(window).last() else { return (tokens, Vec::new()) };
    let mut n_healed = 0;
    while let Some(&token) = tokens.last() {
        let longer = n_healed + tokenizer.token_bytes(token).len();
        if longer > last.len().min(MAX_HEALED) {
            break;
        }
        n_healed = longer;
        tokens.pop();
    }
    (tokens, text[text.len() - n_healed..].to_vec())
}

/// Where a window of at most `most` bytes starts: a multiple of half the window, then on to the next line.
/// It moves only when the text grows past such a multiple.
fn window_start(text: &[u8], most: usize) -> usize {
    let step = (most / 2).max(1);
    let start = text.len().saturating_sub(most).div_ceil(step) * step;
    if start == 0 || start >= text.len() {
        return start.min(text.len());
    }
    // Within a quarter of the window only: a file may be one line.
    let search = &text[start..text.len().min(start + step / 2)];
    let to_line = search.iter().position(|&byte| byte == b'\n').map(|newline| newline + 1);
    let to_character = || search.iter().position(|&byte| byte & 0xC0 != 0x80).unwrap_or(0);
    start + to_line.unwrap_or_else(to_character)
}

/// How many tokens to drop from the front: a multiple of a quarter of the budget, then on to the next line.
fn n_dropped(tokenizer: &Tokenizer, tokens: &[TokenId], budget: usize) -> usize {
    let step = (budget / 4).max(1);
    let dropped = (tokens.len().saturating_sub(budget).div_ceil(step) * step).min(tokens.len());
    if dropped == 0 {
        return 0;
    }
    let search = &tokens[dropped..(dropped + step).min(tokens.len())];
    dropped + search.iter().position(|&token| breaks_line(tokenizer, token)).unwrap_or(0)
}

fn breaks_line(tokenizer: &Tokenizer, token: TokenId) -> bool {
    tokenizer.token_bytes(token).contains(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tokenizer::FIRST_BYTE;

    /// Merges of a few pairs, so that tokens have more than one byte.
    fn tokenizer() -> Tokenizer {
        let byte = |byte: u8| FIRST_BYTE + TokenId::from(byte);
        let first = crate::text::tokenizer::FIRST_MERGE;
        Tokenizer::from_merges(vec![
            (byte(b' '), byte(b' ')),
            (byte(b'l'), byte(b'e')),
            (first + 1, byte(b't')),
            (byte(b'\n'), first),
            (first + 3, first),
        ])
        .expect("well formed")
    }

    fn file(n_lines: usize) -> String {
        (0..n_lines).map(|line| format!("    let x{line} = compute({line});\n")).collect()
    }

    fn parts(tokens: &[TokenId]) -> (Vec<TokenId>, Vec<TokenId>) {
        let suffix = tokens.iter().position(|&token| token == SUFFIX).expect("every prompt has a suffix");
        let prefix = tokens.iter().position(|&token| token == PREFIX).expect("every prompt has a prefix");
        (tokens[suffix + 1..prefix].to_vec(), tokens[prefix + 1..].to_vec())
    }

    #[test]
    fn the_empty_prompt_is_suffix_and_prefix() {
        for budget in [0, 1, 2, 3, 100] {
            let prompt = Prompt::default().tokens(&tokenizer(), budget);
            assert_eq!(prompt, PromptTokens { tokens: vec![SUFFIX, PREFIX], healed: Vec::new() });
        }
    }

    #[test]
    fn a_short_prompt_is_written_out_in_full() {
        let tokenizer = tokenizer();
        let snippets = [Snippet { path: "a.rs", text: "fn a();" }, Snippet { path: "b.rs", text: "fn b();" }];
        let prompt = Prompt { path: "c.rs", snippets: &snippets, prefix: "let x = ", suffix: ";\n" };
        let PromptTokens { tokens, healed } = prompt.tokens(&tokenizer, 400);
        let mut expected = vec![SNIPPET];
        expected.extend(tokenizer.encode(b"a.rs\nfn a();"));
        expected.push(SNIPPET);
        expected.extend(tokenizer.encode(b"b.rs\nfn b();"));
        expected.push(SUFFIX);
        expected.extend(tokenizer.encode(b";\n"));
        expected.push(PREFIX);
        expected.extend(tokenizer.encode(b"let x ="));
        assert_eq!((tokens, healed), (expected, b" ".to_vec()));
    }

    #[test]
    fn what_heals_is_the_last_pretoken() {
        for (prefix, healed) in [
            ("foo.unwr", "unwr"),
            ("foo.", "."),
            ("{\n    ", "\n    "),
            ("a;\n", "\n"),
            ("a  ", "  "),
            ("x = le", " le"),
            ("let", "let"),
        ] {
            let prompt = Prompt { prefix, ..Prompt::default() }.tokens(&tokenizer(), 100);
            assert_eq!(prompt.healed, healed.as_bytes(), "{prefix:?}");
            let kept = tokenizer().decode(&prompt.tokens);
            assert_eq!([kept, prompt.healed].concat(), prefix.as_bytes());
        }
    }

    #[test]
    fn healing_takes_back_few_bytes() {
        let prefix = "x".repeat(60);
        let prompt = Prompt { prefix: &prefix, ..Prompt::default() }.tokens(&tokenizer(), 200);
        assert_eq!(prompt.healed.len(), MAX_HEALED);
        assert_eq!(tokenizer().decode(&prompt.tokens).len(), 60 - MAX_HEALED);
    }

    #[test]
    fn the_budget_is_kept_and_the_prefix_has_most_of_it() {
        let text = file(3000);
        let snippets = [Snippet { path: "s.rs", text: &text }, Snippet { path: "t.rs", text: &text }];
        for budget in [2, 3, 10, 40, 64, 500, 2000] {
            for snippets in [&snippets[..], &[]] {
                let prompt = Prompt { path: "x.rs", snippets, prefix: &text, suffix: &text };
                let tokens = prompt.tokens(&tokenizer(), budget).tokens;
                assert!(tokens.len() <= budget, "{} of {budget}", tokens.len());
                let (suffix, prefix) = parts(&tokens);
                if budget >= 500 {
                    assert!(prefix.len() * 10 >= budget * 3, "{} of {budget}", prefix.len());
                    assert!(suffix.len() * 10 >= budget, "{} of {budget}", suffix.len());
                    assert!(tokenizer().decode(&prefix).starts_with(b"\n"), "starts at a line break");
                }
            }
        }
    }

    #[test]
    fn typing_extends_the_tokens_between_rare_jumps() {
        let tokenizer = tokenizer();
        let mut text = file(400);
        let suffix = file(50);
        let budget = 600;
        let mut n_jumps = 0;
        let mut before: Option<PromptTokens> = None;
        for typed in file(6).chars().take(200) {
            text.push(typed);
            let prompt = Prompt { prefix: &text, suffix: &suffix, ..Prompt::default() }.tokens(&tokenizer, budget);
            if let Some(before) = &before {
                n_jumps += usize::from(!prompt.tokens.starts_with(&before.tokens));
            }
            before = Some(prompt);
        }
        // 200 tokens at most, a jump per quarter of 489 and one per half of the byte window.
        assert!(n_jumps <= 4, "{n_jumps}");
    }

    #[test]
    fn windows_cut_no_character_and_survive_one_long_line() {
        for text in ["é".repeat(20_000), "x".repeat(50_000), "ab é\n".repeat(8000)] {
            for extra in 0..4 {
                let prefix = format!("{}{text}", "y".repeat(extra));
                let prompt = Prompt { prefix: &prefix, suffix: &text, ..Prompt::default() };
                let PromptTokens { tokens, healed } = prompt.tokens(&tokenizer(), 300);
                let (_, kept) = parts(&tokens);
                let end = [tokenizer().decode(&kept), healed].concat();
                assert!(!end.is_empty() && prefix.as_bytes().ends_with(&end));
            }
        }
    }

    #[test]
    fn a_document_is_its_prompt_continued() {
        let tokenizer = tokenizer();
        let text = b"fn main() {\n    let x = 1;\n}\n";
        let cut = 20;
        let tokens = document(&tokenizer, &[], text, cut);
        let prefix = tokens.iter().position(|&token| token == PREFIX).expect("a prefix");
        assert_eq!(tokens[0], SUFFIX);
        assert_eq!(tokenizer.decode(&tokens[..prefix]), text[cut..]);
        assert_eq!(tokenizer.decode(&tokens[prefix..]), text[..cut]);
        assert_eq!(tokens.last(), Some(&END));
        assert_eq!(document(&tokenizer, &[], text, text.len())[..2], [SUFFIX, PREFIX]);
        assert_eq!(document(&tokenizer, &[], text, usize::MAX), document(&tokenizer, &[], text, text.len()));
        assert_eq!(document(&tokenizer, &[], b"", 0), [SUFFIX, PREFIX, END]);
    }

    #[test]
    fn snippets_are_trained_as_they_are_served() {
        let tokenizer = tokenizer();
        let text = file(40);
        let snippets = [
            Snippet { path: "", text: "" },
            Snippet { path: "a.rs", text: &text },
            Snippet { path: "b.rs", text: "no line end" },
        ];
        let trained = document(&tokenizer, &snippets, b"fn a() {}", 9);
        let prompt = Prompt { snippets: &snippets, prefix: "fn a() {}", ..Prompt::default() };
        let served = prompt.tokens(&tokenizer, 20 * trained.len()).tokens;
        assert!(trained.starts_with(&served) && served.len() > tokenizer.encode(text.as_bytes()).len());
    }
}
