//! What answers are right to the letter, asked of no compiler: `exact STORE HOLES CHECKPOINT[,CHECKPOINT…] FOLDER…`
//!
//! Each folder is a crate or a workspace. So many holes of each kind are cut, as `cargo nanochat eval` cuts them, from the
//! files that no checkpoint was trained on; known are the other files, and of these only such that are not cut from where
//! a checkpoint knows the folder. Each checkpoint fills them, with its memory and without, and a copy of what follows the
//! longest match. Holes that do not compile as they are are not told from others, and whether an answer compiles is not
//! known; so it takes a hundredth of the time.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use nanochat_engine::complete::Voices;
use nanochat_engine::sources::{Role, SourceFile};
use nanochat_engine::store::Store;
use nanochat_engine::{Cancel, Checkpoint, Completer, Sources};
use nanochat_eval::contestant::{Contestant, Copy, FileText, Model, Scene, Task};
use nanochat_eval::holes::{self, HoleKind};
use nanochat_eval::record::Hole;
use nanochat_eval::stats::{self, Value};
use nanochat_eval::{Known, counted, known_files};

const SEED: u64 = 0;

/// What one system made of one hole.
#[derive(Clone, Copy)]
struct Outcome {
    is_exact: bool,
    /// Of the truth.
    bits: f64,
    bytes: usize,
}

#[derive(Default)]
struct Outcomes {
    /// The folder, or the file where there is one folder; and the kind.
    holes: Vec<(String, HoleKind)>,
    /// By system, as many as there are holes.
    of: BTreeMap<String, Vec<Outcome>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, n_holes, checkpoints, folders @ ..] = &arguments[..] else {
        return Err("usage: exact STORE HOLES CHECKPOINT[,CHECKPOINT…] FOLDER…".into());
    };
    let (store, n_holes) = (Store::at(PathBuf::from(store)), n_holes.parse()?);
    let checkpoints: Vec<Checkpoint> =
        checkpoints.split(',').map(|path| store.open_checkpoint(&PathBuf::from(path))).collect::<Result<_, _>>()?;
    let mut completers: Vec<Completer> = checkpoints.iter().map(|checkpoint| Completer::new(checkpoint, 1)).collect();
    let mut all = Outcomes::default();
    for (n, folder) in folders.iter().enumerate() {
        let folder = PathBuf::from(folder);
        let (files, _) = Sources::folder(&folder).collect(&[Role::Member]);
        let is_new = |file: &SourceFile| {
            checkpoints
                .iter()
                .all(|checkpoint| checkpoint.manifest.training.fingerprint.knows_file(&file.text) != Some(true))
        };
        let new: Vec<PathBuf> = files.iter().filter(|file| is_new(file)).map(|file| file.path.clone()).collect();
        let texts =
            files.iter().filter(|file| is_new(file)).map(|file| (file.name.clone(), file.text.clone())).collect();
        let known = if new.len() < files.len() { known_files(files, &new).0 } else { files };
        let scene = Scene { texts: &texts, known: &Known::of(known) };
        let name = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let holes = cut(&name, &texts, n_holes);
        let cluster = |hole: &Hole| if folders.len() > 1 { name.clone() } else { hole.file.clone() };
        all.holes.extend(holes.iter().map(|hole| (cluster(hole), hole.kind)));
        let mut copy = Copy::new(Arc::clone(completers[0].tokenizer()));
        all.ask(&mut copy, &scene, &holes)?;
        for (i, completer) in completers.iter_mut().enumerate() {
            let both = Model::named(&format!("{} both", i + 1), completer);
            let [mut model, mut memory] = [Voices::ModelOnly, Voices::MemoryOnly].map(|voices| both.ablation(voices));
            let mut both = both;
            for contestant in [&mut both, &mut model, &mut memory] {
                all.ask(contestant, &scene, &holes)?;
            }
        }
        eprintln!("{} of {} folders, {} holes", n + 1, folders.len(), all.holes.len());
    }
    all.report();
    Ok(())
}

/// The first holes of the order in which `eval` tries them.
fn cut(project: &str, texts: &BTreeMap<String, String>, n_holes: usize) -> Vec<Hole> {
    let cut = texts.iter().filter_map(|(file, text)| holes::cut(project, file, text, SEED));
    let mut holes = holes::order(cut.flatten().collect(), SEED);
    holes.truncate(n_holes);
    holes
}

impl Outcomes {
    fn ask(
        &mut self,
        contestant: &mut dyn Contestant,
        scene: &Scene<'_>,
        holes: &[Hole],
    ) -> Result<(), Box<dyn Error>> {
        let cancel = Cancel::new();
        contestant.enter(scene, &cancel)?;
        let outcomes = self.of.entry(contestant.name().to_owned()).or_default();
        let first = outcomes.len();
        for hole in holes {
            let text = &scene.texts[&hole.file];
            let answer = contestant.fill(&Task::of(hole, text), &cancel)?;
            let answer = answer.text.as_deref().map_or("", |answer| counted(hole.kind, answer));
            let is_exact = answer.trim_end() == hole.truth(text).trim_end();
            outcomes.push(Outcome { is_exact, bits: 0.0, bytes: 0 });
        }
        let mut by_file: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        holes.iter().enumerate().for_each(|(i, hole)| by_file.entry(&hole.file).or_default().push(i));
        for (file, of_file) in by_file {
            let ranges: Vec<Range<usize>> = of_file.iter().map(|i| holes[*i].start..holes[*i].end).collect();
            let text = FileText { file, text: &scene.texts[file], holes: &ranges };
            for (i, score) in of_file.into_iter().zip(contestant.costs(&text, &cancel)?.unwrap_or_default()) {
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
                println!("  {system:20} exact {}   bits/byte {}", percent(stats::mean(&exact, SEED)), plain(bits));
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

    /// Of each checkpoint both against the memory and the memory against the copy; and the later against the first.
    fn pairs(&self) -> Vec<(String, String)> {
        let numbers: Vec<&str> = self.of.keys().filter_map(|name| name.strip_suffix(" both")).collect();
        let mut pairs = Vec::new();
        for (i, n) in numbers.iter().enumerate() {
            let memory = format!("{n} both-without-model");
            pairs.push((format!("{n} both"), memory.clone()));
            pairs.push((memory, "copy-longest-match".to_owned()));
            if i > 0 {
                for voices in ["both", "both-without-memory"] {
                    pairs.push((format!("{n} {voices}"), format!("{} {voices}", numbers[0])));
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
