//! Holes: ranges of bytes cut out of a file at the boundaries of its tokens, for systems to fill.
//!
//! ```text
//! file → cut (statements, expressions, blocks, bodies, lines) → order (seeded) → filters (in run) → holes in use
//! ```
//!
//! Code under `#[cfg(..)]` or `#[test]` is not cut: `cargo check` may not compile it.

pub(crate) mod hole;
mod source;
mod bodies;
mod lines;
pub(crate) mod unit;
pub(crate) mod leak;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

use nanochat_engine::rng::Rng;
use proc_macro2::TokenStream;
use syn::visit::Visit;

use bodies::Bodies;
use hole::short_hash;

pub use hole::{Hole, HoleKind};
pub(crate) use source::parses_with;
pub use unit::first as first_unit;

/// Shorter text is guessed, not completed.
const MIN_CHARS: usize = 4;
/// A statement beyond this is a program; the function body is a hole of its own kind.
const MAX_STATEMENT_LINES: usize = 8;
const MAX_BLOCK_LINES: usize = 12;
const MAX_BODY_LINES: usize = 24;
/// A longer expression is usually a table of data.
const MAX_EXPRESSION_CHARS: usize = 120;
/// How far ahead in the queue to look for a hole in a function with fewer holes.
const LOOK_AHEAD: usize = 64;

/// Cuts all holes of one file, sorted by offset; `None` if it does not parse. Cursors are drawn from `seed` and the
/// file's name, so they do not depend on the other files.
///
/// ```
/// use nanochat_eval::holes::{self, HoleKind};
///
/// let text = "fn area(w: u32, h: u32) -> u32 {\n    let product = w * h;\n    product\n}\n";
/// let holes = holes::cut("geometry", "src/lib.rs", text, 7).expect("it parses");
/// let line = holes.iter().find(|hole| hole.kind == HoleKind::NextLine).expect("a line");
/// assert_eq!(line.truth(text), "let product = w * h;");
/// let filled = line.splice(text, "let product = h * w;");
/// assert!(filled.contains("    let product = h * w;\n    product"));
/// ```
pub fn cut(project: &str, file: &str, text: &str, seed: u64) -> Option<Vec<Hole>> {
    source::with_large_stack(|| {
        let (offset, code) = source::code(text);
        if !source::is_shallow(code) {
            return None;
        }
        let stream: TokenStream = code.parse().ok()?;
        let syntax: syn::File = syn::parse2(stream.clone()).ok()?;
        let mut found = Bodies::default();
        found.visit_file(&syntax);
        let shift = |ranges: &[Range<usize>]| -> Vec<Range<usize>> {
            ranges.iter().map(|range| range.start + offset..range.end + offset).collect()
        };
        let hidden = shift(&found.hidden);
        let functions = shift(&found.functions);

        let mut ranges: Vec<(Range<usize>, HoleKind)> = Vec::new();
        for (kind, found) in [
            (HoleKind::Expression, &found.expressions),
            (HoleKind::Statement, &found.statements),
            (HoleKind::Block, &found.blocks),
            (HoleKind::FunctionBody, &found.filled_bodies),
        ] {
            let whole = shift(found).into_iter().filter(|range| is_whole(kind, text, range));
            ranges.extend(whole.map(|range| (range, kind)));
        }
        let name = name_hash(file);
        let lines = lines::code_lines(text, offset, stream, &shift(&found.bodies));
        for kind in [HoleKind::LineTail, HoleKind::NextLine, HoleKind::RestOfLine] {
            let mut rng = Rng::new(seed ^ name ^ (kind as u64) << 56);
            let drawn = lines.iter().filter_map(|line| match kind {
                HoleKind::LineTail => lines::draw_at_token(text, line, &mut rng),
                HoleKind::RestOfLine => lines::draw_anywhere(text, line, &mut rng),
                _ => has_words(&text[line.range.clone()]).then(|| line.range.clone()),
            });
            ranges.extend(drawn.map(|range| (range, kind)));
        }
        ranges.retain(|(range, _)| !hidden.iter().any(|h| h.start < range.end && range.start < h.end));
        ranges.sort_by_key(|(range, kind)| (range.start, range.end, *kind));
        ranges.dedup();
        let locate = Locate { project, file, text, hash: short_hash(&[text]) };
        let holes = ranges.into_iter().filter_map(|(range, kind)| {
            let at = functions.partition_point(|function| function.start <= range.start).checked_sub(1)?;
            let function = functions[at].clone();
            (range.end <= function.end).then(|| locate.hole(range, kind, function))
        });
        Some(holes.collect())
    })
}

