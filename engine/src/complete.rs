//! Prompt to completion: decoding, its rules and where each token came from.
//!
//! ```text
//! prompt → tokens (last one healed) → session ─┐
//!               what the memory's tiers know ───┴→ blend → the most probable line, and the next one behind it
//!                                                           → trim what already stands there
//! ```

use std::sync::Arc;

use crate::memory::{Blend, LiveBuffer, Lookup, Memory, Mixture, Samples};
use crate::prompt::{DECLARED, Prompt, PromptTokens, Snippet};
use crate::score::Score;
use crate::symbols::{declarations, settled};
use crate::text::Scanner;
use crate::text::tokenizer::{N_SPECIALS, PREFIX, SUFFIX, TokenId};
use crate::{Cancel, Cancelled, Checkpoint, Model, Sampling, Session, Tokenizer, prompt, text::secrets};

mod analogy;
mod ends;
mod fit;
mod network;
mod rank;
mod search;
mod text;
mod next_token;

use ends::p_of_end;
use next_token::{Buffers, NextToken};

use nanochat_kernels::autotune::Plans;
use nanochat_kernels::{Isa, vector};

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Most tokens generated.
    pub max_tokens: usize,
    /// Most lines with content; 1 ends with the line.
    pub max_lines: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// For `Sampling::TopP`.
    pub seed: u64,
    /// Tokens that may be tried beyond those of the first line, to find a more probable one: by the memory alone, or beside
    /// a model of up to [`FULL_BUDGET_PARAMS`] parameters, and fewer in proportion beside a larger one, which is also asked for fewer of the
    /// lines that stand elsewhere. Only where one line is asked for, and only for `Sampling::Greedy`.
    pub search_budget: usize,
}

/// Parameters of a model beside which all of [`Limits::search_budget`] may be tried: one of 25 million, which takes three times as
/// long for a token, is given a quarter of them.
pub const FULL_BUDGET_PARAMS: usize = 6_000_000;

impl Default for Limits {
    fn default() -> Self {
        Self { max_tokens: 48, max_lines: 1, sampling: Sampling::Greedy, seed: 0, search_budget: 64 }
    }
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The model said that the suffix follows.
    End,
    /// `max_lines` were written.
    Lines,
    /// A bracket that the suffix closes, or that is not open, would have been closed.
    Bracket,
    /// `max_tokens`, or as many as half of the context holds, were generated.
    Tokens,
    /// The text began to repeat itself.
    Repeat,
    /// Neither voice had anything to say.
    Silence,
}

/// Which of the two put more probability on a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// The transformer.
    Model,
    /// The workspace's own text.
    Memory,
}

/// Text to insert at the cursor.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Never empty; valid UTF-8; without what already stands before or after the cursor.
    pub text: String,
    /// Why it ends there.
    pub stop: Stop,
    /// The probability that this is what was meant, within 0..=1: of a line that was weighed against others as the crates of
    /// the suite `develop` taught it, of several such lines the product with that of the text's end, of others the probability
    /// of the whole text, its end included.
    pub confidence: f32,
    /// One per generated token that is part of `text`.
    pub sources: Vec<TokenSource>,
    /// Prompt tokens taken from the cache.
    pub n_reused: usize,
    /// Prompt tokens computed.
    pub n_prompt: usize,
    /// Tokens of the text that was chosen, shown or not.
    pub n_generated: usize,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompleteError {
    /// The caller no longer wants one.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// There is neither a model nor a memory.
    #[error("there is neither a model nor a memory to answer from; run `cargo nanochat train`")]
    Nothing,
}

/// Which of model and memory predict the next token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predictors {
    /// Model ⊕ memory.
    #[default]
    #[serde(rename = "both", alias = "blend")]
    Blend,
    /// The transformer alone.
    ModelOnly,
    /// The memory alone.
    MemoryOnly,
}

/// What the two predictors said of one token of a text that is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// The token.
    pub token: TokenId,
    /// Its probability by the model; 1/vocabulary without one.
    pub p_model: f32,
    /// Its probability by both.
    pub p: f32,
}

/// A line that could be the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredLine {
    /// As it would be shown; empty if nothing of it is new.
    pub text: String,
    /// What is known of it.
    pub features: Vec<f32>,
}

/// What could be written at one place.
struct Lines {
    lines: Vec<search::Line>,
    /// ln of how much more probable the end of the text is there than a line break, by the model, where more lines may come.
    odds_of_end: Option<f32>,
    n_reused: usize,
    n_prompt: usize,
}

