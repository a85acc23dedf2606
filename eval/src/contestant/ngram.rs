//! An interpolated n-gram model of the text that the memory may hold and of the file at hand.
//!
//! ```text
//! p₀(t)  = (count(t) + T/V) / (N + T)                          T: how many different tokens were seen, V: all there are
//! pₖ(t)  = (count(t after k tokens) + T · pₖ₋₁(t)) / (N + T)   Witten and Bell 1991, method C; PPM's escape, interpolated
//! answer = the most probable token, again and again
//! ```
//!
//! It shares the product's tokenizer, so that bits per byte compare. Of contexts that occur often, evenly spaced
//! occurrences are counted.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use nanochat_engine::score::Score;
use nanochat_engine::tokenizer::{END, N_SPECIALS, TokenId};
use nanochat_engine::{Cancel, Tokenizer};

use super::{Contestant, FillError, Scene, Task, limits};
use crate::record::Answer;
use crate::unit;

/// Most tokens of context. A sort key holds eight.
const MAX_ORDER: usize = 6;
const _: () = assert!(MAX_ORDER <= 8);
/// Most occurrences of a context that are counted.
const MAX_COUNTED: usize = 512;
/// Tokens of the file before the cursor and after the hole that an answer is drawn from.
const LIVE: (usize, usize) = (4096, 2048);
/// What an occurrence in the file at hand counts for: of 1, 2, 4 and 8 the cheapest in bits per byte on files held out
/// of this repository.
const LIVE_WEIGHT: f32 = 4.0;

/// The model.
#[derive(Debug)]
pub struct Ngram {
    tokenizer: Arc<Tokenizer>,
    known: Known,
    /// By file of the project, the bits of each token and where it ends.
    costs: HashMap<String, Vec<(usize, f64)>>,
}

/// Positions of the known text sorted by what stands before them, read backwards.
#[derive(Debug, Default)]
struct Known {
    /// `END` before, between and after the files.
    tokens: Vec<TokenId>,
    order: Vec<u32>,
    files: BTreeMap<String, Range<usize>>,
    /// Occurrences of each token.
    counts: Vec<u32>,
}

/// What followed each context of up to [`MAX_ORDER`] tokens in the file at hand.
#[derive(Debug, Default)]
struct Live {
    next: HashMap<u64, Vec<(TokenId, u32)>>,
}

