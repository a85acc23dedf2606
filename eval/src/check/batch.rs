//! Many fillers per compiler run.
//!
//! ```text
//! rounds of at most one filler per function → run → blame each error on the filler of the function that it lies in
//!   → run again without those … until clean: the rest compiles
//! an error in no filled function → halves, each on its own; whoever was blamed without an error in its own text
//!   is then compiled alone
//! ```
//!
//! Bodies of functions do not see each other, so what compiles in company compiles alone, with few exceptions that
//! the audit counts: hidden types that leak traits, constants evaluated elsewhere, lints on what is unused.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use nanochat_engine::Cancel;

use super::{CheckError, Checker, Verdict};
use crate::holes::Hole;

/// A text in a hole.
#[derive(Clone, Copy, Debug)]
pub struct FilledHole<'a> {
    /// The hole; its file is one that [`Checker::original`] knows, and it fits that text.
    pub hole: &'a Hole,
    /// What is put there. The file must parse with it.
    pub text: &'a str,
}

impl Checker {
    /// One verdict per filler, in their order, and how often the compiler was run. `done` hears how many fillers are
    /// judged. The verdicts are the same for any number of workers.
    pub fn judge(
        &self,
        fillers: &[FilledHole<'_>],
        done: &mut dyn FnMut(usize),
        cancel: &Cancel,
    ) -> Result<(Vec<Verdict>, usize), CheckError> {
        let rounds = self.rounds(fillers);
        let next = AtomicUsize::new(0);
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            let receiver = receiver; // an early return drops it, and the workers end with their present round
            for tree_idx in 0..self.n_workers().min(rounds.len()) {
                let (sender, next, rounds) = (sender.clone(), &next, &rounds);
                scope.spawn(move || {
                    while let Some(round) = rounds.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut work =
                            Round { checker: self, fillers, tree_idx, cancel, verdicts: Vec::new(), n_runs: 0 };
                        let settled = work.settle(round.clone()).map(|()| (work.verdicts, work.n_runs));
                        if sender.send(settled).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let mut verdicts = vec![Verdict::Fails; fillers.len()];
            let (mut n_done, mut n_runs) = (0, 0);
            for settled in receiver {
                let (of_round, n_runs_of_round) = settled?;
                n_done += of_round.len();
                n_runs += n_runs_of_round;
                for (filler_idx, verdict) in of_round {
                    verdicts[filler_idx] = verdict;
                }
                done(n_done);
            }
            Ok((verdicts, n_runs))
        })
    }

    /// Indices of fillers whose functions differ and whose files are part of the same crates.
    fn rounds(&self, fillers: &[FilledHole<'_>]) -> Vec<Vec<usize>> {
        let mut n_before: HashMap<(&str, usize), usize> = HashMap::new();
        let mut rounds: BTreeMap<(&[usize], usize), Vec<usize>> = BTreeMap::new();
        for (filler_idx, filler) in fillers.iter().enumerate() {
            let n = n_before.entry((&filler.hole.file, filler.hole.function.0)).or_default();
            let Some(units) = self.units_of.get(&filler.hole.file) else { continue };
            rounds.entry((units, *n)).or_default().push(filler_idx);
            *n += 1;
        }
        rounds.into_values().collect()
    }
}

/// The work on one round.
struct Round<'a> {
    checker: &'a Checker,
    fillers: &'a [FilledHole<'a>],
    tree_idx: usize,
    cancel: &'a Cancel,
    verdicts: Vec<(usize, Verdict)>,
    n_runs: usize,
}

impl Round<'_> {
    fn settle(&mut self, mut active: Vec<usize>) -> Result<(), CheckError> {
        let mut suspects = Vec::new();
        while !active.is_empty() {
            let spliced = Spliced::new(self.checker, self.fillers, &active);
            let outcome = self.checker.compile(&spliced.texts(), self.tree_idx, self.cancel)?;
            self.n_runs += 1;
            if outcome.verdict == Verdict::Compiles {
                self.verdicts.extend(active.into_iter().map(|filler_idx| (filler_idx, Verdict::Compiles)));
                break;
            }
            let blamed = match outcome.verdict {
                Verdict::Fails => spliced.blame(&outcome.sites),
                _ => BTreeMap::new(),
            };
            if blamed.is_empty() {
                if let [filler_idx] = active[..] {
                    self.verdicts.push((filler_idx, outcome.verdict));
                    break;
                }
                let right = active.split_off(active.len() / 2);
                self.settle(active)?;
                self.settle(right)?;
                return self.confirm(suspects);
            }
            active.retain(|filler_idx| !blamed.contains_key(filler_idx));
            for (filler_idx, in_its_text) in blamed {
                if in_its_text {
                    self.verdicts.push((filler_idx, Verdict::Fails));
                } else {
                    suspects.push(filler_idx);
                }
            }
        }
        self.verdicts.extend(suspects.into_iter().map(|filler_idx| (filler_idx, Verdict::Fails)));
        Ok(())
    }

