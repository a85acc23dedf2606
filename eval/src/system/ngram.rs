//! An interpolated n-gram model of the text that the memory may hold and of the current file.
//!
//! ```text
//! p₀(t)  = (count(t) + T/V) / (N + T)                          T: how many different tokens were seen, V: all there are
//! pₖ(t)  = (count(t after k tokens) + T · pₖ₋₁(t)) / (N + T)   Witten and Bell 1991, method C; PPM's escape, interpolated
//! completion = greedy: the most probable token, repeatedly
//! ```
//!
//! It shares the product's tokenizer, so that bits per byte compare. For frequent contexts only a sample of evenly
//! spaced occurrences is counted.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use nanochat_engine::score::Score;
use nanochat_engine::text::tokenizer::{END, N_SPECIALS, TokenId};
use nanochat_engine::{Cancel, Tokenizer};

use super::{Completion, FileText, ProjectContext, System, SystemError, Task, limits};
use crate::holes::first_unit;

/// Most tokens of context. Two sort keys hold eight.
const MAX_ORDER: usize = 6;
const _: () = assert!(MAX_ORDER <= 8);
/// Most occurrences of a context that are counted.
const MAX_COUNTED: usize = 512;
/// Tokens of the file before the cursor and after the hole that a completion may use.
const LIVE: (usize, usize) = (4096, 2048);
/// Weight of an occurrence in the current file: of 1, 2, 4 and 8 the cheapest in bits per byte on files held out
/// of this repository.
const LIVE_WEIGHT: f32 = 4.0;

/// The n-gram model of one project at a time.
#[derive(Debug)]
pub struct Ngram {
    tokenizer: Arc<Tokenizer>,
    corpus: Corpus,
}

/// Positions of the known text, sorted by the text before them read backwards.
#[derive(Debug, Default)]
struct Corpus {
    /// `END` before, between and after the files.
    tokens: Vec<TokenId>,
    order: Vec<u32>,
    files: BTreeMap<String, Range<usize>>,
    /// Occurrences of each token.
    counts: Vec<u32>,
}

/// How often each token occurs, regardless of context.
#[derive(Debug)]
struct Unigrams {
    counts: Vec<f32>,
    n: f32,
    n_different: f32,
}

/// Counts of what followed each context of up to [`MAX_ORDER`] tokens in the current file.
#[derive(Debug, Default)]
struct Live {
    next: HashMap<u64, Vec<(TokenId, u32)>>,
}

impl Ngram {
    /// A model that knows nothing until it enters a project.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, corpus: Corpus::default() }
    }

    /// Counts of the corpus without the current file, plus what is read of that file.
    fn unigrams(&self, excluded: &Range<usize>, live: &Live) -> Unigrams {
        let mut counts: Vec<f32> = self.corpus.counts.iter().map(|count| *count as f32).collect();
        counts.resize(self.tokenizer.vocab_size(), 0.0);
        for &token in self.corpus.tokens.get(excluded.clone()).unwrap_or_default() {
            counts[usize::from(token)] -= 1.0;
        }
        let mut unigrams = Unigrams {
            n: counts.iter().sum(),
            n_different: counts.iter().filter(|count| **count > 0.0).count() as f32,
            counts,
        };
        for &(token, count) in live.next.get(&hash(&[])).into_iter().flatten() {
            unigrams.add(token, LIVE_WEIGHT * count as f32);
        }
        unigrams
    }

    /// What followed the last token of the context, the last two, and so on as far as they occur.
    fn counts(&self, context: &[TokenId], excluded: &Range<usize>, live: &Live) -> Vec<BTreeMap<TokenId, f32>> {
        let mut range = 0..self.corpus.order.len();
        let mut all = Vec::with_capacity(MAX_ORDER);
        for n in 1..=MAX_ORDER.min(context.len()) {
            let context = &context[context.len() - n..];
            if context[0] == END {
                break;
            }
            range = self.corpus.narrow(range, n - 1, context[0]);
            let mut counts = BTreeMap::new();
            live.add(context, &mut counts);
            self.corpus.add(&range, excluded, &mut counts);
            if counts.is_empty() {
                break;
            }
            all.push(counts);
        }
        all
    }

    /// Probabilities of the next token, one per token of the vocabulary.
    fn predict(&self, unigrams: &[f32], context: &[TokenId], excluded: &Range<usize>, live: &Live) -> Vec<f32> {
        let mut p = unigrams.to_vec();
        for counts in self.counts(context, excluded, live) {
            interpolate(&counts, &mut p);
        }
        p
    }

    fn generate(&self, task: &Task<'_>, cancel: &Cancel) -> Result<Completion, SystemError> {
        let mut context = self.tokenizer.encode(task.prefix.as_bytes());
        // A cursor within a word splits its token: the last token is healed, its bytes must start the completion.
        let mut healed_bytes: Vec<u8> =
            context.pop().map_or_else(Vec::new, |token| self.tokenizer.token_bytes(token).to_vec());
        let n_healed = healed_bytes.len();
        let suffix = self.tokenizer.encode(task.suffix.as_bytes());
        let mut live = Live::default();
        live.read(&context[context.len().saturating_sub(LIVE.0)..]);
        live.read(&suffix[..suffix.len().min(LIVE.1)]);
        let excluded = self.corpus.files.get(task.file).cloned().unwrap_or_default();

        let limits = limits(task.kind);
        let unigrams = self.unigrams(&excluded, &live).all();
        let (mut bytes, mut chosen) = (Vec::new(), Vec::new());
        while chosen.len() < limits.max_tokens {
            cancel.check()?;
            let mut p = self.predict(&unigrams, &context, &excluded, &live);
            if !healed_bytes.is_empty() {
                let compatible = self.tokenizer.tokens_compatible_with(&healed_bytes);
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
            healed_bytes.drain(..of_token.len().min(healed_bytes.len()));
            context.push(token);
            let is_line = limits.max_lines == 1 && bytes.len() > n_healed && bytes[n_healed..].contains(&b'\n');
            if is_line {
                break;
            }
        }
        let text = String::from_utf8_lossy(bytes.get(n_healed..).unwrap_or_default()).into_owned();
        let text = first_unit(task.kind, &text);
        chosen.retain(|(start, _)| *start < n_healed + text.len());
        let log_p: f64 = chosen.iter().map(|(_, p)| p.ln()).sum();
        Ok(Completion {
            tokens: Some(chosen.len()),
            confidence: Some((log_p / chosen.len().max(1) as f64).exp()),
            ..Some(text.to_owned()).into()
        })
    }
}