impl Lines {
    /// Whether the text ended at once where the search came first.
    fn closes(&self) -> bool {
        self.lines.first().is_some_and(search::Line::closes)
    }
}

/// A text of several lines, as far as it is written.
struct Written {
    /// With what stands before it.
    prefix: String,
    /// Where its first line begins.
    start: usize,
    /// What the text opens it closes: until then the suffix does not go on.
    brackets: Scanner,
    n_lines: usize,
}

impl Written {
    fn behind(prefix: &str) -> Self {
        let start = prefix.rfind('\n').map_or(0, |at| at + 1);
        Self { prefix: prefix.to_owned(), start, brackets: Scanner::default(), n_lines: 0 }
    }

    fn push(&mut self, line: &str) {
        self.n_lines += 1;
        for text in [line, "\n"] {
            self.brackets.feed(text);
            self.prefix.push_str(text);
        }
    }

    fn may_end(&self) -> bool {
        self.n_lines > 0 && self.brackets.depth() == 0
    }

    fn evidence<'a>(
        &'a self,
        next: &'a Completion,
        odds: Option<f32>,
        closes: bool,
        suffix: &'a str,
    ) -> ends::Evidence<'a> {
        let (written, next) = (&self.prefix[self.start..], (&*next.text, next.confidence));
        ends::Evidence { odds, next, closes, written, n_lines: self.n_lines, suffix }
    }
}

/// Answers prompts, one at a time. Keeps a session, so the next prompt costs what changed.
#[derive(Debug)]
pub struct Completer {
    tokenizer: Arc<Tokenizer>,
    session: Option<Session>,
    memory: Arc<Memory>,
    blend: Blend,
    predictors: Predictors,
    buffers: Buffers,
    live: Arc<LiveBuffer>,
    declared: Option<Declared>,
}

/// What was last declared near a cursor, which stays the same while a line is written.
#[derive(Debug)]
struct Declared {
    /// Of all that it was read from but the memory.
    read: blake3::Hash,
    text: Arc<str>,
}

impl Completer {
    /// A completer over a checkpoint's model, tokenizer and blend. `n_threads` 0: one per core.
    pub fn new(checkpoint: &Checkpoint, n_threads: usize) -> Self {
        Self::with_plans(checkpoint, n_threads, &Plans::default())
    }

    /// As [`Completer::new`], with what the autotuner picked: see [`crate::tune::plans`].
    pub fn with_plans(checkpoint: &Checkpoint, n_threads: usize, plans: &Plans) -> Self {
        let model = Model::with_plans(&checkpoint.weights.view(), n_threads, plans);
        Self {
            tokenizer: Arc::clone(&checkpoint.tokenizer),
            session: Some(Session::new(model)),
            memory: Arc::new(Memory::default()),
            blend: checkpoint.blend.clone(),
            predictors: Predictors::Blend,
            buffers: Buffers::default(),
            live: Arc::default(),
            declared: None,
        }
    }

    /// A completer that has a memory only.
    pub fn without_model(tokenizer: Arc<Tokenizer>) -> Self {
        Self {
            tokenizer,
            session: None,
            memory: Arc::new(Memory::default()),
            blend: Blend::default(),
            predictors: Predictors::MemoryOnly,
            buffers: Buffers::default(),
            live: Arc::default(),
            declared: None,
        }
    }

    /// The tokenizer that the memory must be built with.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The model, if there is one.
    pub fn model(&self) -> Option<&Arc<Model>> {
        self.session.as_ref().map(Session::model)
    }

    /// The memory.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Replaces the memory.
    pub fn set_memory(&mut self, memory: Arc<Memory>) {
        if !Arc::ptr_eq(&self.memory, &memory) {
            self.declared = None;
        }
        self.memory = memory;
    }

    /// Replaces the blend.
    pub fn set_blend(&mut self, blend: Blend) {
        self.blend = blend;
    }

    /// Lets one of the two be silent; for ablations.
    pub fn set_predictors(&mut self, predictors: Predictors) {
        self.predictors = predictors;
    }

    /// Bytes that the KV caches of all prompts may take together, in place of [`crate::kv::session::MOST_BYTES`].
    pub fn set_cache_bytes(&mut self, most_bytes: usize) {
        if let Some(session) = &mut self.session {
            session.set_most_bytes(most_bytes);
        }
    }

