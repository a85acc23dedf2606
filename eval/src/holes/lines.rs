//! Lines of code and the tails that are cut from them.

use std::ops::Range;

use nanochat_engine::rng::Rng;
use proc_macro2::{TokenStream, TokenTree};

use super::is_substantial;

/// A line that holds code only, without its indentation.
pub(super) struct CodeLine {
    /// From its first to its last token.
    pub(super) range: Range<usize>,
    /// Byte offset of each token.
    pub(super) tokens: Vec<usize>,
}

/// The lines inside function bodies that hold code only.
pub(super) fn code_lines(text: &str, offset: usize, stream: TokenStream, bodies: &[Range<usize>]) -> Vec<CodeLine> {
    let mut tokens = Vec::new();
    leaves(stream, offset, &mut tokens);
    tokens.sort_by_key(|range| range.start);
    let mut lines = Vec::new();
    let mut line_start = 0;
    let mut tokens = tokens.into_iter().peekable();
    let mut covered_to = 0; // end of the last token so far: a literal may span lines
    for line in text.split_inclusive('\n') {
        let line_end = line_start + line.len();
        let mut starts = Vec::new();
        let mut last_end = 0;
        let broken_before = covered_to > line_start;
        while let Some(token) = tokens.next_if(|token| token.start < line_end) {
            starts.push(token.start);
            last_end = token.end;
            covered_to = covered_to.max(token.end);
        }
        let code_end = line_start + line.trim_end().len();
        if let Some(&first) = starts.first()
            && !broken_before
            && last_end == code_end // neither a comment nor an unfinished literal at its end
            && !line.trim_start().starts_with("//")
            && bodies.iter().any(|body| body.start <= first && code_end <= body.end)
        {
            lines.push(CodeLine { range: first..code_end, tokens: starts });
        }
        line_start = line_end;
    }
    lines
}

/// From a token after the first to the end of the line.
pub(super) fn draw_at_token(text: &str, line: &CodeLine, rng: &mut Rng) -> Option<Range<usize>> {
    let n_cursors = line.tokens.len().checked_sub(1).filter(|&n| n > 0)?;
    let cursor = line.tokens[1 + rng.below(n_cursors)];
    is_substantial(&text[cursor..line.range.end]).then_some(cursor..line.range.end)
}

/// From a character in the middle half of the line to its end.
pub(super) fn draw_anywhere(text: &str, line: &CodeLine, rng: &mut Rng) -> Option<Range<usize>> {
    let code = &text[line.range.clone()];
    let starts: Vec<usize> = code.char_indices().map(|(at, _)| at).collect();
    let (low, high) = (starts.len() / 4, starts.len() * 3 / 4);
    if low == 0 || low >= high {
        return None;
    }
    let cursor = line.range.start + starts[low + rng.below(high - low)];
    is_substantial(&text[cursor..line.range.end]).then_some(cursor..line.range.end)
}

/// Byte ranges of individual tokens: delimiters, words, punctuation, literals.
fn leaves(stream: TokenStream, offset: usize, out: &mut Vec<Range<usize>>) {
    let shift = |span: proc_macro2::Span| span.byte_range().start + offset..span.byte_range().end + offset;
    for tree in stream {
        match tree {
            TokenTree::Group(group) => {
                out.extend([shift(group.span_open()), shift(group.span_close())]);
                leaves(group.stream(), offset, out);
            }
            other => out.push(shift(other.span())),
        }
    }
}
