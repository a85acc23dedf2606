//! Judges many completions in one compiler run.
//!
//! ```text
//! rounds of at most one completion per function → run → blame each error on the completion in the same function
//!   → run again without those … until clean: the rest compiles
//! an error in no filled function → split in halves; a completion that was blamed without an error in its own text
//!   is then compiled alone
//! ```
//!
//! Bodies of functions do not see each other, so what compiles together compiles alone, with few exceptions that
//! the audit counts: hidden types that leak traits, constants evaluated elsewhere, lints on unused items.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use nanochat_engine::Cancel;

use super::{CheckError, Checker, Verdict};
use crate::holes::Hole;

/// A hole with the text that fills it.
#[derive(Clone, Copy, Debug)]
pub struct FilledHole<'a> {
    /// The hole; [`Checker::original`] knows its file, and it was cut from that text.
    pub hole: &'a Hole,
    /// The text to put in the hole. The file must parse with it.
    pub text: &'a str,
}

impl Checker {
    /// One verdict per filled hole, in their order, and the number of compiler runs. `done` is called with the number
    /// of holes that are judged. The verdicts are the same for any number of workers.
    pub fn judge(
        &self,
        filled: &[FilledHole<'_>],
        done: &mut dyn FnMut(usize),
        cancel: &Cancel,
    ) -> Result<(Vec<Verdict>, usize), CheckError> {
        let rounds = self.rounds(filled);
        let next = AtomicUsize::new(0);
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            let receiver = receiver; // an early return drops it, and the workers stop after their current round
            for tree_idx in 0..self.n_workers().min(rounds.len()) {
                let (sender, next, rounds) = (sender.clone(), &next, &rounds);
                scope.spawn(move || {
                    while let Some(round) = rounds.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut work =
                            Round { checker: self, filled, tree_idx, cancel, verdicts: Vec::new(), n_runs: 0 };
                        let settled = work.settle(round.clone()).map(|()| (work.verdicts, work.n_runs));
                        if sender.send(settled).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let mut verdicts = vec![Verdict::Fails; filled.len()];
            let (mut n_done, mut n_runs) = (0, 0);
            for settled in receiver {
                let (of_round, n_runs_of_round) = settled?;
                n_done += of_round.len();
                n_runs += n_runs_of_round;
                for (filled_idx, verdict) in of_round {
                    verdicts[filled_idx] = verdict;
                }
                done(n_done);
            }
            Ok((verdicts, n_runs))
        })
    }

    /// Indices of filled holes in different functions, whose files are part of the same crates.
    fn rounds(&self, filled: &[FilledHole<'_>]) -> Vec<Vec<usize>> {
        let mut n_before: HashMap<(&str, usize), usize> = HashMap::new();
        let mut rounds: BTreeMap<(&[usize], usize), Vec<usize>> = BTreeMap::new();
        for (filled_idx, one) in filled.iter().enumerate() {
            let n = n_before.entry((&one.hole.file, one.hole.function.0)).or_default();
            let Some(units) = self.units_of.get(&one.hole.file) else { continue };
            rounds.entry((units, *n)).or_default().push(filled_idx);
            *n += 1;
        }
        rounds.into_values().collect()
    }
}

/// The state of one round.
struct Round<'a> {
    checker: &'a Checker,
    filled: &'a [FilledHole<'a>],
    tree_idx: usize,
    cancel: &'a Cancel,
    verdicts: Vec<(usize, Verdict)>,
    n_runs: usize,
}

impl Round<'_> {
    fn settle(&mut self, mut active: Vec<usize>) -> Result<(), CheckError> {
        let mut suspects = Vec::new();
        while !active.is_empty() {
            let spliced = Spliced::new(self.checker, self.filled, &active);
            let outcome = self.checker.compile(&spliced.texts(), self.tree_idx, self.cancel)?;
            self.n_runs += 1;
            if outcome.verdict == Verdict::Compiles {
                self.verdicts.extend(active.into_iter().map(|filled_idx| (filled_idx, Verdict::Compiles)));
                break;
            }
            let blamed = match outcome.verdict {
                Verdict::Fails => spliced.blame(&outcome.sites),
                _ => BTreeMap::new(),
            };
            if blamed.is_empty() {
                if let [filled_idx] = active[..] {
                    self.verdicts.push((filled_idx, outcome.verdict));
                    break;
                }
                let right = active.split_off(active.len() / 2);
                self.settle(active)?;
                self.settle(right)?;
                return self.confirm(suspects);
            }
            active.retain(|filled_idx| !blamed.contains_key(filled_idx));
            for (filled_idx, in_its_text) in blamed {
                if in_its_text {
                    self.verdicts.push((filled_idx, Verdict::Fails));
                } else {
                    suspects.push(filled_idx);
                }
            }
        }
        self.verdicts.extend(suspects.into_iter().map(|filled_idx| (filled_idx, Verdict::Fails)));
        Ok(())
    }