impl Ngram {
    /// Knows nothing until it enters a project.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, known: Known::default(), costs: HashMap::new() }
    }

    /// Probabilities of the next token, into `p` (one per token of the vocabulary).
    fn predict(&self, context: &[TokenId], excluded: &Range<usize>, live: &Live, p: &mut Vec<f32>) {
        let n_vocab = self.tokenizer.vocab_size();
        p.clear();
        p.resize(n_vocab, 1.0 / (n_vocab - usize::from(N_SPECIALS)) as f32);
        p[..usize::from(N_SPECIALS)].fill(0.0);

        let mut of_all: BTreeMap<TokenId, f32> = BTreeMap::new();
        live.add(&[], &mut of_all);
        let hidden = self.known.counts_of(excluded);
        for (token, &count) in self.known.counts.iter().enumerate() {
            let count = count - hidden.get(&(token as TokenId)).copied().unwrap_or(0);
            if count > 0 {
                *of_all.entry(token as TokenId).or_default() += count as f32;
            }
        }
        interpolate(&of_all, p);

        let mut range = 0..self.known.order.len();
        for n in 1..=MAX_ORDER.min(context.len()) {
            let context = &context[context.len() - n..];
            if context[0] == END {
                break;
            }
            range = self.known.narrow(range, n - 1, context[0]);
            let mut counts = BTreeMap::new();
            live.add(context, &mut counts);
            self.known.add(&range, excluded, &mut counts);
            if counts.is_empty() {
                break;
            }
            interpolate(&counts, p);
        }
    }

    fn generate(&self, task: &Task<'_>, cancel: &Cancel) -> Result<Answer, FillError> {
        let mut context = self.tokenizer.encode(task.prefix.as_bytes());
        // A cursor within a word splits its token: the last one is read again as bytes that the answer begins with.
        let mut begun: Vec<u8> =
            context.pop().map_or_else(Vec::new, |token| self.tokenizer.token_bytes(token).to_vec());
        let n_begun = begun.len();
        let suffix = self.tokenizer.encode(task.suffix.as_bytes());
        let mut live = Live::default();
        live.read(&context[context.len().saturating_sub(LIVE.0)..]);
        live.read(&suffix[..suffix.len().min(LIVE.1)]);
        let excluded = self.known.files.get(task.file).cloned().unwrap_or_default();

        let limits = limits(task.kind);
        let (mut bytes, mut p, mut chosen) = (Vec::new(), Vec::new(), Vec::new());
        while chosen.len() < limits.max_tokens {
            cancel.check()?;
            self.predict(&context, &excluded, &live, &mut p);
            if !begun.is_empty() {
                let compatible = self.tokenizer.tokens_compatible_with(&begun);
                let mut healed = vec![0.0; p.len()];
                compatible.iter().for_each(|&token| healed[usize::from(token)] = p[usize::from(token)]);
                p = healed;
            }
            let Some((token, &best)) = p.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1)) else { break };
            if best <= 0.0 {
                break;
            }
            let token = token as TokenId;
            let of_token = self.tokenizer.token_bytes(token);
            chosen.push((bytes.len(), f64::from(best)));
            bytes.extend_from_slice(of_token);
            begun.drain(..of_token.len().min(begun.len()));
            context.push(token);
            let is_line = limits.max_lines == 1 && bytes.len() > n_begun && bytes[n_begun..].contains(&b'\n');
            if is_line {
                break;
            }
        }
        let text = String::from_utf8_lossy(bytes.get(n_begun..).unwrap_or_default()).into_owned();
        let text = unit::first(task.kind, &text);
        chosen.retain(|(start, _)| *start < n_begun + text.len());
        let log_p: f64 = chosen.iter().map(|(_, p)| p.ln()).sum();
        Ok(Answer {
            tokens: Some(chosen.len()),
            confidence: Some((log_p / chosen.len().max(1) as f64).exp()),
            ..Some(text.to_owned()).into()
        })
    }

    fn costs_of(&self, file: &str, text: &str, cancel: &Cancel) -> Result<Vec<(usize, f64)>, FillError> {
        let tokens = self.tokenizer.encode(text.as_bytes());
        let excluded = self.known.files.get(file).cloned().unwrap_or_default();
        let (mut live, mut p, mut end) = (Live::default(), Vec::new(), 0);
        let mut costs = Vec::with_capacity(tokens.len());
        for (i, &token) in tokens.iter().enumerate() {
            cancel.check()?;
            self.predict(&tokens[..i], &excluded, &live, &mut p);
            end += self.tokenizer.token_bytes(token).len();
            costs.push((end, -f64::from(p[usize::from(token)].max(f32::MIN_POSITIVE)).log2()));
            live.follow(&tokens[..i], token);
        }
        Ok(costs)
    }
}

impl Contestant for Ngram {
    fn name(&self) -> &str {
        "n-gram"
    }

    fn enter(&mut self, scene: &Scene<'_>, cancel: &Cancel) -> Result<(), FillError> {
        cancel.check()?;
        self.costs.clear();
        let files = scene.known.iter().map(|file| (file.name.clone(), self.tokenizer.encode(file.text.as_bytes())));
        self.known = Known::build(files.collect(), self.tokenizer.vocab_size());
        Ok(())
    }

    fn fill(&mut self, task: &Task<'_>, cancel: &Cancel) -> Result<Answer, FillError> {
        self.generate(task, cancel)
    }

