//! Token sequences and their KV caches: what a prompt shares with one before is not computed again, nor what several
//! continuations of it share.

use std::sync::Arc;

use crate::model::forward::{Activations, Run};
use crate::text::tokenizer::TokenId;
use crate::{Cancel, Cancelled, Config, Model};

use super::branches::{BranchPos, Branches};
use super::slots::{Chosen, Slots};

/// Bytes that the caches of all sequences may take, unless [`Session::set_most_bytes`] says otherwise.
pub const MOST_BYTES: usize = 16 << 20;

/// Keeps the KV caches of the sequences it was given lately; one of them is active.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    slots: Slots,
    activations: Activations,
    /// `[vocab_size]`
    logits: Vec<f32>,
    /// Whether `logits` are those after the last token; a cancelled prompt leaves them stale.
    fresh: bool,
}

impl Session {
    /// Empty caches of `model.config().context` positions.
    pub fn new(model: Arc<Model>) -> Self {
        Self {
            slots: Slots::new(&model, MOST_BYTES),
            activations: Activations::new(model.config()),
            logits: vec![0.0; model.config().vocab_size],
            fresh: false,
            model,
        }
    }

    /// The model whose keys and values are kept.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens of the active sequence.
    pub fn tokens(&self) -> &[TokenId] {
        &self.slots.active().tokens
    }

