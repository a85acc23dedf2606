//! Exact matches without a compiler: `exact STORE HOLES CHECKPOINT[,CHECKPOINT…] FOLDER…`
//!
//! Each folder is a crate or a workspace. HOLES holes are cut from it, as `cargo nanochat eval` cuts them, from the
//! files that no checkpoint was trained on; systems know the other files, and if a checkpoint was trained on part of
//! the folder, only that part. Each checkpoint fills the holes as a blend, without its memory and without its model, and
//! a control copies the text after the longest match. Nothing is compiled: holes are not filtered, and whether a
//! completion compiles stays unknown, so it takes a hundredth of the time.
//!
//! CHECKPOINT may be a folder of checkpoints, one adapted to each crate, `NAME.ncz` by the name of the crate's folder.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nanochat_engine::complete::Predictors;
use nanochat_engine::workspace::sources::{Role, SourceFile};
use nanochat_engine::workspace::store::Store;
use nanochat_engine::{Cancel, Checkpoint, Completer, Sources};
use nanochat_eval::holes::{self, Hole, HoleKind, first_unit};
use nanochat_eval::similarity::{edit_similarity, saved_chars};
use nanochat_eval::stats::{self, Value};
use nanochat_eval::system::{Copy, FileText, Model, ProjectContext, System, Task};
use nanochat_eval::{EvalError, Known, known_files};

const SEED: u64 = 0;

/// The scores of one system on one hole.
#[derive(Clone, Copy, Default)]
struct Outcome {
    is_exact: bool,
    /// Edit similarity to the truth.
    similarity: f64,
    /// Characters of the truth that nobody has to type, and all of them.
    n_saved: usize,
    n_chars: usize,
    /// The system's confidence in its completion.
    confidence: Option<f64>,
    /// Bits that the truth costs, and its bytes.
    bits: f64,
    bytes: usize,
}

#[derive(Default)]
struct Outcomes {
    /// Cluster (the folder, or the file if there is one folder) and kind of each hole.
    holes: Vec<(String, HoleKind)>,
    /// Scores by system, in the order of `holes`.
    of: BTreeMap<String, Vec<Outcome>>,
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, n_holes, checkpoints, folders @ ..] = &arguments[..] else {
        return Err("usage: exact STORE HOLES CHECKPOINT[,CHECKPOINT…] FOLDER…".into());
    };
    let (store, n_holes) = (Store::at(PathBuf::from(store)), n_holes.parse()?);
    let paths: Vec<&Path> = checkpoints.split(',').map(Path::new).collect();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    let work = || -> Result<(), Box<dyn Error + Send + Sync>> {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(folder) = folders.get(i) else { return Ok(()) };
            let checkpoints: Vec<Checkpoint> =
                paths.iter().map(|path| store.open_checkpoint(&of_crate(path, folder))).collect::<Result<_, _>>()?;
            let outcomes = of_folder(&checkpoints, Path::new(folder), n_holes, folders.len() > 1)?;
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.insert(i, outcomes);
            eprintln!("{} of {} folders", found.len(), folders.len());
        }
    };
    std::thread::scope(|scope| {
        let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it returns what went wrong"))
    })?;
    let mut all = Outcomes::default();
    // In the order of the folders, not in that in which threads finished.
    for outcomes in found.into_inner().unwrap_or_else(PoisonError::into_inner).into_values() {
        all.holes.extend(outcomes.holes);
        for (system, of) in outcomes.of {
            all.of.entry(system).or_default().extend(of);
        }
    }
    all.report();
    Ok(())
}

/// The checkpoint, or the crate's own in a folder of checkpoints.
fn of_crate(path: &Path, folder: &str) -> PathBuf {
    if path.is_dir() { path.join(format!("{}.ncz", name(Path::new(folder)))) } else { path.to_owned() }
}