    /// A completion, or `None` where silence is the better answer. No text that would be part of a secret, which the memory
    /// may know from another file: the next line is taken.
    ///
    /// The live file of the prompt is remembered as it stands there, not as it was saved.
    pub fn complete(
        &mut self,
        prompt: &Prompt<'_>,
        limits: &Limits,
        cancel: &Cancel,
    ) -> Result<Option<Completion>, CompleteError> {
        self.complete_streaming(prompt, limits, cancel, &mut |_| ())
    }

    /// As [`Completer::complete`]; `on_token` is called with each token of the first text that is found.
    pub fn complete_streaming(
        &mut self,
        prompt: &Prompt<'_>,
        limits: &Limits,
        cancel: &Cancel,
        on_token: &mut dyn FnMut(TokenId),
    ) -> Result<Option<Completion>, CompleteError> {
        self.with_declared(prompt, limits.max_tokens, |this, prompt| {
            if this.goes_on(limits) {
                return this.line_after_line(prompt, limits, cancel, on_token);
            }
            let found = this.lines(prompt, limits, limits.max_tokens, cancel, on_token)?;
            let (n_reused, n_prompt) = (found.n_reused, found.n_prompt);
            let found = search::best(found.lines, prompt.suffix, |text| !writes_secret(prompt, text));
            Ok(found.map(|found| Completion { n_reused, n_prompt, ..found }))
        })
    }

    /// Whether a text is written line after line, each weighed against others.
    fn goes_on(&self, limits: &Limits) -> bool {
        let weighs = limits.search_budget > 0
            && limits.sampling == Sampling::Greedy
            && self.predictors() != Predictors::ModelOnly;
        limits.max_lines > 1 && weighs
    }

    /// Lines that are each weighed against others, until the suffix goes on.
    fn line_after_line(
        &mut self,
        prompt: &Prompt<'_>,
        limits: &Limits,
        cancel: &Cancel,
        on_token: &mut dyn FnMut(TokenId),
    ) -> Result<Option<Completion>, CompleteError> {
        let mut text = Written::behind(prompt.prefix);
        let mut whole: Option<Completion> = None;
        let mut left = limits.max_tokens;
        for _ in 0..limits.max_lines {
            let here = Prompt { prefix: &text.prefix, ..*prompt };
            let found = self.lines(&here, limits, left, cancel, on_token)?;
            let (n_reused, n_prompt) = (found.n_reused, found.n_prompt);
            let (odds, closes) = (found.odds_of_end, found.closes());
            let line = search::best(found.lines, prompt.suffix, |text| !writes_secret(&here, text));
            let Some(mut line) = line else { break };
            if let Some(whole) = whole.as_mut().filter(|_| text.may_end()) {
                let evidence = text.evidence(&line, odds, closes, prompt.suffix);
                let p_of_end = p_of_end(self.predictors() == Predictors::Blend, &evidence);
                if p_of_end >= 0.5 {
                    whole.confidence *= p_of_end;
                    break;
                }
                line.confidence *= 1.0 - p_of_end;
            }
            text.push(&line.text);
            left = left.saturating_sub(line.n_generated);
            let stop = line.stop;
            whole = Some(match whole {
                None => Completion { n_reused, n_prompt, ..line },
                Some(mut whole) => {
                    whole.text.push('\n');
                    whole.text.push_str(&line.text);
                    whole.sources.extend(line.sources);
                    Completion {
                        stop,
                        confidence: whole.confidence * line.confidence,
                        n_generated: whole.n_generated + line.n_generated,
                        ..whole
                    }
                }
            });
            if !matches!(stop, Stop::Lines | Stop::End) || left == 0 {
                break;
            }
        }
        Ok(whole)
    }

    /// What is known behind each line of `truth`, a text of several lines, with which it could end, and whether it does: what
    /// the weights of the end of a text are found from.
    pub fn stop_samples(
        &mut self,
        prompt: &Prompt<'_>,
        truth: &str,
        limits: &Limits,
        cancel: &Cancel,
    ) -> Result<Vec<(Vec<f32>, bool)>, CompleteError> {
        self.with_declared(prompt, limits.max_tokens, |this, prompt| {
            let (mut text, mut ends) = (Written::behind(prompt.prefix), Vec::new());
            let mut lines = truth.lines().peekable();
            while let Some(line) = lines.next() {
                text.push(line);
                // No blank line is ever weighed.
                if !text.may_end() || lines.peek().is_some_and(|next| next.trim().is_empty()) {
                    continue;
                }
                let here = Prompt { prefix: &text.prefix, ..*prompt };
                let found = this.lines(&here, limits, limits.max_tokens, cancel, &mut |_| ())?;
                let (odds, closes) = (found.odds_of_end, found.closes());
                let Some(next) = search::best(found.lines, prompt.suffix, |_| true) else { continue };
                let evidence = text.evidence(&next, odds, closes, prompt.suffix);
                ends.push((evidence.features().to_vec(), lines.peek().is_none()));
            }
            Ok(ends)
        })
    }

