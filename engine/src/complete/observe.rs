//! What model and memory predict of text that is known: for bits per byte, and to calibrate the blend.

use nanochat_kernels::{Isa, vector};

use super::completer::overlay_path;
use super::next_token::fill_uniform;
use super::{Completer, Limits, Predictors};
use crate::memory::{Lookup, Mixture, Samples};
use crate::prompt::{Prompt, PromptTokens};
use crate::score::Score;
use crate::text::tokenizer::{PREFIX, SUFFIX, TokenId};
use crate::{Cancel, Cancelled};

/// The probabilities of one token of a text that is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// The token that is there.
    pub token: TokenId,
    /// Its probability by the model; 1/vocabulary without one.
    pub p_model: f32,
    /// Its probability by the blend of model and memory, or by the one that [`Completer::set_predictors`] left.
    pub p: f32,
}

impl Completer {
    /// Calls `each` with the probabilities of each token of `text`, given the text before it. The memory knows the file
    /// `path` as far as the text was read, as it does while one types; an empty path means no file.
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

    /// Adds each token of `text`, as it is read from its start, to what the mixing weights are calibrated on: with the
    /// model, if there is one, and by the memory alone.
    pub fn sample(&mut self, path: &str, text: &[u8], with_model: &mut Samples, memory_only: &mut Samples) {
        let has_model = self.session.is_some();
        let uniform = self.uniform();
        self.read(path, text, &mut |token, probabilities, lookup| {
            if has_model {
                with_model.add(probabilities, true, lookup, token);
            }
            memory_only.add(&uniform, false, lookup, token);
        });
    }

    /// As [`Completer::sample`], for what should be written at a cursor: model and memory know the suffix too, as they
    /// do in [`Completer::complete`]. `truth` is read up to the line break after it.
    pub fn sample_at(
        &mut self,
        prompt: &Prompt<'_>,
        truth: &str,
        with_model: &mut Samples,
        memory_only: &mut Samples,
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
                with_model.add(&probabilities, true, &lookup, token);
            }
            memory_only.add(&uniform, false, &lookup, token);
            all.push(token);
        }
        Ok(())
    }

    /// Reads a text from its start: each token with the distribution that the memory is mixed into, and the memory's
    /// matches.
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
}
