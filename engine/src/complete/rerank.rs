//! Rerank: how likely each candidate is to be the line that was meant, from all that is known of it and of the others.
//!
//! ```text
//! p = e^score / (1 + Σ e^score): the 1 is for none of the candidates
//! ```
//!
//! The weights are those under which the right lines of the crates on the lists `develop` and `ranking` were most
//! likely; an example finds them. So p is calibrated for crates that are like these.

mod context;
mod features;

use std::sync::LazyLock;

use super::TokenSource;
use super::candidates::{Candidate, Cursor};
use super::network::{Network, file_of, n_bytes};
use crate::Cancelled;
use crate::kv::BranchPos;

use context::CursorContext;
use features::{CandidateFeatures, FEATURES};

pub(super) use features::Position;

/// Units of the reranker's hidden layer, for whoever learns its weights.
pub const RERANK_UNITS: usize = 48;

/// Tokens of the suffix whose probability after a candidate counts.
const SUFFIX_TOKENS: usize = 4;
/// For so many tokens of the search budget, the model scores one candidate that the search has not found.
const BUDGET_PER_SCORED: usize = 5;
/// Candidates that the model scores in one pass.
const SCORED_TOGETHER: usize = 4;

/// What [`rerank_weights`] made of the weights that were learned.
const DEFAULT: &[u8; n_bytes(FEATURES.len(), RERANK_UNITS)] = include_bytes!("rerank/default.f32");

static NETWORKS: LazyLock<[Network; 2]> =
    LazyLock::new(|| Network::pair(&FEATURES, DEFAULT).unwrap_or_else(|error| panic!("rerank/default.f32: {error}")));

/// The file of weights of the reranker, from those of its two networks.
pub fn rerank_weights(with_model: &[f32], memory_only: &[f32]) -> Vec<u8> {
    file_of(&FEATURES, with_model, memory_only)
}

/// Lets the model score candidates that the search has not found, several in a pass.
pub(super) fn score_by_model(cursor: &mut Cursor<'_, '_>, candidates: &mut [Candidate]) -> Result<(), Cancelled> {
    let Some((pos, first)) = &cursor.at_cursor else { return Ok(()) };
    let context = cursor.next_token.session.as_ref().map_or(0, |session| session.model().config().context);
    let room = context.saturating_sub(cursor.n_prompt);
    let unscored = candidates.iter_mut().filter(|candidate| candidate.path.by_model.is_none());
    let unscored = unscored.filter(|candidate| (1..=room).contains(&candidate.path.tokens.len()));
    let mut unscored: Vec<&mut Candidate> =
        unscored.take(cursor.limits.search_budget.div_ceil(BUDGET_PER_SCORED)).collect();
    for candidates in unscored.chunks_mut(SCORED_TOGETHER) {
        let next: Vec<(BranchPos, &[_])> =
            candidates.iter().map(|candidate| (*pos, &candidate.path.tokens[..])).collect();
        let Some(session) = &mut cursor.next_token.session else { break };
        let vocab_size = session.model().config().vocab_size;
        let (_, logits) = session.extend(&mut cursor.kv_branches, &next, cursor.cancel)?;
        let mut rows = logits.chunks_exact(vocab_size);
        for candidate in candidates {
            let logits = std::iter::once(&first[..]).chain(rows.by_ref().take(candidate.path.tokens.len()));
            let by_model = cursor.next_token.model_log_p(logits, &candidate.path.tokens, &cursor.line_ends);
            candidate.path.by_model = Some(by_model);
        }
    }
    Ok(())
}

/// Gives each candidate its features and its probability.
pub(super) fn rerank(cursor: &mut Cursor<'_, '_>, candidates: &mut [Candidate], position: Position) {
    let has_model = cursor.next_token.session.is_some();
    let features = features_of(cursor, candidates, position);
    let network = &NETWORKS[usize::from(!has_model)];
    let p = compete(features.iter().map(|features| network.score(features)).collect());
    for ((candidate, features), p) in candidates.iter_mut().zip(features).zip(p) {
        (candidate.features, candidate.p) = (Some(features.to_vec()), p);
    }
}

fn features_of(
    cursor: &mut Cursor<'_, '_>,
    candidates: &[Candidate],
    position: Position,
) -> Vec<[f32; FEATURES.len()]> {
    let context = CursorContext::of(cursor.prompt);
    let searched = candidates.iter().filter(|candidate| candidate.is_searched).map(|candidate| candidate.path.log_p);
    let best = searched.fold(f32::NEG_INFINITY, f32::max);
    let infill = || candidates.iter().filter_map(|candidate| candidate.infill);
    let most_infill = (
        infill().map(|infill| infill.n_before).max().unwrap_or(0),
        infill().map(|infill| infill.n_after).max().unwrap_or(0),
    );
    let n_suffix = cursor.suffix.len().min(SUFFIX_TOKENS);
    let by_model = candidates.iter().filter_map(|candidate| candidate.path.by_model);
    let best_by_model = by_model.fold(f32::NEG_INFINITY, |best, by_model| best.max(by_model.log_p));
    let mut features = Vec::with_capacity(candidates.len());
    for Candidate { path, is_searched, infill, renamed, members, .. } in candidates {
        cursor.all.truncate(cursor.n_prompt);
        cursor.all.extend_from_slice(&path.tokens);
        let suffix = &cursor.suffix[..n_suffix];
        let suffix_log_p = cursor.next_token.memory_log_p(&mut cursor.all, cursor.file_start, suffix);
        let known = CandidateFeatures {
            searched: is_searched.then_some((path.log_p, best)),
            by_model: path.by_model.map(|by_model| (by_model, best_by_model)),
            suffix: (suffix_log_p, n_suffix),
            infill: *infill,
            most_infill,
            renamed: *renamed,
            n_tokens: path.tokens.len(),
            n_from_model: path.sources.iter().filter(|source| **source == TokenSource::Model).count(),
            members: *members,
            position,
            context: context.features(&path.text.bytes, path.text.healed.len()),
        };
        features.push(known.values());
    }
    features
}

/// The probability of each score among the others and none.
fn compete(scores: Vec<f32>) -> Vec<f32> {
    let largest = scores.iter().copied().fold(0.0, f32::max);
    let total = (-largest).exp() + scores.iter().map(|score| (score - largest).exp()).sum::<f32>();
    scores.into_iter().map(|score| (score - largest).exp() / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_is_finite_and_of_these_features() {
        assert!(NETWORKS.iter().all(Network::is_sound));
    }

    #[test]
    fn candidates_compete_with_each_other_and_with_none() {
        let p = compete(vec![0.0, 3.0f32.ln(), -200.0]);
        assert!((p[0] - 0.2).abs() < 1e-6 && (p[1] - 0.6).abs() < 1e-6 && p[2] == 0.0, "{p:?}");
        let p = compete(vec![500.0, 500.0]);
        assert!(p.iter().all(|p| (p - 0.5).abs() < 1e-6), "{p:?}");
        assert!(compete(Vec::new()).is_empty());
    }
}
