//! Places to fill: statements and line tails of function bodies, cut at the byte offsets of their tokens.
//!
//! A statement hole is one whole statement. A line-tail hole has its cursor at a uniformly drawn character in the
//! middle half of a line of code, and a tail of at least four characters that is not punctuation only. What stands
//! under `#[cfg(..)]` or `#[test]` is not cut: `cargo check` may not see it.

use std::collections::BTreeMap;
use std::ops::Range;

use nanochat_engine::rng::Rng;
use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::source;
use crate::unit;

/// Shorter text is guessed, not completed.
const MIN_CHARS: usize = 4;
/// A statement beyond this is a program; the function body is a hole of its own kind.
const MAX_STATEMENT_LINES: usize = 8;

/// What was cut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoleKind {
    /// One whole statement, without the indentation before it.
    Statement,
    /// From a cursor within a line to the end of that line.
    LineTail,
}

/// A place to fill: the bytes `start..end` of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Hole {
    /// Relative to the workspace's root, with `/`.
    pub file: String,
    /// Byte offset of the cursor.
    pub start: usize,
    /// Byte offset of what follows.
    pub end: usize,
    /// What was cut out.
    pub kind: HoleKind,
    /// Line of the cursor, from 1.
    pub line: usize,
    /// Column of the cursor in characters, from 1.
    pub col: usize,
}

impl Hole {
    /// What was cut out of `text`, the file's text.
    pub fn truth<'a>(&self, text: &'a str) -> &'a str {
        &text[self.start..self.end]
    }

    /// The file's text with `middle` in the hole.
    pub fn splice(&self, text: &str, middle: &str) -> String {
        [&text[..self.start], middle, &text[self.end..]].concat()
    }
}

/// All holes of one file, by offset; `None` if it does not parse. The cursors of line tails are drawn from `seed`
/// and the file's name, so they do not depend on the other files.
pub fn cut(file: &str, text: &str, seed: u64) -> Option<Vec<Hole>> {
    source::with_large_stack(|| {
        let (offset, code) = source::code(text);
        if !source::is_shallow(code) {
            return None;
        }
        let stream: TokenStream = code.parse().ok()?;
        let syntax: syn::File = syn::parse2(stream.clone()).ok()?;
        let mut bodies = Bodies::default();
        bodies.visit_file(&syntax);
        let shift = |range: &Range<usize>| range.start + offset..range.end + offset;
        let hidden: Vec<Range<usize>> = bodies.hidden.iter().map(shift).collect();
        let is_hidden = |range: &Range<usize>| hidden.iter().any(|h| h.start < range.end && range.start < h.end);

        let mut ranges: Vec<(Range<usize>, HoleKind)> = Vec::new();
        for statement in bodies.statements.iter().map(shift) {
            let truth = &text[statement.clone()];
            if is_substantial(truth)
                && truth.lines().count() <= MAX_STATEMENT_LINES
                && unit::first(HoleKind::Statement, truth) == truth
            {
                ranges.push((statement, HoleKind::Statement));
            }
        }
        let mut rng = Rng::new(seed ^ name_hash(file));
        for line in code_lines(text, offset, stream, &bodies.bodies.iter().map(shift).collect::<Vec<_>>()) {
            if let Some(tail) = draw_tail(text, line, &mut rng) {
                ranges.push((tail, HoleKind::LineTail));
            }
        }
        ranges.retain(|(range, _)| !is_hidden(range));
        ranges.sort_by_key(|(range, kind)| (range.start, range.end, *kind));
        ranges.dedup();
        Some(ranges.into_iter().map(|(range, kind)| locate(file, text, range, kind)).collect())
    })
}

/// Puts the holes of all files into the order in which they are tried: shuffled, the kinds taking turns.
pub fn order(holes: Vec<Hole>, seed: u64) -> Vec<Hole> {
    let mut rng = Rng::new(seed);
    let mut by_kind: BTreeMap<HoleKind, Vec<Hole>> = BTreeMap::new();
    let mut holes = holes;
    holes.sort();
    for hole in holes {
        by_kind.entry(hole.kind).or_default().push(hole);
    }
    let mut queues: Vec<_> = by_kind
        .into_values()
        .map(|mut holes| {
            rng.shuffle(&mut holes);
            holes.into_iter()
        })
        .collect();
    let mut ordered = Vec::new();
    loop {
        let before = ordered.len();
        ordered.extend(queues.iter_mut().filter_map(Iterator::next));
        if ordered.len() == before {
            return ordered;
        }
    }
}

