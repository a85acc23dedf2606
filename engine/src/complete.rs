//! Prompt to completion: decoding, its rules and where each token came from.
//!
//! ```text
//! prompt → tokens (last one healed) → session ─┐
//!                  memory's longest match ──────┴→ blend → choose → stop? → … → trim what already stands there
//! ```

use std::sync::Arc;

use crate::draft::Drafts;
use crate::memory::{Blend, Memory, Prediction};
use crate::prompt::Prompt;
use crate::rng::Rng;
use crate::score::Score;
use crate::syntax::Scanner;
use crate::tokenizer::{END, N_SPECIALS, PREFIX, SUFFIX, TokenId};
use crate::{Cancel, Cancelled, Checkpoint, Model, Sampling, Session, Tokenizer};

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
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_tokens: 48, max_lines: 1, sampling: Sampling::Greedy, seed: 0 }
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
    /// Geometric mean of the chosen tokens' probabilities, within 0..=1.
    pub confidence: f32,
    /// One per generated token that is part of `text`.
    pub sources: Vec<TokenSource>,
    /// Prompt tokens taken from the cache.
    pub n_reused: usize,
    /// Prompt tokens computed.
    pub n_prompt: usize,
    /// Tokens generated, shown or not.
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

/// Which of model and memory have a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Voices {
    /// Model ⊕ memory.
    #[default]
    Both,
    /// The transformer alone.
    ModelOnly,
    /// The memory alone.
    MemoryOnly,
}

/// What the two voices said of one token of a text that is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// The token.
    pub token: TokenId,
    /// Its probability by the model; 1/vocabulary without one.
    pub p_model: f32,
    /// Tokens of context that the memory recognised.
    pub match_len: usize,
    /// Its probability by the memory; 0 when the memory has nothing to say.
    pub p_memory: f32,
    /// Its probability by both.
    pub p: f32,
}