fn name(folder: &Path) -> String {
    folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The scores of all systems on the holes of one folder.
fn of_folder(
    checkpoints: &[Checkpoint],
    folder: &Path,
    n_holes: usize,
    has_others: bool,
) -> Result<Outcomes, EvalError> {
    let (files, _) = Sources::folder(folder).collect(&[Role::Member]);
    let is_new = |file: &SourceFile| {
        checkpoints
            .iter()
            .all(|checkpoint| checkpoint.manifest.training.fingerprint.knows_file(&file.text) != Some(true))
    };
    let new: Vec<PathBuf> = files.iter().filter(|file| is_new(file)).map(|file| file.path.clone()).collect();
    let texts = files.iter().filter(|file| is_new(file)).map(|file| (file.name.clone(), file.text.clone())).collect();
    let known = if new.len() < files.len() { known_files(files, &new).0 } else { files };
    let context = ProjectContext { texts: &texts, known: &Known::of(known) };
    let name = name(folder);
    let holes = cut(&name, &texts, n_holes);
    let cluster = |hole: &Hole| if has_others { name.clone() } else { hole.file.clone() };
    let mut all =
        Outcomes { holes: holes.iter().map(|hole| (cluster(hole), hole.kind)).collect(), ..Outcomes::default() };
    let mut completers: Vec<Completer> = checkpoints.iter().map(|checkpoint| Completer::new(checkpoint, 1)).collect();
    all.ask(&mut Copy::new(Arc::clone(completers[0].tokenizer())), &context, &holes)?;
    for (i, completer) in completers.iter_mut().enumerate() {
        let blend = Model::named(&format!("{} blend", i + 1), completer);
        let [mut model, mut memory] =
            [Predictors::ModelOnly, Predictors::MemoryOnly].map(|predictors| blend.ablation(predictors));
        let mut blend = blend;
        for system in [&mut blend, &mut model, &mut memory] {
            all.ask(system, &context, &holes)?;
        }
    }
    Ok(all)
}

/// The first holes of the order in which `eval` tries them.
fn cut(project: &str, texts: &BTreeMap<String, String>, n_holes: usize) -> Vec<Hole> {
    let cut = texts.iter().filter_map(|(file, text)| holes::cut(project, file, text, SEED));
    let mut holes = holes::order(cut.flatten().collect(), SEED);
    holes.truncate(n_holes);
    holes
}

impl Outcomes {
    fn ask(&mut self, system: &mut dyn System, context: &ProjectContext<'_>, holes: &[Hole]) -> Result<(), EvalError> {
        let cancel = Cancel::new();
        system.enter(context, &cancel)?;
        let outcomes = self.of.entry(system.name().to_owned()).or_default();
        let first = outcomes.len();
        for hole in holes {
            let text = &context.texts[&hole.file];
            let completion = system.complete(&Task::of(hole, text), &cancel)?;
            let confidence = completion.confidence;
            let (completed, truth) =
                (completion.text.as_deref().map_or("", |text| first_unit(hole.kind, text)), hole.truth(text));
            outcomes.push(Outcome {
                is_exact: completed.trim_end() == truth.trim_end(),
                similarity: edit_similarity(completed.trim_end(), truth.trim_end()),
                n_saved: saved_chars(completed, truth),
                n_chars: saved_chars(truth, truth),
                confidence,
                ..Outcome::default()
            });
        }
        let mut by_file: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        holes.iter().enumerate().for_each(|(i, hole)| by_file.entry(&hole.file).or_default().push(i));
        for (file, of_file) in by_file {
            let ranges: Vec<Range<usize>> = of_file.iter().map(|i| holes[*i].start..holes[*i].end).collect();
            let text = FileText { file, text: &context.texts[file], holes: &ranges };
            for (i, score) in of_file.into_iter().zip(system.costs(&text, &cancel)?.unwrap_or_default()) {
                (outcomes[first + i].bits, outcomes[first + i].bytes) = (score.bits, score.bytes);
            }
        }
        Ok(())
    }

    fn report(&self) {
        let lines = [HoleKind::NextLine, HoleKind::RestOfLine];
        let kinds = std::iter::once(("all kinds", &HoleKind::ALL[..]))
            .chain(std::iter::once(("next and rest", &lines[..])))
            .chain(HoleKind::ALL.iter().map(|kind| (kind.name(), std::slice::from_ref(kind))));
        for (name, kinds) in kinds {
            let chosen: Vec<usize> = (0..self.holes.len()).filter(|i| kinds.contains(&self.holes[*i].1)).collect();
            println!("\n{name}: {} holes", chosen.len());
            for (system, outcomes) in &self.of {
                let exact: Vec<(&str, f64)> =
                    chosen.iter().map(|i| (&*self.holes[*i].0, f64::from(u8::from(outcomes[*i].is_exact)))).collect();
                let bits = stats::ratio(&self.bits(&chosen, outcomes, None), SEED);
                let similar: Vec<(&str, f64)> =
                    chosen.iter().map(|i| (&*self.holes[*i].0, outcomes[*i].similarity)).collect();
                let saved: Vec<(&str, f64, f64)> = chosen
                    .iter()
                    .map(|i| (&*self.holes[*i].0, outcomes[*i].n_saved as f64, outcomes[*i].n_chars as f64))
                    .collect();
                println!(
                    "  {system:20} exact {}   bits/byte {}   similar {}   characters saved {}",
                    percent(stats::mean(&exact, SEED)),
                    plain(bits),
                    percent(stats::mean(&similar, SEED)),
                    percent(stats::ratio(&saved, SEED)),
                );
            }
            for (a, b) in self.pairs() {
                let (of_a, of_b) = (&self.of[&a], &self.of[&b]);
                let share = |outcome: &Outcome| f64::from(u8::from(outcome.is_exact));
                let exact: Vec<(&str, f64)> =
                    chosen.iter().map(|i| (&*self.holes[*i].0, share(&of_a[*i]) - share(&of_b[*i]))).collect();
                let bits = stats::ratio(&self.bits(&chosen, of_a, Some(of_b)), SEED);
                println!(
                    "  {:20} exact {}   bits/byte {}",
                    format!("{a} − {b}"),
                    percent(stats::difference(&exact, SEED)),
                    plain(bits)
                );
            }
        }
        self.reliability();
    }

    /// Stated confidence and share of exact matches, in tenths of the completions of one line, the most confident last.
    fn reliability(&self) {
        const N_BINS: usize = 10;
        println!("\nof one line: stated probability / exact, in %, of each tenth of the completions");
        for (system, outcomes) in &self.of {
            let is_line =
                |i: &usize| !matches!(self.holes[*i].1, HoleKind::Statement | HoleKind::Block | HoleKind::FunctionBody);
            let stated = |i: usize| outcomes[i].confidence.map(|confidence| (confidence, outcomes[i].is_exact));
            let mut answers: Vec<(f64, bool)> = (0..outcomes.len()).filter(is_line).filter_map(stated).collect();
            if answers.is_empty() {
                continue;
            }
            answers.sort_by(|a, b| a.0.total_cmp(&b.0));
            let bins = (0..N_BINS).map(|i| &answers[answers.len() * i / N_BINS..answers.len() * (i + 1) / N_BINS]);
            let of = |bin: &[(f64, bool)]| {
                let n = bin.len().max(1) as f64;
                (
                    bin.iter().map(|answer| answer.0).sum::<f64>() / n,
                    bin.iter().filter(|answer| answer.1).count() as f64 / n,
                )
            };
            let text: Vec<String> =
                bins.map(of).map(|(stated, exact)| format!("{:.0}/{:.0}", 100.0 * stated, 100.0 * exact)).collect();
            let brier = answers.iter().map(|(p, is_exact)| (p - f64::from(u8::from(*is_exact))).powi(2)).sum::<f64>();
            println!("  {system:20} {}   Brier {:.3}", text.join(" "), brier / answers.len() as f64);
        }
    }

    /// Cluster, bits (less those of another system) and bytes.
    fn bits<'a>(
        &'a self,
        chosen: &[usize],
        outcomes: &[Outcome],
        less: Option<&[Outcome]>,
    ) -> Vec<(&'a str, f64, f64)> {
        let bits = |i: usize| outcomes[i].bits - less.map_or(0.0, |less| less[i].bits);
        chosen.iter().map(|&i| (&*self.holes[i].0, bits(i), outcomes[i].bytes as f64)).collect()
    }

    /// For each checkpoint blend minus memory and memory minus copy; for later checkpoints also minus the first.
    fn pairs(&self) -> Vec<(String, String)> {
        let numbers: Vec<&str> = self.of.keys().filter_map(|name| name.strip_suffix(" blend")).collect();
        let mut pairs = Vec::new();
        for (i, n) in numbers.iter().enumerate() {
            let memory = format!("{n} blend-without-model");
            pairs.push((format!("{n} blend"), memory.clone()));
            pairs.push((memory, "copy-longest-match".to_owned()));
            if i > 0 {
                for predictors in ["blend", "blend-without-memory"] {
                    pairs.push((format!("{n} {predictors}"), format!("{} {predictors}", numbers[0])));
                }
            }
        }
        pairs
    }
}

fn percent(value: Value) -> String {
    let Value { value, low, high } = value;
    format!("{:5.1} [{:.1}, {:.1}]", 100.0 * value, 100.0 * low, 100.0 * high)
}

fn plain(value: Value) -> String {
    format!("{:6.3} [{:.3}, {:.3}]", value.value, value.low, value.high)
}
