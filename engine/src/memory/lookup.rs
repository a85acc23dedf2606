//! What the tiers of the memory know of what comes next.

use crate::text::tokenizer::TokenId;
use crate::tier::N_TIERS;

/// Lengths below the longest match that are tried.
pub(super) const LADDER: [usize; 10] = [24, 16, 12, 8, 6, 5, 4, 3, 2, 1];
/// Most lengths that one tier answers with.
pub(super) const MAX_ORDERS: usize = 4;
/// With as many occurrences of a length, shorter ones add nothing.
pub(super) const ENOUGH: u32 = 256;

/// What followed the last `len` tokens of the context in one tier: a context order, in the words of PPM (Cleary and
/// Witten 1984).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Tokens of context that matched.
    pub len: u32,
    /// Occurrences counted: the sum of `next`.
    pub total: u32,
    /// (token, count), most frequent first, of equals the lower id first.
    pub next: Vec<(TokenId, u32)>,
}

/// What all tiers know of the next token. Its buffers are reused from token to token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    /// By tier, the longest match first and then shorter ones that occur at least twice as often each.
    pub tiers: [Vec<Order>; N_TIERS],
}

impl Lookup {
    /// Empties all tiers and keeps their buffers.
    pub fn clear(&mut self) {
        self.tiers.iter_mut().for_each(Vec::clear);
    }

    /// The length of the longest match of any tier, in tokens; 0 without a match.
    pub fn longest(&self) -> u32 {
        self.tiers.iter().filter_map(|orders| orders.first()).map(|order| order.len).max().unwrap_or(0)
    }

    /// What most often followed the longest match of any tier; of equals the lower id.
    pub fn favourite(&self) -> Option<TokenId> {
        let longest = self.longest();
        let mut counts = std::collections::BTreeMap::new();
        for order in self.tiers.iter().filter_map(|orders| orders.first()).filter(|order| order.len == longest) {
            order.next.iter().for_each(|(token, count)| *counts.entry(*token).or_insert(0) += count);
        }
        counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(token, _)| token)
    }

    /// Whether no tier knows anything.
    pub fn is_empty(&self) -> bool {
        self.tiers.iter().all(Vec::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_favourite_is_that_of_all_tiers_at_the_longest_match() {
        let order = |len, next: &[(TokenId, u32)]| Order { len, total: 9, next: next.to_vec() };
        let mut lookup = Lookup::default();
        assert_eq!(lookup.favourite(), None);
        lookup.tiers[0] = vec![order(3, &[(9, 2), (11, 1)]), order(1, &[(8, 5)])];
        assert_eq!(lookup.favourite(), Some(9));
        lookup.tiers[2] = vec![order(3, &[(11, 1)])];
        assert_eq!(lookup.favourite(), Some(9), "of equals the lower id");
        lookup.tiers[3] = vec![order(3, &[(11, 1)])];
        assert_eq!(lookup.favourite(), Some(11));
        lookup.tiers[4] = vec![order(4, &[(20, 1)])];
        assert_eq!(lookup.favourite(), Some(20));
    }
}
