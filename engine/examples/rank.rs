//! What the weights of the choice between lines were found from: `rank STORE CHECKPOINT OUT FOLDER…`
//!
//! OUT is the weights as in `engine/src/complete/rank/default.f32`.
//!
//! Each folder is a crate that the checkpoint was not trained on; lines of its files are completed with the other files in
//! the memory, by the memory alone and beside the model. For both, and for places that end with their line and such that do
//! not, finds the weights under which the lines that were weighed are most likely right or wrong as they are, and prints, of
//! crates that took no part in finding them (each quarter in turn), how many lines are exact and how many could be.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nanochat_engine::complete::{CompleteError, Limits, Voices, Weighed};
use nanochat_engine::rng::Rng;
use nanochat_engine::store::Store;
use nanochat_engine::{Cancel, Completer, Prompt};

mod holes;

use holes::Kind;

const N_FOLDS: usize = 4;
/// Files of one crate and lines of one file, at most.
const N_FILES: usize = 24;
const N_LINES: usize = 90;
const VOICES: [(Voices, &str); 2] = [(Voices::Both, "beside a model"), (Voices::MemoryOnly, "alone")];
/// As in `engine/src/complete/rank.rs`.
const N_HIDDEN: usize = 16;
/// Steps of AdamW, places of each, the first one's rate, which falls to 0, and the decay.
const N_STEPS: usize = 3000;
const N_BATCH: usize = 512;
const RATE: f32 = 0.01;
const DECAY: f32 = 0.05;

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
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    let work = || -> Result<(), CompleteError> {
        let mut completer = Completer::new(&checkpoint, 1);
        loop {
            let krate = next.fetch_add(1, Ordering::Relaxed);
            let Some(folder) = folders.get(krate) else { return Ok(()) };
            let holes = weigh(&mut completer, krate, folder)?;
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.insert(krate, holes);
            eprintln!("{} of {} crates", found.len(), folders.len());
        }
    };
    std::thread::scope(|scope| {
        let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it returns what went wrong"))
    })?;
    // In the order of the crates, whatever that of the threads was.
    let mut of_voices = [const { Vec::new() }; 2];
    for holes in found.into_inner().unwrap_or_else(PoisonError::into_inner).into_values() {
        of_voices.iter_mut().zip(holes).for_each(|(all, holes)| all.extend(holes));
    }
    let mut all = Vec::new();
    for ((_, name), found) in VOICES.iter().zip(&of_voices) {
        for kinds in [&[Kind::Line, Kind::Rest][..], &[Kind::Within], &[Kind::Several]] {
            let holes: Vec<&Hole> = found.iter().filter(|hole| kinds.contains(&hole.kind)).collect();
            report(name, kinds, &holes);
            all.extend(Net::fit(&holes).0);
        }
    }
    std::fs::write(out, all.iter().flat_map(|weight| weight.to_le_bytes()).collect::<Vec<u8>>())?;
    Ok(())
}

/// The lines that compete in places of a crate, by each of [`VOICES`].
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
            for ((voices, _), found) in VOICES.iter().zip(&mut found) {
                completer.set_voices(*voices);
                let weighed = completer.weighed(&prompt, &limits, &Cancel::new())?;
                let line = |Weighed { text, features }: Weighed| (features, text.trim_end() == truth);
                found.push(Hole { krate, kind, lines: weighed.into_iter().map(line).collect() });
            }
        }
    }
    Ok(found)
}

fn report(name: &str, kinds: &[Kind], holes: &[&Hole]) {
    let of_folds: Vec<Net> = (0..N_FOLDS)
        .map(|fold| {
            let others: Vec<&Hole> = holes.iter().copied().filter(|hole| hole.krate % N_FOLDS != fold).collect();
            Net::fit(&others)
        })
        .collect();
    for kind in kinds {
        let (mut n, mut n_exact, mut n_possible) = (0, 0, 0);
        for hole in holes.iter().filter(|hole| hole.kind == *kind) {
            let net = &of_folds[hole.krate % N_FOLDS];
            let score = |line: &(Vec<f32>, bool)| net.score(&line.0, &mut [0.0; N_HIDDEN]);
            let best = hole.lines.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
            n += 1;
            n_exact += usize::from(best.is_some_and(|(_, is_right)| *is_right));
            n_possible += usize::from(hole.lines.iter().any(|(_, is_right)| *is_right));
        }
        let percent = |part: usize| 100.0 * part as f64 / n.max(1) as f64;
        println!("{name}: {n} × {kind:?}, {:.1} % exact, {:.1} % possible", percent(n_exact), percent(n_possible));
    }
}