/// Answers prompts, one at a time. Keeps a session, so the next prompt costs what changed.
#[derive(Debug)]
pub struct Completer {
    tokenizer: Arc<Tokenizer>,
    session: Option<Session>,
    memory: Arc<Memory>,
    blend: Blend,
    voices: Voices,
    drafts: Option<Drafts>,
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
            voices: Voices::Both,
            drafts: None,
        }
    }

    /// A completer that has a memory only.
    pub fn without_model(tokenizer: Arc<Tokenizer>) -> Self {
        Self {
            tokenizer,
            session: None,
            memory: Arc::new(Memory::default()),
            blend: Blend::default(),
            voices: Voices::MemoryOnly,
            drafts: None,
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
        self.memory = memory;
    }

    /// Replaces the blend.
    pub fn set_blend(&mut self, blend: Blend) {
        self.blend = blend;
    }

    /// Lets one of the two be silent; for ablations.
    pub fn set_voices(&mut self, voices: Voices) {
        self.voices = voices;
    }

    /// Bytes that the KV caches of all prompts may take together, in place of [`crate::session::MOST_BYTES`].
    pub fn set_cache_bytes(&mut self, most_bytes: usize) {
        if let Some(session) = &mut self.session {
            session.set_most_bytes(most_bytes);
        }
    }

    /// Lets a source guess tokens that the model then checks several at a time, or none. Texts stay the same. Without a
    /// model there is nothing to check with.
    pub fn set_drafts(&mut self, drafts: Option<Drafts>) {
        self.drafts = drafts;
    }

    /// The source of guesses.
    pub fn drafts(&self) -> Option<&Drafts> {
        self.drafts.as_ref()
    }

    /// A completion, or `None` where silence is the better answer.
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

    /// As [`Completer::complete`]; `on_token` is called with each token as it is chosen.
    pub fn complete_streaming(
        &mut self,
        prompt: &Prompt<'_>,
        limits: &Limits,
        cancel: &Cancel,
        on_token: &mut dyn FnMut(TokenId),
    ) -> Result<Option<Completion>, CompleteError> {
        let voices = self.voices();
        if voices == Voices::MemoryOnly && self.memory.n_tokens() == 0 && self.session.is_none() {
            return Err(CompleteError::Nothing);
        }
        let uses_model = voices != Voices::MemoryOnly;
        let context_len = self.session.as_ref().map_or(2048, |session| session.model().config().context);
        // At least half of the context is for the prompt.
        let max_tokens = limits.max_tokens.min(context_len / 2);
        if let Some(session) = &self.session {
            session.model().announce();
        }
        let prompt_tokens = prompt.tokens(&self.tokenizer, context_len - max_tokens);
        let n_reused = match &mut self.session {
            Some(session) if uses_model => session.rebase(&prompt_tokens.tokens, cancel)?,
            _ => 0,
        };
        let n_prompt = if uses_model { prompt_tokens.tokens.len() - n_reused } else { 0 };
        let memory = (voices != Voices::ModelOnly).then(|| self.live_memory(prompt, prompt_tokens.healed.len()));
        let start = prompt_tokens.tokens.iter().rposition(|token| *token == PREFIX).map_or(0, |i| i + 1);
        let mut context = prompt_tokens.tokens[start..].to_vec();
        let mut all = prompt_tokens.tokens;

        let mut text = Text::new(prompt, limits.max_lines, prompt_tokens.healed);
        let mut rng = Rng::new(limits.seed);
        let mut probabilities = Vec::new();
        let (mut sources, mut log_p) = (Vec::new(), 0.0f32);
        let stop = loop {
            cancel.check()?;
            let prediction = memory.as_ref().map_or_else(Prediction::default, |memory| memory.predict(&context, ""));
            self.probabilities(&prediction, &mut probabilities);
            let scale = text.forbid(&self.tokenizer, &mut probabilities);
            let Some(token) = limits.sampling.choose(&probabilities, &mut rng) else { break Stop::Silence };
            on_token(token);
            if token == END {
                break Stop::End;
            }
            let p = probabilities[usize::from(token)];
            context.push(token);
            sources.push(self.source(token, p * scale, &prediction));
            log_p += p.max(f32::MIN_POSITIVE).ln();
            if let Some(stop) = text.push(token, self.tokenizer.token_bytes(token)) {
                break stop;
            }
            if sources.len() >= max_tokens {
                break Stop::Tokens;
            }
            match &mut self.session {
                Some(session) if uses_model => {
                    all.push(token);
                    push(session, self.drafts.as_mut(), &all, max_tokens - sources.len());
                }
                _ => {}
            }
        };
        let n_generated = sources.len();
        // A source for each token that reaches into what is shown.
        let n_bytes = text.healed.len();
        let ends = text.ends.clone();
        let Some(text) = text.finish(prompt.suffix) else { return Ok(None) };
        let n_before = ends.iter().take_while(|end| **end < n_bytes + text.len()).count();
        sources.truncate(n_before + 1);
        Ok(Some(Completion {
            text,
            stop,
            confidence: (log_p / n_generated.max(1) as f32).exp(),
            sources,
            n_reused,
            n_prompt,
            n_generated,
        }))
    }

    /// What each voice says of each token of `text`, given what stands before it in the text. The memory knows the file
    /// `path` as far as the text was read, as it does while one types; an empty path stands for none.
    pub fn observe(&mut self, path: &str, text: &[u8], each: &mut dyn FnMut(Observation)) {
        let voices = self.voices();
        let tokens = self.tokenizer.encode(text);
        let uniform = 1.0 / self.tokenizer.vocab_size() as f32;
        let window = self.session.as_ref().map_or(1024, |session| session.model().config().context).min(1024) - 2;
        let memory = self.memory.with_overlay(overlay_path(path), tokens.clone());
        let mut start = 0; // of the window; the first half of each later window has been seen before
        let mut next = 0; // token to observe
        while next < tokens.len() {
            let end = (start + window).min(tokens.len());
            let mut rows = Vec::new();
            let mut vocab_size = 0;
            if voices != Voices::MemoryOnly
                && let Some(session) = &mut self.session
            {
                let input = [&[SUFFIX, PREFIX], &tokens[start..end]].concat();
                rows = session.logits_of(&input[..input.len() - 1]);
                vocab_size = session.model().config().vocab_size;
            }
            while next < end {
                let token = tokens[next];
                let p_model = match rows.get_mut((next - start + 1) * vocab_size..(next - start + 2) * vocab_size) {
                    Some(row) if vocab_size > 0 => {
                        vector::softmax(Isa::best(), row);
                        row[usize::from(token)]
                    }
                    _ => uniform,
                };
                let prediction = match voices {
                    Voices::ModelOnly => Prediction::default(),
                    _ => memory.predict_within(&tokens, next),
                };
                let p_memory = prediction.next.iter().find(|(other, _)| *other == token).map_or(0.0, |(_, p)| *p);
                let weight = if prediction.next.is_empty() { 0.0 } else { self.blend.weight(prediction.match_len) };
                let p = (1.0 - weight) * p_model + weight * p_memory;
                each(Observation { token, p_model, match_len: prediction.match_len, p_memory, p });
                next += 1;
            }
            start = next - (window / 2).min(next);
        }
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

    fn voices(&self) -> Voices {
        if self.session.is_none() { Voices::MemoryOnly } else { self.voices }
    }

    /// The memory with the prompt's file as it stands now, but for the bytes that are written again.
    fn live_memory(&self, prompt: &Prompt<'_>, n_healed: usize) -> Memory {
        let prefix = &prompt.prefix.as_bytes()[..prompt.prefix.len() - n_healed];
        let mut tokens = self.tokenizer.encode(prefix);
        tokens.push(END);
        tokens.extend(self.tokenizer.encode(prompt.suffix.as_bytes()));
        self.memory.with_overlay(overlay_path(prompt.path), tokens)
    }

    /// The blended distribution of the next token.
    fn probabilities(&self, prediction: &Prediction, out: &mut Vec<f32>) {
        out.clear();
        match &self.session {
            Some(session) if self.voices != Voices::MemoryOnly => {
                out.extend_from_slice(session.logits());
                vector::softmax(session.model().isa(), out);
            }
            _ => out.resize(self.tokenizer.vocab_size(), 0.0),
        }
        if self.voices() == Voices::MemoryOnly {
            for (token, p) in &prediction.next {
                if let Some(out) = out.get_mut(usize::from(*token)) {
                    *out = *p;
                }
            }
        } else {
            self.blend.mix(out, prediction);
        }
    }

    /// Which voice is behind more than half of `p`, the blended probability of a token.
    fn source(&self, token: TokenId, p: f32, prediction: &Prediction) -> TokenSource {
        let p_memory = prediction.next.iter().find(|(other, _)| *other == token).map_or(0.0, |(_, p)| *p);
        let weight = match self.voices() {
            Voices::Both => self.blend.weight(prediction.match_len),
            Voices::ModelOnly => 0.0,
            Voices::MemoryOnly => 1.0,
        };
        if weight * p_memory > 0.5 * p { TokenSource::Memory } else { TokenSource::Model }
    }
}

/// Appends the last of `all` to the session, which holds the others, with the guesses that pay behind it. At most
/// `n_left` more tokens are wanted.
fn push(session: &mut Session, drafts: Option<&mut Drafts>, all: &[TokenId], n_left: usize) {
    let token = *all.last().expect("a token was chosen");
    let Some(drafts) = drafts else { return session.push(token) };
    let was_guessed = session.is_ahead(token);
    if session.n_ahead() > 0 {
        drafts.learn(was_guessed);
    }
    if was_guessed {
        return session.push(token);
    }
    let config = session.model().config();
    let most = n_left.saturating_sub(1).min(config.context.saturating_sub(all.len()));
    let guess = drafts.guess(all, most, config.vocab_size);
    session.push_ahead(token, &guess);
}

/// A file without a name replaces none.
fn overlay_path(path: &str) -> String {
    if path.is_empty() { "<unnamed>".to_owned() } else { path.to_owned() }
}

/// The text generated so far, and the rules that end it.
struct Text {
    bytes: Vec<u8>,
    /// Bytes before the cursor that must come first.
    healed: Vec<u8>,
    tokens: Vec<TokenId>,
    /// Where each token ends in `bytes`, as it was before any was cut.
    ends: Vec<usize>,
    max_lines: usize,
    /// The cursor's line has content, so a newline that comes first ends it.
    mid_line: bool,
    at_cursor: Scanner,
    scanner: Scanner,
    scanned: usize,
    /// Brackets open at the cursor that the suffix does not close.
    n_to_close: usize,
}

impl Text {
    fn new(prompt: &Prompt<'_>, max_lines: usize, healed: Vec<u8>) -> Self {
        let at_cursor = Scanner::after(prompt.prefix);
        let line = prompt.prefix.rsplit('\n').next().unwrap_or_default();
        Self {
            bytes: Vec::new(),
            healed,
            tokens: Vec::new(),
            ends: Vec::new(),
            max_lines: max_lines.max(1),
            mid_line: !line.trim().is_empty(),
            scanner: at_cursor.clone(),
            scanned: 0,
            n_to_close: at_cursor.depth() - at_cursor.closed_by(prompt.suffix),
            at_cursor,
        }
    }

    /// Takes away what may not come next: specials other than END, and, while healing, what contradicts the bytes that
    /// stand before the cursor. Returns what was left of the probabilities before they were made to sum to 1 again.
    fn forbid(&self, tokenizer: &Tokenizer, probabilities: &mut [f32]) -> f32 {
        let end = probabilities[usize::from(END)];
        probabilities[..usize::from(N_SPECIALS)].fill(0.0);
        probabilities.iter_mut().skip(tokenizer.vocab_size()).for_each(|p| *p = 0.0);
        let Some(rest) = self.healed.get(self.bytes.len()..).filter(|rest| !rest.is_empty()) else {
            probabilities[usize::from(END)] = end;
            return 1.0;
        };
        let allowed = tokenizer.tokens_compatible_with(rest);
        let kept: Vec<f32> = allowed.iter().map(|token| probabilities[usize::from(*token)]).collect();
        probabilities.fill(0.0);
        for (token, p) in allowed.iter().zip(&kept) {
            // A voice that never saw the healed bytes continued this way must still be able to write them.
            probabilities[usize::from(*token)] = p.max(1e-12);
        }
        let total: f32 = probabilities.iter().sum();
        probabilities.iter_mut().for_each(|p| *p /= total);
        total
    }

    /// Appends a token; says why the text ends within it or after it, if it does.
    fn push(&mut self, token: TokenId, bytes: &[u8]) -> Option<Stop> {
        self.tokens.push(token);
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        if self.bytes.len() <= self.healed.len() {
            return None;
        }
        let (at, stop) = if let Some(at) = self.end_of_lines() {
            (at, Stop::Lines)
        } else if let Some(at) = self.closing_bracket() {
            (at, Stop::Bracket)
        } else {
            (self.repetition()?, Stop::Repeat)
        };
        self.bytes.truncate(at.max(self.healed.len()));
        Some(stop)
    }

    /// Where the line that is one too many begins.
    fn end_of_lines(&self) -> Option<usize> {
        let new = &self.bytes[self.healed.len()..];
        let mut n_lines = 0;
        let mut has_content = self.mid_line;
        for (i, byte) in new.iter().enumerate() {
            if *byte == b'\n' {
                n_lines += usize::from(has_content);
                if n_lines >= self.max_lines {
                    return Some(self.healed.len() + i);
                }
                has_content = false;
            } else if !byte.is_ascii_whitespace() {
                has_content = true;
            }
        }
        None
    }

    /// Where a bracket is closed that the suffix closes, or that is not open.
    fn closing_bracket(&mut self) -> Option<usize> {
        self.scanned = self.scanned.max(self.healed.len());
        while let Some(c) = next_char(&self.bytes[self.scanned..]) {
            let before = self.scanned;
            self.scanned += c.len_utf8();
            self.scanner.feed(c.encode_utf8(&mut [0; 4]));
            if self.scanner.n_outer_closed() > self.n_to_close || self.scanner.is_broken() {
                return Some(before);
            }
        }
        None
    }

    /// Where a run of tokens begins to be repeated, once it stands there four times.
    fn repetition(&self) -> Option<usize> {
        let n = self.tokens.len();
        let repeats = |period: &usize| {
            let tail = &self.tokens[n - 4 * period..];
            tail.iter().zip(&tail[*period..]).all(|(a, b)| a == b)
        };
        // Rulers, array literals and indentation have a period of one or two tokens; they end with their line.
        let period = (1..=n / 4).find(repeats).filter(|period| *period >= 3)?;
        Some(self.ends[n - 3 * period - 1])
    }

    /// What is new at the cursor, if anything is.
    fn finish(self, suffix: &str) -> Option<String> {
        let new = self.bytes.get(self.healed.len()..).filter(|_| self.bytes.starts_with(&self.healed))?;
        let valid = match std::str::from_utf8(new) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&new[..error.valid_up_to()]).ok()?,
        };
        let text = self.at_cursor.trim_overlap(valid, suffix).trim_end();
        (!text.is_empty()).then(|| text.to_owned())
    }
}

/// The first character of bytes that may end in the middle of one.
fn next_char(bytes: &[u8]) -> Option<char> {
    let head = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).expect("valid up to here"),
    };
    valid.chars().next()
}

#[cfg(test)]
mod tests;