/// The body of the function around byte `at`, as a hole; `None` if there is no function, or its body is empty.
pub(crate) fn body_at(project: &str, file: &str, text: &str, at: usize) -> Option<Hole> {
    source::with_large_stack(|| {
        let syntax: syn::File = source::is_shallow(text).then(|| syn::parse_str(text).ok())??;
        let mut found = Bodies::default();
        found.visit_file(&syntax);
        let function = found.functions.iter().find(|function| function.contains(&at))?.clone();
        let body = found.filled_bodies.iter().find(|body| function.start <= body.start && body.end <= function.end)?;
        let locate = Locate { project, file, text, hash: short_hash(&[text]) };
        Some(locate.hole(body.clone(), HoleKind::FunctionBody, function))
    })
}

/// Puts the holes of a project into the order in which they are tried: shuffled, the kinds taking turns, functions
/// with few holes first, since holes of different functions are compiled together.
pub fn order(mut holes: Vec<Hole>, seed: u64) -> Vec<Hole> {
    let mut rng = Rng::new(seed);
    let mut by_kind: BTreeMap<HoleKind, Vec<Hole>> = BTreeMap::new();
    holes.sort_by(|a, b| (&a.file, a.start, a.end, a.kind).cmp(&(&b.file, b.start, b.end, b.kind)));
    for hole in holes {
        by_kind.entry(hole.kind).or_default().push(hole);
    }
    let mut queues: Vec<VecDeque<Hole>> = by_kind
        .into_values()
        .map(|mut holes| {
            rng.shuffle(&mut holes);
            holes.into()
        })
        .collect();
    let mut n_taken: HashMap<(String, usize), usize> = HashMap::new();
    let mut ordered = Vec::new();
    loop {
        let before = ordered.len();
        for queue in &mut queues {
            let function = |hole: &Hole| (hole.file.clone(), hole.function.0);
            let taken = |hole: &Hole| n_taken.get(&function(hole)).copied().unwrap_or(0);
            let best = queue.iter().take(LOOK_AHEAD).enumerate().min_by_key(|(_, hole)| taken(hole));
            let Some(hole) = best.map(|(at, _)| at).and_then(|at| queue.remove(at)) else { continue };
            *n_taken.entry(function(&hole)).or_default() += 1;
            ordered.push(hole);
        }
        if ordered.len() == before {
            return ordered;
        }
    }
}

/// Whether the end of the hole can be recognized: reading code from its start stops at its end.
fn is_whole(kind: HoleKind, text: &str, range: &Range<usize>) -> bool {
    let truth = &text[range.clone()];
    let max_lines = match kind {
        HoleKind::Statement => MAX_STATEMENT_LINES,
        HoleKind::Block => MAX_BLOCK_LINES,
        HoleKind::FunctionBody => MAX_BODY_LINES,
        _ => 1,
    };
    let is_short = kind != HoleKind::Expression || truth.chars().count() <= MAX_EXPRESSION_CHARS;
    is_substantial(truth)
        && is_short
        && truth.lines().count() <= max_lines
        && unit::first(kind, truth) == truth
        && (kind == HoleKind::Statement || unit::first(kind, &text[range.start..]) == truth)
}

fn is_substantial(text: &str) -> bool {
    text.trim().chars().count() >= MIN_CHARS && text.chars().any(|c| c.is_alphanumeric() || c == '"')
}

/// At least four characters that are neither brackets nor punctuation.
fn has_words(line: &str) -> bool {
    line.chars().filter(|c| c.is_alphanumeric() || *c == '_').count() >= MIN_CHARS
}

/// The file that holes are cut from.
struct Locate<'a> {
    project: &'a str,
    file: &'a str,
    text: &'a str,
    hash: String,
}

impl Locate<'_> {
    fn hole(&self, range: Range<usize>, kind: HoleKind, function: Range<usize>) -> Hole {
        let before = &self.text[..range.start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let place = format!("{}..{} {}", range.start, range.end, kind.name());
        Hole {
            id: short_hash(&[self.project, self.file, &self.hash, &place]),
            project: self.project.to_owned(),
            file: self.file.to_owned(),
            kind,
            start: range.start,
            end: range.end,
            line: before.bytes().filter(|&byte| byte == b'\n').count() + 1,
            col: before[line_start..].chars().count() + 1,
            function: (function.start, function.end),
            prefix_hash: short_hash(&[before]),
            suffix_hash: short_hash(&[&self.text[range.end..]]),
            truth_hash: short_hash(&[&self.text[range]]),
        }
    }
}

/// FNV-1a of a file's name: a seed that is the same on every machine.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
