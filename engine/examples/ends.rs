//! What the weights of the end of a text of several lines were found from: `ends STORE CHECKPOINT OUT FOLDER…`
//!
//! OUT is the weights as in `engine/src/complete/ends/default.f32`.
//!
//! Each folder is a crate; places of several lines of its files are read line by line, with the other files in the memory, by
//! the memory alone and beside the model. For both, finds the weights under which it is most likely that the text ends where
//! it does and goes on where it goes on, and prints, of crates that took no part in finding them (each quarter in turn), how
//! often that is told right, and how often the text ends. The choice of lines (the example `rank`) comes before: how sure
//! the next line is is part of what is known.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::path::{Path, PathBuf};

use nanochat_engine::complete::{CompleteError, Limits, Predictors};
use nanochat_engine::workspace::store::Store;
use nanochat_engine::{Cancel, Completer, Prompt};

mod holes;
mod learn;

use holes::Kind;
use learn::Net;

const N_FOLDS: usize = 4;
/// Files of one crate and lines of one file, at most.
const N_FILES: usize = 10;
const N_LINES: usize = 60;
const PREDICTORS: [(Predictors, &str); 2] = [(Predictors::Blend, "beside a model"), (Predictors::MemoryOnly, "alone")];
/// As in `engine/src/complete/ends.rs`.
const N_HIDDEN: usize = 8;
const N_STEPS: usize = 6000;
const RATE: f32 = 0.01;

/// A place where a text of several lines could end.
struct Place {
    krate: usize,
    features: Vec<f32>,
    is_end: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [store, checkpoint, out, folders @ ..] = &arguments[..] else {
        return Err("usage: ends STORE CHECKPOINT OUT FOLDER…".into());
    };
    let checkpoint = Store::at(store).open_checkpoint(checkpoint)?;
    let of_crates = learn::of_each(folders, || Completer::new(&checkpoint, 1), places)?;
    let mut of_voices = [const { Vec::new() }; 2];
    for places in of_crates {
        of_voices.iter_mut().zip(places).for_each(|(all, places)| all.extend(places));
    }
    let mut nets = Vec::new();
    for ((_, name), places) in PREDICTORS.iter().zip(&of_voices) {
        let without = |fold: usize| places.iter().filter(move |place: &&Place| place.krate % N_FOLDS != fold).collect();
        let of_folds: Vec<Net> = (0..N_FOLDS).map(|fold| fit(without(fold))).collect();
        let is_right = |place: &&Place| {
            let score = of_folds[place.krate % N_FOLDS].score(&place.features);
            (score > 0.0) == place.is_end
        };
        let (n, n_right) = (places.len(), places.iter().filter(is_right).count());
        let n_ends = places.iter().filter(|place| place.is_end).count();
        let percent = |part: usize| 100.0 * part as f64 / n.max(1) as f64;
        println!("{name}: {n} places, {:.1} % right, {:.1} % are ends", percent(n_right), percent(n_ends));
        nets.push(fit(places.iter().collect()));
    }
    std::fs::write(out, learn::bytes_of(&nets))?;
    Ok(())
}

/// Places of a crate where a text could end, by each of [`PREDICTORS`].
fn places(completer: &mut Completer, krate: usize, folder: &Path) -> Result<[Vec<Place>; 2], CompleteError> {
    let source = holes::Crate::read(folder);
    completer.set_memory(source.memory(completer.tokenizer()));
    let mut found = [const { Vec::new() }; 2];
    for (file, holes) in source.holes(N_FILES, N_LINES) {
        for (_, hole) in holes.into_iter().filter(|(kind, _)| *kind == Kind::Several) {
            let (prefix, suffix) = (&file.text[..hole.start], &file.text[hole.end..]);
            let prompt = Prompt { path: &file.name, prefix, suffix, ..Prompt::default() };
            let limits = Limits { max_lines: 12, ..Limits::default() };
            for ((voices, _), found) in PREDICTORS.iter().zip(&mut found) {
                completer.set_predictors(*voices);
                let ends = completer.stop_samples(&prompt, &file.text[hole.clone()], &limits, &Cancel::new())?;
                found.extend(ends.into_iter().map(|(features, is_end)| Place { krate, features, is_end }));
            }
        }
    }
    Ok(found)
}

/// Weights under which what is an end and what is none is most probable.
fn fit(places: Vec<&Place>) -> Net {
    let n_features = places.first().map_or(0, |place| place.features.len());
    Net::new(n_features, N_HIDDEN, 0.0).fit(places.len(), RATE, N_STEPS, |net, idx, rng, gradient| {
        let Place { features, is_end, .. } = places[idx];
        let mut hidden = Vec::new();
        let p = 1.0 / (1.0 + (-net.score_learning(features, &mut hidden, rng)).exp());
        net.add_gradient(p - if *is_end { 1.0 } else { 0.0 }, features, &hidden, gradient);
    })
}