    /// The lines that [`Completer::complete`] chooses from, as they would be shown, with what is known of each: what the
    /// weights of its choice are found from. Of several lines those that could be the first. Empty where lines are not
    /// weighed: see [`Limits::search_budget`].
    pub fn scored_lines(
        &mut self,
        prompt: &Prompt<'_>,
        limits: &Limits,
        cancel: &Cancel,
    ) -> Result<Vec<ScoredLine>, CompleteError> {
        let found = self.with_declared(prompt, limits.max_tokens, |this, prompt| {
            this.lines(prompt, limits, limits.max_tokens, cancel, &mut |_| ())
        })?;
        let weighed = found.lines.into_iter().filter_map(|line| {
            let features = line.features?.to_vec();
            let text = search::finish(line, prompt.suffix).map_or_else(String::new, |found| found.text);
            Some(ScoredLine { text, features })
        });
        Ok(weighed.collect())
    }

    /// Of the tokens that may be written `left` are left; the prompt leaves room for all of them, so that it stays the same
    /// while lines are added.
    fn lines(
        &mut self,
        prompt: &Prompt<'_>,
        limits: &Limits,
        left: usize,
        cancel: &Cancel,
        on_token: &mut dyn FnMut(TokenId),
    ) -> Result<Lines, CompleteError> {
        let (predictors, goes_on) = (self.predictors(), self.goes_on(limits));
        if predictors == Predictors::MemoryOnly && self.memory.n_tokens() == 0 && self.session.is_none() {
            return Err(CompleteError::Nothing);
        }
        let (max_tokens, budget) = self.budget(limits.max_tokens);
        if let Some(session) = &self.session {
            session.model().announce();
        }
        let prompt_tokens = prompt.tokens(&self.tokenizer, budget);
        let (mut n_reused, mut n_prompt) = (0, 0);
        if predictors != Predictors::MemoryOnly
            && let Some(session) = &mut self.session
        {
            n_reused = session.rebase(&prompt_tokens.tokens, cancel)?;
            n_prompt = prompt_tokens.tokens.len() - n_reused;
        }
        let memory =
            (predictors != Predictors::ModelOnly).then(|| self.live_memory(prompt, prompt_tokens.healed.len()));
        let n_params = self.session.as_ref().filter(|_| predictors != Predictors::MemoryOnly);
        let n_params = n_params.map_or(0, |session| session.model().config().n_params());
        // One that is asked for is never none.
        let search_budget = limits
            .search_budget
            .min((limits.search_budget * FULL_BUDGET_PARAMS).div_ceil(n_params.max(FULL_BUDGET_PARAMS)));
        let max_tokens = max_tokens.min(left);
        let limits =
            Limits { max_tokens, search_budget, max_lines: if goes_on { 1 } else { limits.max_lines }, ..*limits };
        let next_token = NextToken {
            tokenizer: &self.tokenizer,
            session: self.session.as_mut().filter(|_| predictors != Predictors::MemoryOnly),
            branch_logits: None,
            memory,
            blend: &self.blend,
            buffers: &mut self.buffers,
        };
        let (lines, odds_of_end) =
            search::search(next_token, prompt, prompt_tokens, &limits, goes_on, cancel, on_token)?;
        Ok(Lines { lines, odds_of_end, n_reused, n_prompt })
    }

    /// What each voice says of each token of `text`, given what stands before it in the text. The memory knows the file
    /// `path` as far as the text was read, as it does while one types; an empty path stands for none.
    pub fn observe(&mut self, path: &str, text: &[u8], each: &mut dyn FnMut(Observation)) {
        let has_model = self.predictors() != Predictors::MemoryOnly;
        let blend = self.blend.clone();
        let mut mixture = Mixture::default();
        self.read(path, text, &mut |token, probabilities, lookup| {
            let at = usize::from(token);
            let p_model = probabilities.get(at).copied().unwrap_or(0.0);
            blend.mix(probabilities, has_model, lookup, &mut mixture);
            each(Observation { token, p_model, p: probabilities.get(at).copied().unwrap_or(0.0) });
        });
    }

