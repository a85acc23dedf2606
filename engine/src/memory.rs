//! What was written before in this workspace: the longest match of the context, and what followed it.

mod blend;
mod calibrate;
mod index;
mod lookup;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::tokenizer::TokenId;
pub use blend::{Blend, BlendError, Mixture, N_WEIGHTS};
pub use calibrate::{Samples, Schedule};
use index::{Index, Match};
pub use lookup::{Continuation, Lookup, N_TIERS, Order, Tier};

/// A match is not followed further back than this many tokens.
pub const MAX_MATCH: usize = 32;

/// Token streams of files, indexed by their suffixes. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    base: Arc<Index>,
    /// The live buffer, in place of the base's copy of the same file.
    overlay: Option<(String, Arc<Index>)>,
}

/// What followed the longest match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// Tokens of context that matched, at most [`MAX_MATCH`]; 0 with no prediction.
    pub match_len: usize,
    /// (token, probability), most probable first; sums to 1 when not empty.
    pub next: Vec<(TokenId, f32)>,
}

impl Memory {
    /// Indexes files: (path, tokens). The order does not matter to what is predicted. An `END` inside a stream
    /// is a boundary: it is never predicted and no match goes across it.
    pub fn build(files: Vec<(String, Vec<TokenId>)>) -> Self {
        Self { base: Arc::new(Index::build(files)), overlay: None }
    }

    /// This memory with the live text of one file in place of its saved copy. Put `END` where the cursor is, so
    /// that the memory does not hold that the suffix follows the prefix. Costs what the one file costs.
    pub fn with_overlay(&self, path: String, tokens: Vec<TokenId>) -> Self {
        let index = Index::build(vec![(path.clone(), tokens)]);
        Self { base: Arc::clone(&self.base), overlay: Some((path, Arc::new(index))) }
    }

    /// Tokens indexed.
    pub fn n_tokens(&self) -> usize {
        match &self.overlay {
            None => self.base.n_tokens(),
            Some((path, overlay)) => self.base.n_tokens() - self.base.n_tokens_of(path) + overlay.n_tokens(),
        }
    }

    /// What followed the longest suffix of `context` that occurs, with a token after it, outside the file `exclude`.
    pub fn predict(&self, context: &[TokenId], exclude: &str) -> Prediction {
        let overlay = self.overlay.as_ref().filter(|(path, _)| path != exclude);
        let overlay = overlay.and_then(|(_, index)| Some((&**index, index.longest(context, &[])?)));
        self.prediction(context, self.base.file(exclude), overlay)
    }

    /// What followed the longest match of the overlay's tokens before its token `next`, in the base and in the overlay
    /// before `next`: what is known when the overlay is read from its beginning.
    pub fn predict_within(&self, tokens: &[TokenId], next: usize) -> Prediction {
        // The overlay's index has one END before its only file.
        let ahead = u32::try_from(next).map_or(u32::MAX, |next| next.saturating_add(1))..u32::MAX;
        let ahead = std::slice::from_ref(&ahead);
        let overlay = self.overlay.as_ref();
        let overlay = overlay.and_then(|(_, index)| Some((&**index, index.longest(&tokens[..next], ahead)?)));
        self.prediction(&tokens[..next], 0..0, overlay)
    }

    /// What each tier knows of what follows `context`, outside the file `exclude`.
    pub fn lookup(&self, context: &[TokenId], exclude: &str, out: &mut Lookup) {
        out.clear();
        if let Some((_, index)) = self.overlay.as_ref().filter(|(path, _)| path != exclude) {
            index.orders(context, &[], &mut out.tiers[Tier::File as usize]);
        }
        let left_out = [self.base.file(exclude), self.replaced()];
        self.base.orders(context, &left_out, &mut out.tiers[Tier::Workspace as usize]);
    }

    /// What is known of the overlay's token `next` when the overlay is read from its beginning.
    pub fn lookup_within(&self, tokens: &[TokenId], next: usize, out: &mut Lookup) {
        out.clear();
        let context = &tokens[..next];
        if let Some((_, index)) = &self.overlay {
            // The overlay's index has one END before its only file.
            let ahead = u32::try_from(next).map_or(u32::MAX, |next| next.saturating_add(1))..u32::MAX;
            index.orders(context, std::slice::from_ref(&ahead), &mut out.tiers[Tier::File as usize]);
        }
        self.base.orders(context, &[self.replaced()], &mut out.tiers[Tier::Workspace as usize]);
    }

    /// What followed the longest match of each tier: at most `n` runs of at most `most` tokens from each, the latest of
    /// the nearest tier first.
    pub fn continuations(&self, context: &[TokenId], n: usize, most: usize) -> Vec<Continuation> {
        let mut found = Vec::new();
        let mut add = |tier, runs: Option<(usize, Vec<Vec<TokenId>>)>| {
            if let Some((match_len, runs)) = runs {
                let match_len = match_len as u32;
                found.extend(runs.into_iter().map(|tokens| Continuation { tier, match_len, tokens }));
            }
        };
        if let Some((_, index)) = &self.overlay {
            add(Tier::File, index.following(context, &[], n, most));
        }
        add(Tier::Workspace, self.base.following(context, &[self.replaced()], n, most));
        found
    }

    /// Where the base holds the overlay's file as it was saved.
    fn replaced(&self) -> Range<u32> {
        self.overlay.as_ref().map_or(0..0, |(path, _)| self.base.file(path))
    }

    fn prediction(
        &self,
        context: &[TokenId],
        excluded: Range<u32>,
        overlay: Option<(&Index, Match<'_>)>,
    ) -> Prediction {
        let mut counts = BTreeMap::new();
        let left_out = [excluded, self.replaced()];
        let base = self.base.longest(context, &left_out);

        let match_len =
            base.as_ref().map_or(0, |found| found.len).max(overlay.as_ref().map_or(0, |(_, found)| found.len));
        if let Some(found) = base.filter(|found| found.len == match_len) {
            self.base.count(&found, &mut counts);
        }
        if let Some((index, found)) = overlay.filter(|(_, found)| found.len == match_len) {
            index.count(&found, &mut counts);
        }
        let total: u32 = counts.values().sum();
        let mut next: Vec<(TokenId, f32)> =
            counts.into_iter().map(|(token, count)| (token, count as f32 / total as f32)).collect();
        // Stable, and the counts came in token order: ties go to the lower id.
        next.sort_by(|a, b| b.1.total_cmp(&a.1));
        Prediction { match_len, next }
    }
}

#[cfg(test)]
mod tests;