    fn cost(&mut self, task: &Task<'_>, truth: &str, cancel: &Cancel) -> Result<Option<Score>, FillError> {
        if !self.costs.contains_key(task.file) {
            let text = [task.prefix, truth, task.suffix].concat();
            let costs = self.costs_of(task.file, &text, cancel)?;
            self.costs.insert(task.file.to_owned(), costs);
        }
        let start = task.prefix.len();
        Ok(Some(super::part(&self.costs[task.file], start..start + truth.len())))
    }
}

impl Known {
    /// Token streams by name; of a name that occurs twice, the last.
    fn build(files: BTreeMap<String, Vec<TokenId>>, n_vocab: usize) -> Self {
        let mut known = Self { tokens: vec![END], counts: vec![0; n_vocab], ..Self::default() };
        for (name, stream) in files {
            let start = known.tokens.len();
            stream.iter().for_each(|token| known.counts[usize::from(*token)] += 1);
            known.tokens.extend(stream);
            known.files.insert(name, start..known.tokens.len());
            known.tokens.push(END);
        }
        let key = |at: usize| {
            let before = known.tokens[at.saturating_sub(8)..at].iter().rev();
            let mut key = 0u128;
            for (i, &token) in before.take_while(|token| **token != END).enumerate() {
                key |= u128::from(token) << (112 - 16 * i);
            }
            key
        };
        let positions = (1..known.tokens.len()).filter(|&at| known.tokens[at] != END && known.tokens[at - 1] != END);
        let mut keyed: Vec<(u128, u32)> =
            positions.map(|at| (key(at), u32::try_from(at).expect("a project has fewer than 2³² tokens"))).collect();
        keyed.sort_unstable();
        known.order = keyed.into_iter().map(|(_, at)| at).collect();
        known
    }

    /// The part of `range` whose token `depth` + 1 before the position is `token`.
    fn narrow(&self, range: Range<usize>, depth: usize, token: TokenId) -> Range<usize> {
        // Every position of the range has `depth` tokens before it that are not END, so one more stands there.
        let before = |at: &u32| self.tokens[*at as usize - 1 - depth];
        let positions = &self.order[range.clone()];
        let start = positions.partition_point(|at| before(at) < token);
        let n_equal = positions[start..].partition_point(|at| before(at) == token);
        range.start + start..range.start + start + n_equal
    }

    /// Adds what follows the positions of `range` that are not excluded.
    fn add(&self, range: &Range<usize>, excluded: &Range<usize>, counts: &mut BTreeMap<TokenId, f32>) {
        let stride = range.len().div_ceil(MAX_COUNTED).max(1);
        for &at in self.order[range.clone()].iter().step_by(stride) {
            if !excluded.contains(&(at as usize)) {
                *counts.entry(self.tokens[at as usize]).or_default() += stride as f32;
            }
        }
    }

    fn counts_of(&self, range: &Range<usize>) -> HashMap<TokenId, u32> {
        let mut counts = HashMap::new();
        self.tokens[range.clone()].iter().for_each(|&token| *counts.entry(token).or_default() += 1);
        counts
    }
}

impl Live {
    fn read(&mut self, tokens: &[TokenId]) {
        for (i, &token) in tokens.iter().enumerate() {
            self.follow(&tokens[..i], token);
        }
    }

    /// `token` stands after `context`.
    fn follow(&mut self, context: &[TokenId], token: TokenId) {
        for n in 0..=MAX_ORDER.min(context.len()) {
            let next = self.next.entry(hash(&context[context.len() - n..])).or_default();
            match next.iter_mut().find(|(other, _)| *other == token) {
                Some((_, count)) => *count += 1,
                None => next.push((token, 1)),
            }
        }
    }

    fn add(&self, context: &[TokenId], counts: &mut BTreeMap<TokenId, f32>) {
        for &(token, count) in self.next.get(&hash(context)).into_iter().flatten() {
            *counts.entry(token).or_default() += LIVE_WEIGHT * count as f32;
        }
    }
}