    /// Adds what each token of `text` says of the gates, as it is read from its beginning: beside the model, if there is
    /// one, and of the memory by itself.
    pub fn sample(&mut self, path: &str, text: &[u8], beside: &mut Samples, alone: &mut Samples) {
        let has_model = self.session.is_some();
        let uniform = self.uniform();
        self.read(path, text, &mut |token, probabilities, lookup| {
            if has_model {
                beside.add(probabilities, true, lookup, token);
            }
            alone.add(&uniform, false, lookup, token);
        });
    }

    /// As [`Completer::sample`], for what should be written at a cursor: model and memory know the suffix too, as they do in
    /// [`Completer::complete`]. `truth` is read up to the line break after it.
    pub fn sample_at(
        &mut self,
        prompt: &Prompt<'_>,
        truth: &str,
        beside: &mut Samples,
        alone: &mut Samples,
        cancel: &Cancel,
    ) -> Result<(), Cancelled> {
        let (max_tokens, budget) = self.budget(Limits::default().max_tokens);
        let PromptTokens { tokens: mut all, healed } =
            self.with_declared(prompt, max_tokens, |this, prompt| prompt.tokens(&this.tokenizer, budget));
        let memory = self.live_memory(prompt, healed.len());
        let file_start = all.iter().rposition(|token| *token == PREFIX).map_or(0, |at| at + 1);
        let written = self.tokenizer.encode(&[&healed, truth.as_bytes(), b"\n"].concat());
        let uniform = self.uniform();
        let (mut lookup, mut probabilities) = (Lookup::default(), Vec::new());
        for token in written.into_iter().take(max_tokens) {
            memory.lookup(&all[file_start..], "", &mut lookup);
            if let Some(session) = &mut self.session {
                session.rebase(&all, cancel)?;
                probabilities.clear();
                probabilities.extend_from_slice(session.logits());
                vector::softmax(Isa::best(), &mut probabilities);
                beside.add(&probabilities, true, &lookup, token);
            }
            alone.add(&uniform, false, &lookup, token);
            all.push(token);
        }
        Ok(())
    }

    /// Reads a text from its beginning: each token with the distribution that the memory is mixed into and what the
    /// memory knows.
    fn read(&mut self, path: &str, text: &[u8], each: &mut dyn FnMut(TokenId, &mut [f32], &Lookup)) {
        let predictors = self.predictors();
        let tokens = self.tokenizer.encode(text);
        let uniform = self.uniform();
        let window = self.session.as_ref().map_or(1024, |session| session.model().config().context).min(1024) - 2;
        let memory = self.memory.with_overlay(overlay_path(path), tokens.clone());
        let mut lookup = Lookup::default();
        let mut start = 0; // of the window; the first half of each later window has been seen before
        let mut next = 0; // token to observe
        while next < tokens.len() {
            let end = (start + window).min(tokens.len());
            let mut rows = Vec::new();
            let mut vocab_size = uniform.len();
            match &mut self.session {
                Some(session) if predictors != Predictors::MemoryOnly => {
                    let input = [&[SUFFIX, PREFIX], &tokens[start..end]].concat();
                    rows = session.logits_of(&input[..input.len() - 1]);
                    vocab_size = session.model().config().vocab_size;
                }
                _ => {}
            }
            let mut row = uniform.clone();
            while next < end {
                if let Some(logits) = rows.get_mut((next - start + 1) * vocab_size..(next - start + 2) * vocab_size) {
                    vector::softmax(Isa::best(), logits);
                    row.clear();
                    row.extend_from_slice(logits);
                } else {
                    row.copy_from_slice(&uniform);
                }
                match predictors {
                    Predictors::ModelOnly => lookup.clear(),
                    _ => memory.lookup_within(&tokens, next, &mut lookup),
                }
                each(tokens[next], &mut row, &lookup);
                next += 1;
            }
            start = next - (window / 2).min(next);
        }
    }

    fn uniform(&self) -> Vec<f32> {
        let mut uniform = Vec::new();
        fill_uniform(&mut uniform, self.tokenizer.vocab_size());
        uniform
    }

    /// Bits that the text costs, token by token, given nothing before it: bits/byte = bits / bytes.
    pub fn score(&mut self, path: &str, text: &[u8]) -> Score {
        let mut score = Score { bits: 0.0, bytes: text.len(), tokens: 0 };
        self.observe(path, text, &mut |observation| {
            score.bits -= f64::from(observation.p.max(f32::MIN_POSITIVE)).log2();
            score.tokens += 1;
        });
        score
    }