impl System for Ngram {
    fn name(&self) -> &str {
        "n-gram"
    }

    fn enter(&mut self, scene: &ProjectContext<'_>, cancel: &Cancel) -> Result<(), SystemError> {
        cancel.check()?;
        let files = scene.known.streams(&self.tokenizer).into_iter().collect();
        self.corpus = Corpus::build(files, self.tokenizer.vocab_size());
        Ok(())
    }

    fn complete(&mut self, task: &Task<'_>, cancel: &Cancel) -> Result<Completion, SystemError> {
        self.generate(task, cancel)
    }

    /// The file is read once from its start; tokens outside of holes are not computed.
    fn costs(&mut self, text: &FileText<'_>, cancel: &Cancel) -> Result<Option<Vec<Score>>, SystemError> {
        let tokens = self.tokenizer.encode(text.to_last_hole().as_bytes());
        let excluded = self.corpus.files.get(text.file).cloned().unwrap_or_default();
        let mut live = Live::default();
        let mut unigrams = self.unigrams(&excluded, &live);
        let (mut end, mut costs) = (0, Vec::with_capacity(tokens.len()));
        for (i, &token) in tokens.iter().enumerate() {
            cancel.check()?;
            let start = end;
            end += self.tokenizer.token_bytes(token).len();
            let p = if text.overlaps_hole(&(start..end)) {
                let of_context = self.counts(&tokens[..i], &excluded, &live);
                of_context.iter().fold(unigrams.of(token), |p, counts| {
                    let (n, t) = (counts.values().sum::<f32>(), counts.len() as f32);
                    (counts.get(&token).copied().unwrap_or(0.0) + t * p) / (n + t)
                })
            } else {
                1.0
            };
            costs.push((end, -f64::from(p.max(f32::MIN_POSITIVE)).log2()));
            live.follow(&tokens[..i], token);
            unigrams.add(token, LIVE_WEIGHT);
        }
        Ok(Some(text.scores(&costs)))
    }
}

impl Unigrams {
    fn add(&mut self, token: TokenId, count: f32) {
        let of_token = &mut self.counts[usize::from(token)];
        self.n_different += f32::from(u8::from(*of_token == 0.0));
        *of_token += count;
        self.n += count;
    }

    /// The probability of a token, specials aside: p₀.
    fn of(&self, token: TokenId) -> f32 {
        let uniform = 1.0 / (self.counts.len() - usize::from(N_SPECIALS)) as f32;
        if self.n_different == 0.0 {
            return uniform;
        }
        (self.counts[usize::from(token)] + self.n_different * uniform) / (self.n + self.n_different)
    }

    /// The probabilities of all tokens; specials have none.
    fn all(&self) -> Vec<f32> {
        let n_tokens = TokenId::try_from(self.counts.len()).expect("tokens have numbers");
        (0..n_tokens).map(|token| if token < TokenId::from(N_SPECIALS) { 0.0 } else { self.of(token) }).collect()
    }
}

