//! The next token's distribution: the model's, with the memory's mixed in.

use super::TokenSource;
use crate::memory::{Blend, Lookup, Memory, Mixture};
use crate::text::tokenizer::{N_SPECIALS, TokenId};
use crate::{Session, Tokenizer};

use nanochat_kernels::{Isa, vector};

/// Buffers that are kept from one completion to the next.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) lookup: Lookup,
    pub(super) mixture: Mixture,
    pub(super) probabilities: Vec<f32>,
    /// The model's own distribution of the last one; empty without a model.
    pub(super) by_model: Vec<f32>,
}

/// What the model alone gives a line, choice by choice: ln p of all of them, of the first and the last, and the least.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ModelLogP {
    n_choices: u32,
    pub(super) log_p: f32,
    pub(super) first: f32,
    pub(super) last: f32,
    pub(super) least: f32,
}

impl ModelLogP {
    /// With one more choice, to which the model gives the probability `p`.
    pub(super) fn then(self, p: f32) -> Self {
        let last = p.max(f32::MIN_POSITIVE).ln();
        Self {
            n_choices: self.n_choices + 1,
            log_p: self.log_p + last,
            first: if self.n_choices == 0 { last } else { self.first },
            last,
            least: self.least.min(last),
        }
    }
}

/// Gives next-token distributions in one completion.
pub(super) struct NextToken<'a> {
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) session: Option<&'a mut Session>,
    /// The logits after the last token of a KV-cache branch, where the text is not the session's active sequence.
    pub(super) branch_logits: Option<Vec<f32>>,
    pub(super) memory: Option<Memory>,
    pub(super) blend: &'a Blend,
    pub(super) buffers: &'a mut Buffers,
}

/// The probability of all of some tokens together.
pub(super) fn p_of(probabilities: &[f32], tokens: &[TokenId]) -> f32 {
    tokens.iter().filter_map(|token| probabilities.get(usize::from(*token))).sum()
}

/// The probability of a token but the specials where nothing is known.
pub(super) fn p_uniform(vocab_size: usize) -> f32 {
    1.0 / (vocab_size - usize::from(N_SPECIALS)) as f32
}

/// The distribution where nothing is known: uniform over all tokens but the specials.
pub(super) fn fill_uniform(probabilities: &mut Vec<f32>, vocab_size: usize) {
    probabilities.clear();
    probabilities.resize(vocab_size, p_uniform(vocab_size));
    probabilities[..usize::from(N_SPECIALS)].fill(0.0);
}

impl NextToken<'_> {
    /// Leaves the distribution of what follows `context`, the live file up to there, in the buffers. The session, or
    /// the branch that `branch_logits` are of, ends with the same tokens. False where neither model nor memory can
    /// predict anything.
    pub(super) fn next_distribution(&mut self, context: &[TokenId]) -> bool {
        let Buffers { lookup, mixture, probabilities, by_model } = &mut *self.buffers;
        match &self.memory {
            Some(memory) => memory.lookup(context, "", lookup),
            None => lookup.clear(),
        }
        probabilities.clear();
        by_model.clear();
        match &self.session {
            Some(session) => {
                probabilities.extend_from_slice(self.branch_logits.as_deref().unwrap_or_else(|| session.logits()));
                vector::softmax(session.model().isa(), probabilities);
                by_model.extend_from_slice(probabilities);
            }
            None => fill_uniform(probabilities, self.tokenizer.vocab_size()),
        }
        self.blend.mix(probabilities, self.session.is_some(), lookup, mixture);
        self.session.is_some() || !lookup.is_empty()
    }

    /// ln of the probability that `next` follows `all[start..]`, by the memory alone; 0 without one.
    pub(super) fn memory_log_p(&mut self, all: &mut Vec<TokenId>, start: usize, next: &[TokenId]) -> f32 {
        let Some(memory) = &self.memory else { return 0.0 };
        let (lookup, vocab_size) = (&mut self.buffers.lookup, self.tokenizer.vocab_size());
        let n_before = all.len();
        let mut log_p = 0.0;
        for token in next {
            memory.lookup(&all[start..], "", lookup);
            let p = self.blend.p_memory_only(*token, p_uniform(vocab_size), vocab_size, lookup);
            log_p += p.max(f32::MIN_POSITIVE).ln();
            all.push(*token);
        }
        all.truncate(n_before);
        log_p
    }

    /// What the model alone gives `next` and then one of `ends`, from its logits at each of these positions.
    pub(super) fn model_log_p<'l>(
        &mut self,
        logits: impl Iterator<Item = &'l [f32]>,
        next: &[TokenId],
        ends: &[TokenId],
    ) -> ModelLogP {
        let isa = self.session.as_ref().map_or_else(Isa::best, |session| session.model().isa());
        let p = &mut self.buffers.by_model;
        let choices = next.chunks(1).chain([ends]);
        logits.zip(choices).fold(ModelLogP::default(), |by_model, (logits, choices)| {
            p.clear();
            p.extend_from_slice(logits);
            vector::softmax(isa, p);
            by_model.then(p_of(p, choices))
        })
    }

    /// ln of how much more probable one of `these` is after the prompt than one of `those`, by the model; `None`
    /// without one.
    pub(super) fn model_log_odds(&mut self, these: &[TokenId], those: &[TokenId]) -> Option<f32> {
        let session = self.session.as_ref()?;
        let p = &mut self.buffers.by_model;
        p.clear();
        p.extend_from_slice(session.logits());
        vector::softmax(session.model().isa(), p);
        let [these, those] = [these, those].map(|tokens| p_of(p, tokens).max(f32::MIN_POSITIVE).ln());
        Some(these - those)
    }

    /// Which of model and memory gave more than half of `p`, the blended probability of a token.
    pub(super) fn attribution(&self, token: TokenId, p: f32) -> TokenSource {
        let from_memory = self.buffers.mixture.memory(token) > 0.5 * p;
        if from_memory || self.session.is_none() { TokenSource::Memory } else { TokenSource::Model }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_add_up_and_the_first_the_last_and_the_least_are_kept() {
        let by_model = [0.5, 0.125, 0.25].into_iter().fold(ModelLogP::default(), ModelLogP::then);
        let log2 = [by_model.log_p, by_model.first, by_model.last, by_model.least].map(|p| (p / 2f32.ln()).round());
        assert_eq!(log2, [-6.0, -1.0, -2.0, -3.0]);
        assert!(ModelLogP::default().then(0.0).log_p.is_finite());
    }
}