    /// Somebody broke a function that is not theirs: each of these may have been blamed for it.
    fn confirm(&mut self, suspects: Vec<usize>) -> Result<(), CheckError> {
        for filler_idx in suspects {
            let spliced = Spliced::new(self.checker, self.fillers, &[filler_idx]);
            let outcome = self.checker.compile(&spliced.texts(), self.tree_idx, self.cancel)?;
            self.n_runs += 1;
            self.verdicts.push((filler_idx, outcome.verdict));
        }
        Ok(())
    }
}

/// A filler, its function's bytes, and its own.
type Place = (usize, Range<usize>, Range<usize>);

/// Files with several holes filled, and where the fillers and their functions came to lie.
struct Spliced<'a> {
    files: BTreeMap<&'a str, String>,
    places: HashMap<&'a str, Vec<Place>>, // by file
}

impl<'a> Spliced<'a> {
    fn new(checker: &'a Checker, fillers: &[FilledHole<'a>], active: &[usize]) -> Self {
        let mut by_file: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for &filler_idx in active {
            by_file.entry(&fillers[filler_idx].hole.file).or_default().push(filler_idx);
        }
        let mut spliced = Self { files: BTreeMap::new(), places: HashMap::new() };
        for (file, mut indices) in by_file {
            indices.sort_by_key(|&filler_idx| fillers[filler_idx].hole.start);
            let original = checker.original(file).expect("rounds hold fillers of known files only");
            let mut text = String::with_capacity(original.len());
            let mut places = Vec::with_capacity(indices.len());
            let mut at = 0;
            for filler_idx in indices {
                let FilledHole { hole, text: middle } = fillers[filler_idx];
                text.push_str(&original[at..hole.start]);
                let start = text.len();
                text.push_str(middle);
                let function = start - (hole.start - hole.function.0)..text.len() + (hole.function.1 - hole.end);
                places.push((filler_idx, function, start..text.len()));
                at = hole.end;
            }
            text.push_str(&original[at..]);
            spliced.files.insert(file, text);
            spliced.places.insert(file, places);
        }
        spliced
    }

    fn texts(&self) -> BTreeMap<&str, &str> {
        self.files.iter().map(|(file, text)| (*file, text.as_str())).collect()
    }

    /// The fillers in whose functions these errors lie, and whether one touches the filler itself.
    fn blame(&self, sites: &[(String, Range<usize>)]) -> BTreeMap<usize, bool> {
        let mut blamed = BTreeMap::new();
        for (file, site) in sites {
            for (filler_idx, function, own) in self.places.get(file.as_str()).into_iter().flatten() {
                if function.start <= site.start && site.end <= function.end {
                    *blamed.entry(*filler_idx).or_default() |= own.start <= site.end && site.start <= own.end;
                }
            }
        }
        blamed
    }
}