impl Corpus {
    /// Builds the index from token streams by file name.
    fn build(files: BTreeMap<String, Vec<TokenId>>, n_vocab: usize) -> Self {
        let mut known = Self { tokens: vec![END], counts: vec![0; n_vocab], ..Self::default() };
        for (name, stream) in files {
            let start = known.tokens.len();
            stream.iter().for_each(|token| known.counts[usize::from(*token)] += 1);
            known.tokens.extend(stream);
            known.files.insert(name, start..known.tokens.len());
            known.tokens.push(END);
        }
        let positions = (1..known.tokens.len()).filter(|&at| known.tokens[at] != END && known.tokens[at - 1] != END);
        let mut keyed: Vec<(u64, u32)> = positions
            .map(|at| (known.key(at, 0), u32::try_from(at).expect("a project has fewer than 2³² tokens")))
            .collect();
        // The last four tokens differ for most positions.
        keyed.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0).then_with(|| known.key(a.1 as usize, 4).cmp(&known.key(b.1 as usize, 4))).then(a.1.cmp(&b.1))
        });
        known.order = keyed.into_iter().map(|(_, at)| at).collect();
        known
    }

    /// The four tokens before the last `n` before `at`, the nearest in the highest bits; zeros from the first `END` on.
    fn key(&self, at: usize, n: usize) -> u64 {
        let before = self.tokens[at.saturating_sub(4 + n)..at].iter().rev().take_while(|token| **token != END);
        before.skip(n).zip([48, 32, 16, 0]).fold(0, |key, (token, shift)| key | u64::from(*token) << shift)
    }

    /// The part of `range` whose token `depth` + 1 before the position is `token`.
    fn narrow(&self, range: Range<usize>, depth: usize, token: TokenId) -> Range<usize> {
        // Every position of the range has `depth` tokens before it that are not END, so there is one more.
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
}

impl Live {
    fn read(&mut self, tokens: &[TokenId]) {
        for (i, &token) in tokens.iter().enumerate() {
            self.follow(&tokens[..i], token);
        }
    }

    /// Counts that `token` follows `context`.
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
    use nanochat_engine::workspace::sources::SourceFile;

    use super::*;
    use crate::holes::HoleKind;
    use crate::suite::Known;

    fn entered(files: &[(&str, &str)]) -> Ngram {
        let mut ngram = Ngram::new(Arc::new(Tokenizer::bytes()));
        let file =
            |&(name, text): &(&str, &str)| SourceFile { name: name.into(), path: name.into(), text: text.into() };
        let known = Known::of(files.iter().map(file).collect());
        let scene = ProjectContext { texts: &BTreeMap::new(), known: &known };
        ngram.enter(&scene, &Cancel::new()).expect("it is not cancelled");
        ngram
    }

    fn filled(ngram: &mut Ngram, prefix: &str, suffix: &str) -> String {
        let task = Task { file: "a.rs", kind: HoleKind::RestOfLine, prefix, suffix };
        ngram.complete(&task, &Cancel::new()).expect("it is not cancelled").text.expect("it always answers")
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
            for excluded in [0..0, ngram.corpus.files["a.rs"].clone()] {
                let unigrams = ngram.unigrams(&excluded, &live).all();
                let p = ngram.predict(&unigrams, &context[..n], &excluded, &live);
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
        let mut cost = |file, text: &str| {
            let hole = 0..text.len();
            let text = FileText { file, text, holes: std::slice::from_ref(&hole) };
            let costs = ngram.costs(&text, &Cancel::new()).expect("it is not cancelled");
            costs.expect("it gives probabilities")[0].bits_per_byte()
        };
        let (seen, unseen) = (cost("a.rs", line.trim()), cost("c.rs", "Zq7#Zq8#Zq9#Zq10#Zq11#"));
        assert!(seen < 2.0 && unseen > 5.0, "{seen} {unseen}");
    }

    #[test]
    fn one_probability_is_that_of_all() {
        let mut ngram = entered(&[("b.rs", "fn a() { b(c); }\nfn d() { b(e); }\n"), ("a.rs", "fn zz() {}")]);
        let text = "fn b() { a(c); }\n";
        let tokens = ngram.tokenizer.encode(text.as_bytes());
        let excluded = ngram.corpus.files["a.rs"].clone();
        for at in 0..tokens.len() {
            let mut live = Live::default();
            live.read(&tokens[..at]);
            let unigrams = ngram.unigrams(&excluded, &live).all();
            let all = ngram.predict(&unigrams, &tokens[..at], &excluded, &live);
            let hole = at..at + 1;
            let asked = FileText { file: "a.rs", text, holes: std::slice::from_ref(&hole) };
            let bits = ngram.costs(&asked, &Cancel::new()).expect("it can").expect("it has probabilities")[0].bits;
            let expected = -f64::from(all[usize::from(tokens[at])]).log2();
            // Seven rounds of f32, in another order of the same sums.
            assert!((bits - expected).abs() < 1e-4, "{bits} {expected} at {at}");
        }
    }
}