    /// A completion broke another function, so each of these may have been blamed without cause: compiles each alone.
    fn confirm(&mut self, suspects: Vec<usize>) -> Result<(), CheckError> {
        for filled_idx in suspects {
            let spliced = Spliced::new(self.checker, self.filled, &[filled_idx]);
            let outcome = self.checker.compile(&spliced.texts(), self.tree_idx, self.cancel)?;
            self.n_runs += 1;
            self.verdicts.push((filled_idx, outcome.verdict));
        }
        Ok(())
    }
}

/// Index of a filled hole, byte range of its function, and of its own text.
type FilledRange = (usize, Range<usize>, Range<usize>);

/// Files with several holes filled, and the ranges of the completions and their functions in the new texts.
struct Spliced<'a> {
    files: BTreeMap<&'a str, String>,
    ranges: HashMap<&'a str, Vec<FilledRange>>, // by file
}

impl<'a> Spliced<'a> {
    fn new(checker: &'a Checker, filled: &[FilledHole<'a>], active: &[usize]) -> Self {
        let mut by_file: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for &filled_idx in active {
            by_file.entry(&filled[filled_idx].hole.file).or_default().push(filled_idx);
        }
        let mut spliced = Self { files: BTreeMap::new(), ranges: HashMap::new() };
        for (file, mut indices) in by_file {
            indices.sort_by_key(|&filled_idx| filled[filled_idx].hole.start);
            let original = checker.original(file).expect("rounds have holes of known files only");
            let mut text = String::with_capacity(original.len());
            let mut ranges = Vec::with_capacity(indices.len());
            let mut at = 0;
            for filled_idx in indices {
                let FilledHole { hole, text: middle } = filled[filled_idx];
                text.push_str(&original[at..hole.start]);
                let start = text.len();
                text.push_str(middle);
                let function = start - (hole.start - hole.function.0)..text.len() + (hole.function.1 - hole.end);
                ranges.push((filled_idx, function, start..text.len()));
                at = hole.end;
            }
            text.push_str(&original[at..]);
            spliced.files.insert(file, text);
            spliced.ranges.insert(file, ranges);
        }
        spliced
    }

    fn texts(&self) -> BTreeMap<&str, &str> {
        self.files.iter().map(|(file, text)| (*file, text.as_str())).collect()
    }

    /// The filled holes whose functions contain these errors, and whether an error touches the completion itself.
    fn blame(&self, sites: &[(String, Range<usize>)]) -> BTreeMap<usize, bool> {
        let mut blamed = BTreeMap::new();
        for (file, site) in sites {
            for (filled_idx, function, own) in self.ranges.get(file.as_str()).into_iter().flatten() {
                if function.start <= site.start && site.end <= function.end {
                    *blamed.entry(*filled_idx).or_default() |= own.start <= site.end && site.start <= own.end;
                }
            }
        }
        blamed
    }
}