/// w, then each u, then v, of score = w·f + Σ v·max(u·f, 0).
struct Net(Vec<f32>);

impl Net {
    fn n_features(&self) -> usize {
        (self.0.len() - N_HIDDEN) / (N_HIDDEN + 1)
    }

    /// The score of a line; leaves what the hidden units say of it.
    fn score(&self, features: &[f32], hidden: &mut [f32; N_HIDDEN]) -> f32 {
        let (direct, rest) = self.0.split_at(features.len());
        let (units, out) = rest.split_at(N_HIDDEN * features.len());
        for (hidden, unit) in hidden.iter_mut().zip(units.chunks_exact(features.len())) {
            *hidden = dot(unit, features).max(0.0);
        }
        dot(direct, features) + dot(out, hidden)
    }

    /// Under which the right lines are most probable: lines compete with each other and with none of them being right.
    fn fit(holes: &[&Hole]) -> Self {
        let n_features = holes.iter().find_map(|hole| hole.lines.first()).map_or(0, |line| line.0.len());
        let mut rng = Rng::new(20_261_127);
        let mut net = Self(vec![0.0; n_features + N_HIDDEN * (n_features + 1)]);
        net.0[n_features..].iter_mut().for_each(|weight| *weight = 0.12 * rng.normal());
        let (mut means, mut squares) = (vec![0.0; net.0.len()], vec![0.0; net.0.len()]);
        for step in 1..=N_STEPS {
            let mut gradient = vec![0.0; net.0.len()];
            for _ in 0..N_BATCH.min(holes.len()) {
                net.gradient(&holes[rng.below(holes.len())].lines, &mut gradient);
            }
            let rate = RATE * (1.0 - (step - 1) as f32 / N_STEPS as f32);
            let [unbias_mean, unbias_square] = [0.9f32, 0.999].map(|beta| 1.0 / (1.0 - beta.powi(step as i32)));
            for (((weight, mean), square), gradient) in net.0.iter_mut().zip(&mut means).zip(&mut squares).zip(gradient)
            {
                let gradient = gradient / N_BATCH as f32;
                *mean = 0.9 * *mean + 0.1 * gradient;
                *square = 0.999 * *square + 0.001 * gradient * gradient;
                let by = *mean * unbias_mean / ((*square * unbias_square).sqrt() + 1e-8);
                *weight -= rate * (by + DECAY * *weight);
            }
        }
        net
    }

    /// Adds the gradient of −ln p of what is right among these lines.
    fn gradient(&self, lines: &[(Vec<f32>, bool)], gradient: &mut [f32]) {
        let mut hidden = vec![[0.0; N_HIDDEN]; lines.len()];
        let scores: Vec<f32> =
            lines.iter().zip(&mut hidden).map(|((features, _), hidden)| self.score(features, hidden)).collect();
        let largest = scores.iter().fold(0.0f32, |most, score| most.max(*score));
        let exps: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total = (-largest).exp() + exps.iter().sum::<f32>();
        let right: f32 = lines.iter().zip(&exps).filter(|((_, is_right), _)| *is_right).map(|(_, exp)| exp).sum();
        let n = self.n_features();
        for (((features, is_right), exp), hidden) in lines.iter().zip(exps).zip(&hidden) {
            let by = exp / total - if *is_right { exp / right } else { 0.0 };
            add(&mut gradient[..n], by, features);
            let outs = &self.0[n + N_HIDDEN * n..];
            for (unit, out) in outs.iter().enumerate().filter(|(unit, _)| hidden[*unit] > 0.0) {
                add(&mut gradient[n + unit * n..][..n], by * out, features);
                gradient[n + N_HIDDEN * n + unit] += by * hidden[unit];
            }
        }
    }
}

fn add(sum: &mut [f32], by: f32, x: &[f32]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += by * x);
}

/// In lanes, so that it vectorises.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; 8];
    let ((a_parts, a_rest), (b_parts, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a_parts.iter().zip(b_parts) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}
