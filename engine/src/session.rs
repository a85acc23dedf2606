//! One conversation with the model: a KV cache and the tokens it holds.

use std::sync::Arc;

use nanochat_kernels::KvCache;

use crate::model::Activations;
use crate::tokenizer::TokenId;
use crate::{Cancel, Cancelled, Model};

/// Prompt tokens that go through the layers together: enough to read each weight seldom, few enough for L2.
const PROMPT_BATCH: usize = 96;

/// A KV cache that keeps the longest prefix it can.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    caches: Vec<KvCache>,
    activations: Activations,
    tokens: Vec<TokenId>,
    logits: Vec<f32>,
    /// Whether `logits` are those of the last token; a cancelled prompt leaves them stale.
    fresh: bool,
}

impl Session {
    /// An empty cache of `model.config().context` positions.
    pub fn new(model: Arc<Model>) -> Self {
        Self {
            caches: model.caches(),
            activations: Activations::new(model.config()),
            tokens: Vec::new(),
            logits: vec![0.0; model.config().vocab_size],
            fresh: false,
            model,
        }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens that the cache holds.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Makes the cache hold exactly `tokens`, computing only what follows the longest cached prefix.
    /// Returns how many positions were kept. After a cancellation the cache holds a prefix of `tokens`.
    ///
    /// # Panics
    /// If there are no tokens, more than the context, or one beyond the vocabulary.
    pub fn rebase(&mut self, tokens: &[TokenId], cancel: &Cancel) -> Result<usize, Cancelled> {
        assert!(!tokens.is_empty(), "a session needs at least one token");
        assert!(tokens.len() <= self.model.config().context, "{} tokens", tokens.len());
        let mut n_kept = self.tokens.iter().zip(tokens).take_while(|(held, wanted)| held == wanted).count();
        if n_kept == tokens.len() && !(self.fresh && n_kept == self.tokens.len()) {
            n_kept -= 1; // the last token is computed again, for its logits
        }
        if n_kept < self.tokens.len() || n_kept < tokens.len() {
            self.tokens.truncate(n_kept);
            self.fresh = false;
        }
        let mut last = 0;
        for batch in tokens[n_kept..].chunks(PROMPT_BATCH) {
            self.advance(batch, cancel)?;
            last = batch.len() - 1;
        }
        if !self.fresh {
            self.activations.logits(&self.model, last, &mut self.logits);
            self.fresh = true;
        }
        Ok(n_kept)
    }

    /// Appends one token.
    ///
    /// # Panics
    /// If the context is full or the token is beyond the vocabulary.
    pub fn push(&mut self, token: TokenId) {
        self.advance(&[token], &Cancel::new()).expect("nobody else has this flag");
        self.activations.logits(&self.model, 0, &mut self.logits);
        self.fresh = true;
    }

    /// Logits `[vocab_size]` of what follows the last token.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Logits at every position of `tokens`, `[tokens, vocab_size]`; for parity and scoring. Leaves the cache holding
    /// `tokens`.
    ///
    /// # Panics
    /// As [`Session::rebase`].
    pub fn logits_of(&mut self, tokens: &[TokenId]) -> Vec<f32> {
        assert!(tokens.len() <= self.model.config().context, "{} tokens", tokens.len());
        self.tokens.clear();
        let vocab_size = self.model.config().vocab_size;
        let mut logits = vec![0.0; tokens.len() * vocab_size];
        for (batch, out) in tokens.chunks(PROMPT_BATCH).zip(logits.chunks_mut(PROMPT_BATCH * vocab_size)) {
            self.advance(batch, &Cancel::new()).expect("nobody else has this flag");
            for (i, out) in out.chunks_exact_mut(vocab_size).enumerate() {
                self.activations.logits(&self.model, i, out);
            }
        }
        self.fresh = false;
        logits
    }

    fn advance(&mut self, tokens: &[TokenId], cancel: &Cancel) -> Result<(), Cancelled> {
        let first = self.tokens.len();
        assert!(first + tokens.len() <= self.model.config().context, "the context is full");
        self.fresh = false;
        self.activations.forward(&self.model, &mut self.caches, tokens, first, cancel)?;
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::random;

    fn session(shape: &str) -> Session {
        Session::new(Model::new(&random(&shape.parse().expect("a shape"), 7), 2))
    }

    const SHAPES: [&str; 3] = [
        "d64 l2 h4 kv2 ff128 v300 n1 ctx256",
        "d64 l2 h4 kv1 ff96 v300 n2 ctx256",
        "d64 l2 h4 kv4 ff128 v300 n4 ctx256",
    ];

    fn tokens(n: usize) -> Vec<TokenId> {
        (0..n).map(|i| (i * 31 % 300) as TokenId).collect()
    }

    #[test]
    fn a_kept_prefix_gives_the_same_logits_as_none() {
        for shape in SHAPES {
            let mut session = session(shape);
            let long = tokens(150);
            let expected = session.logits_of(&long);
            let row = |i: usize| &expected[i * 300..][..300];
            let cancel = Cancel::new();
            assert_eq!(session.rebase(&long[..100], &cancel), Ok(99));
            assert_eq!(session.logits(), row(99));
            assert_eq!(session.rebase(&long, &cancel), Ok(100));
            assert_eq!(session.logits(), row(149));
            assert_eq!(session.rebase(&long, &cancel), Ok(150));
            assert_eq!(session.logits(), row(149));
            let mut other = long.clone();
            other[50] = 1;
            assert_eq!(session.rebase(&other, &cancel), Ok(50));
            assert_ne!(session.logits(), row(149));
            assert_eq!(session.rebase(&long[..60], &cancel), Ok(50));
            assert_eq!(session.logits(), row(59));
            for (i, token) in long.iter().enumerate().skip(60) {
                session.push(*token);
                assert_eq!(session.logits(), row(i), "{shape}, token {i} one by one");
            }
        }
    }

    #[test]
    fn later_tokens_never_change_earlier_logits() {
        for shape in SHAPES {
            let mut session = session(shape);
            let a = tokens(120);
            let mut b = a.clone();
            b[100..].fill(5);
            let (a, b) = (session.logits_of(&a), session.logits_of(&b));
            assert_eq!(a[..100 * 300], b[..100 * 300]);
            assert_ne!(a[100 * 300..], b[100 * 300..]);
        }
    }

    #[test]
    fn threads_and_instruction_sets_give_the_same_bits() {
        use nanochat_kernels::{Isa, Plan};
        for shape in SHAPES {
            let weights = random(&shape.parse().expect("a shape"), 3);
            let runs: Vec<_> = Isa::available()
                .into_iter()
                .flat_map(|isa| [1, 3].map(|n_threads| (isa, n_threads)))
                .map(|(isa, n_threads)| {
                    let plan = Plan { isa, superblocks_per_piece: n_threads };
                    Session::new(Model::with_plan(&weights, n_threads, plan)).logits_of(&tokens(40))
                })
                .collect();
            assert!(runs.windows(2).all(|pair| pair[0] == pair[1]), "{shape}");
        }
    }

    #[test]
    fn a_prompt_that_is_cancelled_at_any_time_leaves_a_usable_session() {
        let mut session = session(SHAPES[1]);
        let (short, long) = (tokens(30), tokens(250));
        let expected = session.logits_of(&long)[249 * 300..].to_vec();
        for delay_us in (0..60).map(|i| i * 40) {
            session.rebase(&short, &Cancel::new()).expect("not cancelled");
            let cancel = Cancel::new();
            let flag = cancel.clone();
            let other = std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_micros(delay_us));
                flag.cancel();
            });
            // Whether it comes in time is the scheduler's; the state must be right either way.
            let _ = session.rebase(&long, &cancel);
            other.join().expect("it only sleeps");
            assert!(long.starts_with(session.tokens()));
            session.rebase(&long, &Cancel::new()).expect("not cancelled");
            assert_eq!(session.logits(), expected, "after {delay_us} µs");
        }
    }
}