    /// Sequences whose caches are kept.
    pub fn n_sequences(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of all caches.
    pub fn n_bytes(&self) -> usize {
        self.slots.n_bytes()
    }

    /// Lets all caches together take this many bytes; the active one is kept whatever it takes.
    pub fn set_most_bytes(&mut self, most_bytes: usize) {
        self.slots.set_most_bytes(most_bytes);
    }

    /// Makes `tokens` the active sequence, computing only what follows the longest prefix that any cache holds.
    /// Returns how many positions were kept. After a cancellation a prefix of `tokens` is active.
    ///
    /// # Panics
    /// If there are no tokens, more than the context, or one beyond the vocabulary.
    pub fn rebase(&mut self, tokens: &[TokenId], cancel: &Cancel) -> Result<usize, Cancelled> {
        assert!(!tokens.is_empty(), "a session needs at least one token");
        assert!(tokens.len() <= self.model.config().context, "{} tokens", tokens.len());
        let Chosen { n_shared, is_same } = self.slots.choose(tokens);
        let slot = self.slots.active_mut();
        slot.n_prompt = tokens.len();
        self.fresh &= is_same && n_shared == slot.tokens.len();
        if self.fresh && n_shared == tokens.len() {
            return Ok(n_shared);
        }
        // Where the last token is there already, it is computed again for its logits.
        let n_kept = n_shared.min(tokens.len() - 1);
        slot.tokens.truncate(n_kept);
        let mut last = 0;
        for batch in tokens[n_kept..].chunks(self.model.prompt_batch()) {
            let is_last = self.tokens().len() + batch.len() == tokens.len();
            self.advance(batch, usize::from(is_last), cancel)?;
            last = batch.len() - 1;
        }
        self.activations.logits(&self.model, last..last + 1, &mut self.logits);
        self.fresh = true;
        self.slots.evict();
        Ok(n_kept)
    }

    /// Appends one token.
    ///
    /// # Panics
    /// If the context is full or the token is beyond the vocabulary.
    pub fn push(&mut self, token: TokenId) {
        self.advance(&[token], 1, &Cancel::new()).expect("nobody else has this flag");
        self.activations.logits(&self.model, 0..1, &mut self.logits);
        self.fresh = true;
    }

    /// Logits `[vocab_size]` of what follows the last token.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Where the active sequence ends.
    pub(crate) fn pos(&self) -> BranchPos {
        BranchPos::of_active(self.tokens().len())
    }

    /// Computes tokens after positions of the active sequence or of branches, all in one pass: where each text then
    /// ends, and logits `[tokens of all texts, vocab_size]` of what follows each token, the same bits as after
    /// [`Session::push`]. The active sequence stays as it is.
    ///
    /// # Panics
    /// If the context is full, a token is beyond the vocabulary or there is nothing to compute after a position.
    pub(crate) fn extend(
        &mut self,
        branches: &mut Branches,
        next: &[(BranchPos, &[TokenId])],
        cancel: &Cancel,
    ) -> Result<(Vec<BranchPos>, Vec<f32>), Cancelled> {
        let Config { context, vocab_size, .. } = *self.model.config();
        let lens = || next.iter().map(|(_, tokens)| tokens.len());
        let ends = branches.make_room(&self.slots.active().caches, next.iter().map(|(pos, _)| *pos).zip(lens()));
        assert!(ends.iter().all(|end| end.n_tokens() <= context), "the context is full");
        let tokens: Vec<TokenId> = next.iter().flat_map(|(_, tokens)| *tokens).copied().collect();
        let mut runs = branches.runs(ends.iter().copied().zip(lens()));
        self.activations.forward(&self.model, &mut runs, &tokens, tokens.len(), cancel)?;
        let mut logits = vec![0.0; tokens.len() * vocab_size];
        self.activations.logits(&self.model, 0..tokens.len(), &mut logits);
        Ok((ends, logits))
    }

    /// Logits at every position of `tokens`, `[tokens, vocab_size]`; for parity and scoring. Leaves `tokens` active.
    ///
    /// # Panics
    /// As [`Session::rebase`].
    pub fn logits_of(&mut self, tokens: &[TokenId]) -> Vec<f32> {
        assert!(tokens.len() <= self.model.config().context, "{} tokens", tokens.len());
        self.slots.active_mut().tokens.clear();
        let vocab_size = self.model.config().vocab_size;
        let mut logits = vec![0.0; tokens.len() * vocab_size];
        let n_batch = self.model.prompt_batch();
        for (batch, out) in tokens.chunks(n_batch).zip(logits.chunks_mut(n_batch * vocab_size)) {
            self.advance(batch, batch.len(), &Cancel::new()).expect("nobody else has this flag");
            self.activations.logits(&self.model, 0..batch.len(), out);
        }
        self.fresh = false;
        logits
    }

    /// Computes tokens after the active sequence and appends them to it. The last `n_wanted` may have their logits
    /// taken.
    fn advance(&mut self, tokens: &[TokenId], n_wanted: usize, cancel: &Cancel) -> Result<(), Cancelled> {
        let slot = self.slots.active_mut();
        let first = slot.tokens.len();
        assert!(first + tokens.len() <= self.model.config().context, "the context is full");
        self.fresh = false;
        let run = Run { caches: &mut slot.caches, first, n: tokens.len() };
        self.activations.forward(&self.model, &mut [run], tokens, n_wanted, cancel)?;
        slot.tokens.extend_from_slice(tokens);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::weights::random;

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
            assert_eq!(session.rebase(&long[..60], &cancel), Ok(59), "the sequence before the edit is still there");
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

    #[test]
    fn documents_stay_warm_side_by_side_and_edits_are_rolled_back() {
        for shape in SHAPES {
            let mut session = session(shape);
            let cancel = Cancel::new();
            let document = |seed: usize| -> Vec<TokenId> {
                // Snippets that all share, then text of their own.
                (0..60).chain((0..140).map(|i| 61 + (i + 1) * (seed + 3))).map(|i| (i * 31 % 300) as TokenId).collect()
            };
            let [a, b, c] = [0, 1, 2].map(document);
            let mut fresh = Session::new(Arc::clone(session.model()));
            let mut expected = |tokens: &[TokenId]| fresh.logits_of(tokens)[(tokens.len() - 1) * 300..].to_vec();
            let mut check = |tokens: &[TokenId], n_kept: usize| {
                assert_eq!(session.rebase(tokens, &cancel), Ok(n_kept), "{shape}");
                assert_eq!(session.logits(), expected(tokens), "{shape}");
                session.push(7);
                session.push(9); // generated, and worth nothing later
            };
            check(&a, 0);
            check(&b, 60);
            check(&c, 60);
            check(&a, 199); // only the last token, for its logits
            check(&b[..150], 149);
            check(&b, 150);
            let mut edited = a.clone();
            edited[150] = 299;
            check(&edited, 150); // 50 tokens were lost
            edited[80] = 298;
            check(&edited, 80); // 120 would have been: the old text stays
            edited[80] = a[80];
            check(&edited, 199); // undone
            check(&c, 199);
            assert_eq!(session.n_sequences(), 4);
        }
    }

    #[test]
    fn branches_give_the_logits_of_sequences_of_their_own() {
        for shape in SHAPES {
            let (mut session, mut alone) = (session(shape), session(shape));
            let (cancel, prompt) = (Cancel::new(), tokens(70));
            session.rebase(&prompt, &cancel).expect("not cancelled");
            let root = session.pos();
            session.push(5);
            session.push(6);
            let before = session.logits().to_vec();
            let mut branches = Branches::default();
            // Texts, each with the position at its end.
            let mut texts = vec![(vec![], root), (vec![5], root.next()), (vec![5, 6], session.pos())];
            let rounds: [&[(usize, &[TokenId])]; 3] = [
                &[(0, &[9]), (1, &[8, 2, 8]), (2, &[7]), (0, &[3])],
                &[(3, &[1]), (3, &[2, 2]), (1, &[8])],
                &[(7, &[4]), (4, &[3])],
            ];
            for round in rounds {
                let next: Vec<(BranchPos, &[TokenId])> = round.iter().map(|(at, new)| (texts[*at].1, *new)).collect();
                let (ends, mut logits) = session.extend(&mut branches, &next, &cancel).expect("not cancelled");
                for ((at, new), end) in round.iter().zip(ends) {
                    let text = [&texts[*at].0[..], new].concat();
                    let expected = alone.logits_of(&[&prompt[..], &text].concat());
                    let rows: Vec<f32> = logits.drain(..300 * new.len()).collect();
                    assert_eq!(rows, expected[expected.len() - rows.len()..], "{shape}, {text:?}");
                    texts.push((text, end));
                }
                assert!(logits.is_empty());
            }
            assert_eq!((session.logits(), session.tokens().len()), (&before[..], 72));
            session.push(7);
            let expected = alone.logits_of(session.tokens());
            assert_eq!(session.logits(), &expected[72 * 300..], "{shape}");
        }
    }

    fn cancel_early(session: &mut Session, tokens: &[TokenId]) {
        let cancel = Cancel::new();
        cancel.cancel();
        assert_eq!(session.rebase(tokens, &cancel), Err(Cancelled));
    }

    #[test]
    fn caches_keep_to_their_cap_and_forget_what_was_used_longest_ago() {
        let mut session = session(SHAPES[0]);
        let cancel = Cancel::new();
        let document = |seed: TokenId| vec![seed; 200];
        session.rebase(&document(1), &cancel).expect("not cancelled");
        let one = session.n_bytes();
        assert!(one > 0);
        session.set_most_bytes(3 * one);
        for seed in [2, 3, 1, 4] {
            session.rebase(&document(seed), &cancel).expect("not cancelled");
            assert!(session.n_bytes() <= 3 * one && session.n_sequences() <= 3);
        }
        assert_eq!(session.rebase(&document(1), &cancel), Ok(199), "it was used since");
        assert_eq!(session.rebase(&document(2), &cancel), Ok(0), "it was not");
        for seed in 10..40 {
            cancel_early(&mut session, &document(seed));
        }
        assert!(session.n_sequences() <= 16, "sequences that take no bytes are bounded too");
        session.rebase(&document(2), &cancel).expect("not cancelled");
        session.set_most_bytes(0);
        assert_eq!((session.n_sequences(), session.tokens()), (1, &document(2)[..]));
        session.rebase(&document(3), &cancel).expect("not cancelled");
        assert_eq!(session.n_sequences(), 1, "the active one stays");
    }
}
