//! What the weights of the choice between lines were found from: `rank STORE CHECKPOINT OUT FOLDER…`
//!
//! OUT is the weights as in `engine/src/complete/rank/default.f32`.
//!
//! Each folder is a crate, best one that the checkpoint was not trained on; lines of its files are completed with the other files in
//! the memory, by the memory alone and beside the model. For both, finds the weights under which the lines that were weighed are
//! most likely right or wrong as they are, and prints, of crates that took no part in finding them (each quarter in turn), how
//! many lines are exact and how many could be.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::path::{Path, PathBuf};

use nanochat_engine::complete::{CompleteError, Limits, Predictors, ScoredLine};
use nanochat_engine::rng::Rng;
use nanochat_engine::workspace::store::Store;
use nanochat_engine::{Cancel, Completer, Prompt};

mod holes;
mod learn;

use holes::Kind;
use learn::Net;

const N_FOLDS: usize = 4;
/// Files of one crate and lines of one file, at most.
const N_FILES: usize = 16;
const N_LINES: usize = 50;
const PREDICTORS: [(Predictors, &str); 2] = [(Predictors::Blend, "beside a model"), (Predictors::MemoryOnly, "alone")];
const KINDS: [Kind; 4] = [Kind::Line, Kind::Rest, Kind::Within, Kind::Several];
/// As in `engine/src/complete/rank.rs`.
const N_HIDDEN: usize = 48;
const DROPPED: f32 = 0.2;
/// Steps, and the first one's rate.
const N_STEPS: usize = 6000;
const RATE: f32 = 0.006;

/// The lines that were weighed at one place, each with whether it is the right one.
struct Hole {
    krate: usize,
    kind: Kind,
    lines: Vec<(Vec<f32>, bool)>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [store, checkpoint, out, folders @ ..] = &arguments[..] else {
        return Err("usage: rank STORE CHECKPOINT OUT FOLDER…".into());
    };
    let checkpoint = Store::at(store).open_checkpoint(checkpoint)?;
    let of_crates = learn::of_each(folders, || Completer::new(&checkpoint, 1), weigh)?;
    let mut of_voices = [const { Vec::new() }; 2];
    for holes in of_crates {
        of_voices.iter_mut().zip(holes).for_each(|(all, holes)| all.extend(holes));
    }
    let fitted: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = of_voices.iter().map(|found| scope.spawn(|| fit(found))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let mut all = Vec::new();
    for ((_, name), (net, rows)) in PREDICTORS.iter().zip(fitted) {
        for Row { kind, n, n_exact, n_possible } in rows {
            let percent = |part: usize| 100.0 * part as f64 / n.max(1) as f64;
            println!("{name}: {n} × {kind:?}, {:.1} % exact, {:.1} % possible", percent(n_exact), percent(n_possible));
        }
        all.push(net);
    }
    std::fs::write(out, learn::bytes_of(&all))?;
    Ok(())
}

/// The lines that compete in places of a crate, by each of [`PREDICTORS`].
fn weigh(completer: &mut Completer, krate: usize, folder: &Path) -> Result<[Vec<Hole>; 2], CompleteError> {
    let source = holes::Crate::read(folder);
    completer.set_memory(source.memory(completer.tokenizer()));
    let mut found = [const { Vec::new() }; 2];
    for (file, holes) in source.holes(N_FILES, N_LINES) {
        for (kind, hole) in holes {
            let (prefix, suffix) = (&file.text[..hole.start], &file.text[hole.end..]);
            let truth = match kind {
                Kind::Several => file.text[hole].lines().next().unwrap_or_default().trim_end(),
                _ => file.text[hole].trim_end(),
            };
            let limits = Limits { max_lines: if kind == Kind::Several { 8 } else { 1 }, ..Limits::default() };
            let prompt = Prompt { path: &file.name, prefix, suffix, ..Prompt::default() };
            for ((voices, _), found) in PREDICTORS.iter().zip(&mut found) {
                completer.set_predictors(*voices);
                let weighed = completer.scored_lines(&prompt, &limits, &Cancel::new())?;
                let line = |ScoredLine { text, features }: ScoredLine| (features, text.trim_end() == truth);
                found.push(Hole { krate, kind, lines: weighed.into_iter().map(line).collect() });
            }
        }
    }
    Ok(found)
}

/// What was found of places of one kind, by weights that other crates gave.
struct Row {
    kind: Kind,
    n: usize,
    n_exact: usize,
    n_possible: usize,
}

/// Weights, and what such are worth for each of [`KINDS`].
fn fit(found: &[Hole]) -> (Net, [Row; KINDS.len()]) {
    let n_features = found.iter().find_map(|hole| hole.lines.first()).map_or(0, |line| line.0.len());
    let learned = |holes: Vec<&Hole>| {
        let net = Net::new(n_features, N_HIDDEN, DROPPED);
        net.fit(holes.len(), RATE, N_STEPS, |net, idx, rng, gradient| {
            add_gradient(net, &holes[idx].lines, rng, gradient);
        })
    };
    let without = |fold: usize| found.iter().filter(move |hole| hole.krate % N_FOLDS != fold).collect();
    let of_folds: Vec<Net> = (0..N_FOLDS).map(|fold| learned(without(fold))).collect();
    let row = |kind: Kind| {
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

/// Adds the gradient of −ln p of what is right among these lines, which compete with each other and with none of them being
/// right.
#[inline(always)]
fn add_gradient(net: &Net, lines: &[(Vec<f32>, bool)], rng: &mut Rng, gradient: &mut [f32]) {
    let mut hidden = vec![Vec::new(); lines.len()];
    let said = lines.iter().zip(&mut hidden);
    let scores: Vec<f32> = said.map(|((features, _), hidden)| net.score_learning(features, hidden, rng)).collect();
    let largest = scores.iter().fold(0.0f32, |most, score| most.max(*score));
    let exps: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total = (-largest).exp() + exps.iter().sum::<f32>();
    let right: f32 = lines.iter().zip(&exps).filter(|((_, is_right), _)| *is_right).map(|(_, exp)| exp).sum();
    for (((features, is_right), exp), hidden) in lines.iter().zip(exps).zip(&hidden) {
        let by = exp / total - if *is_right { exp / right } else { 0.0 };
        net.add_gradient(by, features, hidden, gradient);
    }
}
