//! Weights of the stop classifier: whether a text of several lines ends after one of them.
//!
//! Each folder is a crate. Places of several lines of its files are read line by line, with the other files in the
//! memory, with the model and by the memory alone. For each of the two, finds the weights under which it is most
//! probable that the text ends where it does and continues where it continues, and prints, for crates that took no part
//! (each quarter in turn), how often that is decided right, and how often the text ends. How sure the next line is
//! counts among the features, so the reranker is learned first.

use std::path::{Path, PathBuf};

use nanochat_engine::complete::{CompleteError, Limits, STOP_UNITS, StopSample, stop_weights};
use nanochat_engine::{Cancel, Checkpoint, Completer, Prompt};

use super::PREDICTORS;
use super::holes::{self, HoleKind};
use super::network::{self, Network};

const N_FOLDS: usize = 4;
/// Most files of one crate, and lines of one file.
const N_FILES: usize = 10;
const N_LINES: usize = 60;
const N_STEPS: usize = 6000;
const RATE: f32 = 0.01;

/// A place where a text of several lines could end.
struct Place {
    krate: usize,
    features: Vec<f32>,
    is_end: bool,
}

/// The bytes of the weights; prints what they are worth on crates that took no part.
pub(crate) fn learn(checkpoint: &Checkpoint, folders: &[PathBuf]) -> Result<Vec<u8>, CompleteError> {
    let of_crates = network::of_each(folders, || Completer::new(checkpoint, 1), places)?;
    let mut of_predictors = [const { Vec::new() }; 2];
    for places in of_crates {
        of_predictors.iter_mut().zip(places).for_each(|(all, places)| all.extend(places));
    }
    let mut weights = Vec::new();
    for ((_, name), places) in PREDICTORS.iter().zip(&of_predictors) {
        let without = |fold: usize| places.iter().filter(move |place: &&Place| place.krate % N_FOLDS != fold).collect();
        let of_folds: Vec<Network> = (0..N_FOLDS).map(|fold| fit(without(fold))).collect();
        let is_right = |place: &&Place| {
            let score = of_folds[place.krate % N_FOLDS].score(&place.features);
            (score > 0.0) == place.is_end
        };
        let (n, n_right) = (places.len(), places.iter().filter(is_right).count());
        let n_ends = places.iter().filter(|place| place.is_end).count();
        let percent = |part: usize| 100.0 * part as f64 / n.max(1) as f64;
        println!("{name}: {n} places, {:.1} % right, {:.1} % are ends", percent(n_right), percent(n_ends));
        weights.push(fit(places.iter().collect()).weights);
    }
    Ok(stop_weights(&weights[0], &weights[1]))
}

/// Places of a crate where a text could end, by each of [`PREDICTORS`].
fn places(completer: &mut Completer, krate: usize, folder: &Path) -> Result<[Vec<Place>; 2], CompleteError> {
    let source = holes::Crate::read(folder);
    completer.set_memory(source.memory(completer.tokenizer()));
    let mut found = [const { Vec::new() }; 2];
    for (file, holes) in source.holes(N_FILES, N_LINES) {
        for (_, hole) in holes.into_iter().filter(|(kind, _)| *kind == HoleKind::Several) {
            let (prefix, suffix) = (&file.text[..hole.start], &file.text[hole.end..]);
            let prompt = Prompt { path: &file.name, prefix, suffix, ..Prompt::default() };
            let limits = Limits { max_lines: 12, ..Limits::default() };
            for ((predictors, _), found) in PREDICTORS.iter().zip(&mut found) {
                completer.set_predictors(*predictors);
                let ends = completer.stop_samples(&prompt, &file.text[hole.clone()], &limits, &Cancel::new())?;
                found.extend(ends.into_iter().map(|StopSample { features, is_end }| Place { krate, features, is_end }));
            }
        }
    }
    Ok(found)
}

/// The weights under which the ends and the other places are most probable as they are.
fn fit(places: Vec<&Place>) -> Network {
    let n_features = places.first().map_or(0, |place| place.features.len());
    Network::new(n_features, STOP_UNITS, 0.0).fit(places.len(), RATE, N_STEPS, |net, idx, rng, gradient| {
        let Place { features, is_end, .. } = places[idx];
        let mut hidden = Vec::new();
        let p = 1.0 / (1.0 + (-net.score_learning(features, &mut hidden, rng)).exp());
        net.add_gradient(p - if *is_end { 1.0 } else { 0.0 }, features, &hidden, gradient);
    })
}
