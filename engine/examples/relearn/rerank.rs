//! Weights of the reranker: which of several candidate lines is the right one.
//!
//! Each folder is a crate, best one that the checkpoint was not trained on. Lines of its files are completed with the
//! other files in the memory, with the model and by the memory alone. For each of the two, finds the weights under
//! which the right candidates are most probable, and prints, for crates that took no part (each quarter in turn), how
//! many lines are exact and how many could be.

use std::path::{Path, PathBuf};

use nanochat_engine::complete::{CompleteError, Limits, RERANK_UNITS, ScoredLine, rerank_weights};
use nanochat_engine::rng::Rng;
use nanochat_engine::{Cancel, Checkpoint, Completer, Prompt};

use super::PREDICTORS;
use super::holes::{self, HoleKind};
use super::network::{self, Network};

const N_FOLDS: usize = 4;
/// Most files of one crate, and lines of one file.
const N_FILES: usize = 16;
const N_LINES: usize = 50;
const KINDS: [HoleKind; 4] = [HoleKind::Line, HoleKind::Rest, HoleKind::Within, HoleKind::Several];
const DROPPED: f32 = 0.2;
/// Steps, and the learning rate of the first one.
const N_STEPS: usize = 6000;
const RATE: f32 = 0.006;

/// The candidates at one place, each with whether it is the right one.
struct Ranked {
    krate: usize,
    kind: HoleKind,
    lines: Vec<(Vec<f32>, bool)>,
}

/// The bytes of the weights; prints what they are worth on crates that took no part.
pub(crate) fn learn(checkpoint: &Checkpoint, folders: &[PathBuf]) -> Result<Vec<u8>, CompleteError> {
    let of_crates = network::of_each(folders, || Completer::new(checkpoint, 1), candidates)?;
    let mut of_predictors = [const { Vec::new() }; 2];
    for holes in of_crates {
        of_predictors.iter_mut().zip(holes).for_each(|(all, holes)| all.extend(holes));
    }
    let fitted: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = of_predictors.iter().map(|found| scope.spawn(|| fit(found))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let mut weights = Vec::new();
    for ((_, name), (net, rows)) in PREDICTORS.iter().zip(fitted) {
        for Row { kind, n, n_exact, n_possible } in rows {
            let percent = |part: usize| 100.0 * part as f64 / n.max(1) as f64;
            println!("{name}: {n} × {kind:?}, {:.1} % exact, {:.1} % possible", percent(n_exact), percent(n_possible));
        }
        weights.push(net.weights);
    }
    Ok(rerank_weights(&weights[0], &weights[1]))
}

/// The candidates at places of a crate, by each of [`PREDICTORS`].
fn candidates(completer: &mut Completer, krate: usize, folder: &Path) -> Result<[Vec<Ranked>; 2], CompleteError> {
    let source = holes::Crate::read(folder);
    completer.set_memory(source.memory(completer.tokenizer()));
    let mut found = [const { Vec::new() }; 2];
    for (file, holes) in source.holes(N_FILES, N_LINES) {
        for (kind, hole) in holes {
            let (prefix, suffix) = (&file.text[..hole.start], &file.text[hole.end..]);
            let truth = match kind {
                HoleKind::Several => file.text[hole].lines().next().unwrap_or_default().trim_end(),
                _ => file.text[hole].trim_end(),
            };
            let limits = Limits { max_lines: if kind == HoleKind::Several { 8 } else { 1 }, ..Limits::default() };
            let prompt = Prompt { path: &file.name, prefix, suffix, ..Prompt::default() };
            for ((predictors, _), found) in PREDICTORS.iter().zip(&mut found) {
                completer.set_predictors(*predictors);
                let candidates = completer.scored_lines(&prompt, &limits, &Cancel::new())?;
                let line = |ScoredLine { text, features }: ScoredLine| (features, text.trim_end() == truth);
                found.push(Ranked { krate, kind, lines: candidates.into_iter().map(line).collect() });
            }
        }
    }
    Ok(found)
}

/// How often the weights of other crates choose right, at places of one kind.
struct Row {
    kind: HoleKind,
    n: usize,
    n_exact: usize,
    n_possible: usize,
}

/// The weights of all crates, and what weights of other crates are worth, for each of [`KINDS`].
fn fit(found: &[Ranked]) -> (Network, [Row; KINDS.len()]) {
    let n_features = found.iter().find_map(|hole| hole.lines.first()).map_or(0, |line| line.0.len());
    let learned = |holes: Vec<&Ranked>| {
        let net = Network::new(n_features, RERANK_UNITS, DROPPED);
        net.fit(holes.len(), RATE, N_STEPS, |net, idx, rng, gradient| {
            add_gradient(net, &holes[idx].lines, rng, gradient);
        })
    };
    let without = |fold: usize| found.iter().filter(move |hole| hole.krate % N_FOLDS != fold).collect();
    let of_folds: Vec<Network> = (0..N_FOLDS).map(|fold| learned(without(fold))).collect();
    let row = |kind: HoleKind| {
        let mut row = Row { kind, n: 0, n_exact: 0, n_possible: 0 };
        for hole in found.iter().filter(|hole| hole.kind == kind) {
            let score = |line: &(Vec<f32>, bool)| of_folds[hole.krate % N_FOLDS].score(&line.0);
            let best = hole.lines.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
            row.n += 1;
            row.n_exact += usize::from(best.is_some_and(|(_, is_right)| *is_right));
            row.n_possible += usize::from(hole.lines.iter().any(|(_, is_right)| *is_right));
        }
        row
    };
    (learned(found.iter().collect()), KINDS.map(row))
}

/// Adds the gradient of −ln p of the right ones among these lines, which compete with each other and with none being
/// right.
#[inline(always)]
fn add_gradient(net: &Network, lines: &[(Vec<f32>, bool)], rng: &mut Rng, gradient: &mut [f32]) {
    let mut hidden = vec![Vec::new(); lines.len()];
    let units = lines.iter().zip(&mut hidden);
    let scores: Vec<f32> = units.map(|((features, _), hidden)| net.score_learning(features, hidden, rng)).collect();
    let largest = scores.iter().fold(0.0f32, |most, score| most.max(*score));
    let exps: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total = (-largest).exp() + exps.iter().sum::<f32>();
    let right: f32 = lines.iter().zip(&exps).filter(|((_, is_right), _)| *is_right).map(|(_, exp)| exp).sum();
    for (((features, is_right), exp), hidden) in lines.iter().zip(exps).zip(&hidden) {
        let by = exp / total - if *is_right { exp / right } else { 0.0 };
        net.add_gradient(by, features, hidden, gradient);
    }
}
