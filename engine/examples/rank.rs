//! What the weights of the choice between lines were found from: `rank STORE CHECKPOINT FOLDER…`
//!
//! Each folder is a crate that the checkpoint was not trained on; lines of its files are completed with the other files in
//! the memory, by the memory alone and beside the model. Prints for both the weights under which the lines that were
//! weighed are most likely right or wrong as they are, for `engine/src/complete/rank.rs`, and, of crates that took no part
//! in finding them (each quarter in turn), how many lines are exact and how many could be.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::path::PathBuf;

use nanochat_engine::complete::{Limits, Voices, Weighed};
use nanochat_engine::store::Store;
use nanochat_engine::{Cancel, Completer, Prompt};

mod holes;

const N_FOLDS: usize = 4;
/// Steps of gradient descent, their length, and how far weights are held back.
const N_STEPS: usize = 4000;
const RATE: f64 = 0.5;
const DECAY: f64 = 1e-4;

/// The lines that were weighed at one place, each with whether it is the right one.
struct Hole {
    krate: usize,
    is_whole_line: bool,
    lines: Vec<(Vec<f64>, bool)>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [store, checkpoint, folders @ ..] = &arguments[..] else {
        return Err("usage: rank STORE CHECKPOINT FOLDER…".into());
    };
    let checkpoint = Store::at(store).open_checkpoint(checkpoint)?;
    let mut completer = Completer::new(&checkpoint, 1);
    let voices = [(Voices::MemoryOnly, "alone"), (Voices::Both, "beside a model")];
    let mut found = [const { Vec::new() }; 2];
    for (n, folder) in folders.iter().enumerate() {
        let krate = holes::Crate::read(folder);
        completer.set_memory(krate.memory(completer.tokenizer()));
        for (file, holes) in krate.holes() {
            for hole in holes {
                let (prefix, suffix) = (&file.text[..hole.start], &file.text[hole.end..]);
                let truth = file.text[hole].trim_end();
                let prompt = Prompt { path: &file.name, prefix, suffix, ..Prompt::default() };
                let is_whole_line = prefix.rsplit('\n').next().is_some_and(|line| line.trim().is_empty());
                for ((voices, _), found) in voices.iter().zip(&mut found) {
                    completer.set_voices(*voices);
                    let weighed = completer.weighed(&prompt, &Limits::default(), &Cancel::new())?;
                    let line = |Weighed { text, features }: Weighed| {
                        (features.into_iter().map(f64::from).collect(), text.trim_end() == truth)
                    };
                    found.push(Hole { krate: n, is_whole_line, lines: weighed.into_iter().map(line).collect() });
                }
            }
        }
        eprintln!("{} of {} crates, {} places", n + 1, folders.len(), found[0].len());
    }
    for ((_, name), found) in voices.iter().zip(&found) {
        report(name, found);
    }
    Ok(())
}

fn report(name: &str, holes: &[Hole]) {
    for is_whole_line in [true, false] {
        let (mut n, mut n_exact, mut n_possible) = (0, 0, 0);
        for fold in 0..N_FOLDS {
            let weights = weights(&|| holes.iter().filter(|hole| hole.krate % N_FOLDS != fold));
            let tested =
                holes.iter().filter(|hole| hole.krate % N_FOLDS == fold && hole.is_whole_line == is_whole_line);
            for hole in tested {
                let score = |line: &(Vec<f64>, bool)| dot(&weights, &line.0);
                let best = hole.lines.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
                n += 1;
                n_exact += usize::from(best.is_some_and(|(_, is_right)| *is_right));
                n_possible += usize::from(hole.lines.iter().any(|(_, is_right)| *is_right));
            }
        }
        let percent = |part: usize| 100.0 * part as f64 / n.max(1) as f64;
        let kind = if is_whole_line { "next lines" } else { "rests of lines" };
        println!("{name}: {n} {kind}, {:.1} % exact, {:.1} % possible", percent(n_exact), percent(n_possible));
    }
    println!("{name}: {:.4?}", weights(&|| holes.iter()));
}

/// Under which the right lines are most probable, by gradient descent on the mean of −ln p over the places: lines compete with
/// each other and with none of them being right.
fn weights<'a, I: Iterator<Item = &'a Hole>>(holes: &dyn Fn() -> I) -> Vec<f64> {
    let n_holes = holes().count() as f64;
    let n_features = holes().find_map(|hole| hole.lines.first()).map_or(0, |line| line.0.len());
    let mut weights = vec![0.0; n_features];
    let mut momentum = vec![0.0; n_features];
    for _ in 0..N_STEPS {
        let mut gradient: Vec<f64> = weights.iter().map(|weight| DECAY * weight).collect();
        for hole in holes() {
            let scores: Vec<f64> = hole.lines.iter().map(|(features, _)| dot(&weights, features)).collect();
            let largest = scores.iter().fold(0.0f64, |m, score| m.max(*score));
            let exps: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total = (-largest).exp() + exps.iter().sum::<f64>();
            let right: f64 =
                hole.lines.iter().zip(&exps).filter(|((_, is_right), _)| *is_right).map(|(_, exp)| exp).sum();
            for ((features, is_right), exp) in hole.lines.iter().zip(&exps) {
                let share = if *is_right { exp / right } else { 0.0 };
                let off = (exp / total - share) / n_holes;
                gradient.iter_mut().zip(features).for_each(|(sum, feature)| *sum += off * feature);
            }
        }
        for ((weight, momentum), gradient) in weights.iter_mut().zip(&mut momentum).zip(gradient) {
            *momentum = 0.9 * *momentum + gradient;
            *weight -= RATE * *momentum;
        }
    }
    weights
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
