//! KV caches of several token sequences, so that going back to another document costs what changed in it.
//!
//! ```text
//! tokens → slot with the longest common prefix ─ little of its prompt is lost ──→ cut it there (typing, an edit)
//!                                              └ more is ──→ fork the prefix into a new slot, keep both
//! over the cap: the slot that was used longest ago is forgotten
//! ```

use nanochat_kernels::KvCache;

use crate::Model;
use crate::text::tokenizer::TokenId;

/// Prompt tokens that a slot may lose to an edit and still be cut rather than kept next to a fork: about four lines, 3
/// ms of a 25M model on two cores.
const MOST_LOST: usize = 64;

/// Most slots: one whose prompt was cancelled early takes next to no bytes.
const MOST_SLOTS: usize = 16;

/// One sequence. Its caches may hold anything after its tokens.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) tokens: Vec<TokenId>,
    pub(super) caches: Vec<KvCache>,
    /// Tokens of the prompt; what was generated after them is worth nothing to a later one.
    pub(super) n_prompt: usize,
}

/// Slots in the order of their use, the active one last; never empty.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    most_bytes: usize,
}

/// What [`Slots::choose`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Tokens that the active slot holds of those asked for.
    pub(super) n_shared: usize,
    /// Whether it is the slot that was active before.
    pub(super) is_same: bool,
}

impl Slots {
    pub(super) fn new(model: &Model, most_bytes: usize) -> Self {
        Self { slots: vec![Slot::new(model)], most_bytes }
    }

    pub(super) fn active(&self) -> &Slot {
        self.slots.last().expect("never empty")
    }

    pub(super) fn active_mut(&mut self) -> &mut Slot {
        self.slots.last_mut().expect("never empty")
    }

    /// How many sequences are kept.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of all caches.
    pub(super) fn n_bytes(&self) -> usize {
        self.slots.iter().map(Slot::n_bytes).sum()
    }

    /// Makes a slot active that holds as many of the first `tokens` as any, with what follows them left in place only
    /// where no more of a prompt is lost than [`MOST_LOST`].
    pub(super) fn choose(&mut self, tokens: &[TokenId]) -> Chosen {
        let shared = |slot: &Slot| slot.tokens.iter().zip(tokens).take_while(|(held, wanted)| held == wanted).count();
        let best = (0..self.slots.len()).max_by_key(|i| shared(&self.slots[*i])).expect("never empty");
        let n_shared = shared(&self.slots[best]);
        let n_prompt = self.slots[best].n_prompt.min(self.slots[best].tokens.len());
        if n_prompt.saturating_sub(n_shared) <= MOST_LOST {
            let is_same = best + 1 == self.slots.len();
            let slot = self.slots.remove(best);
            self.slots.push(slot);
            return Chosen { n_shared, is_same };
        }
        let caches = self.slots[best].caches.iter().map(|cache| cache.fork(n_shared)).collect();
        let slot = Slot { tokens: tokens[..n_shared].to_vec(), caches, n_prompt: 0 };
        self.slots.push(slot);
        self.evict();
        Chosen { n_shared, is_same: false }
    }

    /// Sets the cap and keeps to it.
    pub(super) fn set_most_bytes(&mut self, most_bytes: usize) {
        self.most_bytes = most_bytes;
        self.evict();
    }

    /// Forgets the slots used longest ago until the cap is kept; the active one always stays.
    pub(super) fn evict(&mut self) {
        while self.slots.len() > MOST_SLOTS || self.slots.len() > 1 && self.n_bytes() > self.most_bytes {
            self.slots.remove(0);
        }
    }
}

impl Slot {
    fn new(model: &Model) -> Self {
        Self { tokens: Vec::new(), caches: model.caches(), n_prompt: 0 }
    }

    fn n_bytes(&self) -> usize {
        self.caches.iter().map(KvCache::n_bytes).sum()
    }
}