/// p ← (count + T·p) / (N + T).
fn interpolate(counts: &BTreeMap<TokenId, f32>, p: &mut [f32]) {
    let (n, t) = (counts.values().sum::<f32>(), counts.len() as f32);
    if t == 0.0 {
        return;
    }
    p.iter_mut().for_each(|p| *p *= t / (n + t));
    for (&token, count) in counts {
        p[usize::from(token)] += count / (n + t);
    }
}

/// FNV-1a over tokens, their number first: contexts of different lengths differ.
fn hash(context: &[TokenId]) -> u64 {
    context.iter().fold(0xcbf2_9ce4_8422_2325 ^ context.len() as u64, |hash, token| {
        (hash ^ u64::from(*token)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use nanochat_engine::sources::SourceFile;

    use super::*;
    use crate::holes::HoleKind;

    fn entered(files: &[(&str, &str)]) -> Ngram {
        let mut ngram = Ngram::new(Arc::new(Tokenizer::bytes()));
        let file =
            |&(name, text): &(&str, &str)| SourceFile { name: name.into(), path: name.into(), text: text.into() };
        let known: Vec<_> = files.iter().map(file).collect();
        let scene = Scene { project: "p", texts: &BTreeMap::new(), known: &known };
        ngram.enter(&scene, &Cancel::new()).expect("it is not cancelled");
        ngram
    }

    fn filled(ngram: &mut Ngram, prefix: &str, suffix: &str) -> String {
        let task = Task { file: "a.rs", kind: HoleKind::RestOfLine, prefix, suffix };
        ngram.fill(&task, &Cancel::new()).expect("it is not cancelled").text.expect("it always answers")
    }

    #[test]
    fn what_was_seen_is_continued_to_the_end_of_the_line() {
        let mut ngram = entered(&[("b.rs", "let total = sum(&values);\nlet total = sum(&values);\n")]);
        assert_eq!(filled(&mut ngram, "    let total = s", "\n}"), "um(&values);");
        let mut nothing = entered(&[]);
        assert_eq!(filled(&mut nothing, "print(11);\nprint(11);\npri", "\n"), "nt(11);");
    }

    #[test]
    fn the_saved_copy_of_the_file_at_hand_is_not_read() {
        let mut ngram = entered(&[("a.rs", "key = \"hunter2\";\nkey = \"hunter2\";\n"), ("b.rs", "key = none();\n")]);
        assert_eq!(filled(&mut ngram, "key = ", "\n"), "none();");
    }

    #[test]
    fn probabilities_sum_to_one_and_specials_have_none() {
        let ngram = entered(&[("a.rs", "fn a() { b(c); }"), ("b.rs", "fn b() { a(); }")]);
        let mut live = Live::default();
        let context = ngram.tokenizer.encode(b"fn b() { ");
        live.read(&context);
        for n in 0..=context.len() {
            for excluded in [0..0, ngram.known.files["a.rs"].clone()] {
                let mut p = Vec::new();
                ngram.predict(&context[..n], &excluded, &live, &mut p);
                // 264 terms of at most 1 and seven rounds, each rounded to 2⁻²⁴
                assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-4, "{n}");
                assert!(p[..usize::from(N_SPECIALS)].iter().all(|p| *p == 0.0));
                assert!(p[usize::from(N_SPECIALS)..].iter().all(|p| *p > 0.0));
            }
        }
    }

    #[test]
    fn what_was_seen_before_costs_little() {
        let line = "let answer = compute(everything);\n";
        let mut ngram = entered(&[("b.rs", line)]);
        let mut cost = |file, truth| {
            let task = Task { file, kind: HoleKind::NextLine, prefix: "", suffix: "\n" };
            let cost = ngram.cost(&task, truth, &Cancel::new()).expect("it is not cancelled");
            cost.expect("it gives probabilities").bits_per_byte()
        };
        let (seen, unseen) = (cost("a.rs", line.trim()), cost("c.rs", "Zq7#Zq8#Zq9#Zq10#Zq11#"));
        assert!(seen < 2.0 && unseen > 5.0, "{seen} {unseen}");
    }
}