    fn predictors(&self) -> Predictors {
        if self.session.is_none() { Predictors::MemoryOnly } else { self.predictors }
    }

    /// Tokens that may be written where `max_tokens` are wanted, and those that are left for the prompt: at least half of the
    /// context.
    fn budget(&self, max_tokens: usize) -> (usize, usize) {
        let context_len = self.session.as_ref().map_or(2048, |session| session.model().config().context);
        let max_tokens = max_tokens.min(context_len / 2);
        (max_tokens, context_len - max_tokens)
    }

    /// Calls `f` with the prompt and, as its last snippet, what is declared near its cursor.
    fn with_declared<R>(
        &mut self,
        prompt: &Prompt<'_>,
        max_tokens: usize,
        f: impl FnOnce(&mut Self, &Prompt<'_>) -> R,
    ) -> R {
        let declared = self.declared(prompt, max_tokens);
        let declared = (!declared.is_empty()).then_some(Snippet { path: DECLARED, text: &declared });
        let snippets: Vec<Snippet<'_>> = prompt.snippets.iter().copied().chain(declared).collect();
        f(self, &Prompt { snippets: &snippets, ..*prompt })
    }

    /// What the model is told of the types near the cursor; nothing where it is not asked, or by itself.
    fn declared(&mut self, prompt: &Prompt<'_>, max_tokens: usize) -> Arc<str> {
        if self.predictors() != Predictors::Blend {
            return Arc::default();
        }
        // Beside other snippets half of their share.
        let n_tokens = prompt::for_snippets(self.budget(max_tokens).1) / if prompt.snippets.is_empty() { 1 } else { 2 };
        // A token has two or three bytes there.
        let (before, most_bytes) = (settled(prompt.prefix), n_tokens * 5 / 2);
        let mut read = blake3::Hasher::new();
        for text in [prompt.path, before, prompt.suffix] {
            read.update(&text.len().to_le_bytes()).update(text.as_bytes());
        }
        let read = read.update(&most_bytes.to_le_bytes()).finalize();
        if let Some(last) = self.declared.as_ref().filter(|last| last.read == read) {
            return Arc::clone(&last.text);
        }
        let text: Arc<str> = declarations(self.memory.symbols(), prompt.path, before, prompt.suffix, most_bytes).into();
        self.declared = Some(Declared { read, text: Arc::clone(&text) });
        text
    }

    /// The memory with the prompt's file as it stands now, but for the bytes that are written again.
    fn live_memory(&mut self, prompt: &Prompt<'_>, n_healed: usize) -> Memory {
        let prefix = &prompt.prefix.as_bytes()[..prompt.prefix.len() - n_healed];
        // Nobody else holds it between two requests, so it is changed in place.
        let live = Arc::make_mut(&mut self.live);
        live.update(&self.tokenizer, &overlay_path(prompt.path), prefix, prompt.suffix.as_bytes());
        self.memory.with_buffer(Arc::clone(&self.live))
    }
}

/// So far before the cursor the header of a private key is looked for.
const MAX_KEY_BYTES: usize = 4 << 10;

/// Whether the text ends a secret or holds one, read behind the cursor's line, the line before it, which may end with the
/// secret's name, and the lines of a private key.
fn writes_secret(prompt: &Prompt<'_>, text: &str) -> bool {
    let prefix = prompt.prefix;
    let window = &prefix[prefix.ceil_char_boundary(prefix.len().saturating_sub(MAX_KEY_BYTES))..];
    let line = window.rmatch_indices('\n').nth(1).map_or(0, |(at, _)| at + 1);
    let start = window.rfind("-----BEGIN ").map_or(line, |key| key.min(line));
    let before = &window[start..];
    secrets::find(&[before, text].concat()).iter().any(|finding| finding.range.end > before.len())
}

/// The probability of a token but the specials where nothing is known.
fn p_uniform(vocab_size: usize) -> f32 {
    1.0 / (vocab_size - usize::from(N_SPECIALS)) as f32
}

/// What is said of the next token where nothing is known: the same of every token but the specials.
fn fill_uniform(probabilities: &mut Vec<f32>, vocab_size: usize) {
    probabilities.clear();
    probabilities.resize(vocab_size, p_uniform(vocab_size));
    probabilities[..usize::from(N_SPECIALS)].fill(0.0);
}

/// A file without a name replaces none.
fn overlay_path(path: &str) -> String {
    if path.is_empty() { "<unnamed>".to_owned() } else { path.to_owned() }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