/// Where functions and their statements lie, in bytes of the parsed code.
#[derive(Default)]
struct Bodies {
    bodies: Vec<Range<usize>>,
    statements: Vec<Range<usize>>,
    hidden: Vec<Range<usize>>,
    depth: usize,
}

impl Bodies {
    /// Notes the node as hidden if an attribute makes it conditional.
    fn hide(&mut self, attrs: &[syn::Attribute], node: &impl Spanned) -> bool {
        let conditional = attrs.iter().any(|attr| {
            attr.path().segments.last().is_some_and(|s| s.ident == "cfg" || s.ident == "cfg_attr" || s.ident == "test")
        });
        if conditional {
            self.hidden.push(node.span().byte_range());
        }
        conditional
    }

    fn body(&mut self, block: &syn::Block, visit: impl FnOnce(&mut Self)) {
        self.bodies
            .push(block.brace_token.span.open().byte_range().end..block.brace_token.span.close().byte_range().start);
        self.depth += 1;
        visit(self);
        self.depth -= 1;
    }
}

impl<'ast> Visit<'ast> for Bodies {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        use syn::Item;
        let attrs: &[syn::Attribute] = match item {
            Item::Const(item) => &item.attrs,
            Item::Enum(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Static(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            _ => return, // nothing else holds a function body that is not a macro's
        };
        if !self.hide(attrs, item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.body(&item.block, |this| visit::visit_item_fn(this, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !self.hide(&item.attrs, item) {
            self.body(&item.block, |this| visit::visit_impl_item_fn(this, item));
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        let Some(block) = &item.default else { return };
        if !self.hide(&item.attrs, item) {
            self.body(block, |this| visit::visit_trait_item_fn(this, item));
        }
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if !self.hide(&arm.attrs, arm) {
            visit::visit_arm(self, arm);
        }
    }

    fn visit_stmt(&mut self, statement: &'ast syn::Stmt) {
        let hidden = match statement {
            syn::Stmt::Local(local) => self.hide(&local.attrs, statement),
            syn::Stmt::Macro(call) => self.hide(&call.attrs, statement),
            syn::Stmt::Item(_) | syn::Stmt::Expr(..) => false,
        };
        if hidden {
            return;
        }
        if self.depth > 0 && !matches!(statement, syn::Stmt::Item(_)) {
            self.statements.push(statement.span().byte_range());
        }
        visit::visit_stmt(self, statement);
    }
}

/// The parts of lines that hold code only, from their first to their last token, and lie within a body.
fn code_lines(text: &str, offset: usize, stream: TokenStream, bodies: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut tokens = Vec::new();
    leaves(stream, offset, &mut tokens);
    tokens.sort_by_key(|range| range.start);
    let mut lines = Vec::new();
    let mut line_start = 0;
    let mut tokens = tokens.into_iter().peekable();
    let mut covered_to = 0; // end of the last token so far: a literal may span lines
    for line in text.split_inclusive('\n') {
        let line_end = line_start + line.len();
        let mut first = None;
        let mut last_end = 0;
        let broken_before = covered_to > line_start;
        while let Some(token) = tokens.next_if(|token| token.start < line_end) {
            first.get_or_insert(token.start);
            last_end = token.end;
            covered_to = covered_to.max(token.end);
        }
        let code_end = line_start + line.trim_end().len();
        if let Some(first) = first
            && !broken_before
            && last_end == code_end // neither a comment nor an unfinished literal at its end
            && !line.trim_start().starts_with("//")
            && bodies.iter().any(|body| body.start <= first && code_end <= body.end)
        {
            lines.push(first..code_end);
        }
        line_start = line_end;
    }
    lines
}

/// Byte ranges of single tokens: delimiters, words, punctuation, literals.
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

/// From a character in the middle half of the line to its end.
fn draw_tail(text: &str, line: Range<usize>, rng: &mut Rng) -> Option<Range<usize>> {
    let code = &text[line.clone()];
    let starts: Vec<usize> = code.char_indices().map(|(at, _)| at).collect();
    let (low, high) = (starts.len() / 4, starts.len() * 3 / 4);
    if low == 0 || low >= high {
        return None;
    }
    let cursor = line.start + starts[low + rng.below(high - low)];
    is_substantial(&text[cursor..line.end]).then_some(cursor..line.end)
}

fn is_substantial(text: &str) -> bool {
    text.trim().chars().count() >= MIN_CHARS && text.chars().any(|c| c.is_alphanumeric() || c == '"')
}

fn locate(file: &str, text: &str, range: Range<usize>, kind: HoleKind) -> Hole {
    let before = &text[..range.start];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Hole {
        file: file.to_owned(),
        start: range.start,
        end: range.end,
        kind,
        line: before.bytes().filter(|&byte| byte == b'\n').count() + 1,
        col: before[line_start..].chars().count() + 1,
    }
}

/// FNV-1a: tells files apart, the same on every machine.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\u{feff}#!/usr/bin/env rust\n// größer\nfn straße(ä: &str) -> usize {\n    \
        let größe = ä.chars().count(); let λ = 1;\n    println!(\"„Zitat“ {größe}\"); // Rand\n    \
        let s = \"eins\n zwei drei vier fünf sechs\";\n    if größe > 3 {\n        return größe + λ;\n    }\n    \
        s.len() + größe\n}\n#[cfg(test)]\nmod tests { fn hidden() { let never = 1 + 2 + 3; } }\n\
        fn mixed() -> u32 {\n    #[cfg(unix)]\n    let os = \"unix only\";\n    let seven = 3 + 4;\n    seven\n}\n";

    fn texts(kind: HoleKind) -> Vec<&'static str> {
        let holes = cut("a.rs", SAMPLE, 7).expect("it parses");
        holes.iter().filter(|hole| hole.kind == kind).map(|hole| hole.truth(SAMPLE)).collect()
    }

    #[test]
    fn statements_are_whole_and_in_order() {
        assert_eq!(
            texts(HoleKind::Statement),
            [
                "let größe = ä.chars().count();",
                "let λ = 1;",
                "println!(\"„Zitat“ {größe}\");",
                "let s = \"eins\n zwei drei vier fünf sechs\";",
                "if größe > 3 {\n        return größe + λ;\n    }",
                "return größe + λ;",
                "s.len() + größe",
                "let seven = 3 + 4;",
                "seven",
            ]
        );
    }

    #[test]
    fn tails_end_lines_of_code_and_begin_in_their_middle_half() {
        for seed in 0..40 {
            for hole in cut("a.rs", SAMPLE, seed).expect("it parses") {
                if hole.kind != HoleKind::LineTail {
                    continue;
                }
                let line = SAMPLE.lines().nth(hole.line - 1).expect("the line exists");
                assert!(line.ends_with(hole.truth(SAMPLE)), "{line}");
                assert!(!line.contains("Rand") && !line.contains("zwei") && !line.contains("never"), "{line}");
                let indent = line.len() - line.trim_start().len();
                let n = line.trim().chars().count();
                let at = hole.col - 1 - indent;
                assert!((n / 4..n * 3 / 4).contains(&at), "{line} at {at}");
                assert_eq!(line.chars().skip(hole.col - 1).collect::<String>(), hole.truth(SAMPLE));
            }
        }
    }

    #[test]
    fn splicing_the_truth_gives_back_the_file() {
        let holes = cut("a.rs", SAMPLE, 3).expect("it parses");
        assert!(holes.len() > 8);
        for hole in holes {
            assert_eq!(hole.splice(SAMPLE, hole.truth(SAMPLE)), SAMPLE);
        }
    }

    #[test]
    fn a_seed_names_its_holes_and_their_order() {
        let draw = |seed| order(cut("a.rs", SAMPLE, seed).expect("it parses"), seed);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn text_that_is_not_rust_has_no_holes() {
        assert_eq!(cut("a.rs", "fn main( {", 0), None);
        assert_eq!(cut("a.rs", &"(".repeat(100_000), 0), None);
    }
}
