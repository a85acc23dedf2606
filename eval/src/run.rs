//! One evaluation, from held-out files to a report.
//!
//! ```text
//! cut → order → gates until enough holes pass → every contestant fills every hole → verdicts → controls → Report
//! ```

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, PathBuf};
use std::time::{Duration, Instant};

use nanochat_engine::Cancel;
use nanochat_engine::sources::Role;

use crate::check::{Candidate, CheckOptions, Checker, Verdict};
use crate::contestant::{Contestant, Copy, Empty, Task, Truth};
use crate::degenerate::{Degenerate, fault};
use crate::holes::{self, Hole, HoleKind};
use crate::known::{known_files, slashed};
use crate::metrics::{self, Value};
use crate::report::{Difference, Dropped, Report, SkippedFiles, System};
use crate::{EvalError, Event, Options, source, unit};

/// Compilers at once. Each may use several threads' worth of memory, and the user is working beside them.
const MAX_WORKERS: usize = 2;
/// Holes that go through the gates at a time.
const CHUNK: usize = 32;
/// No program defines it.
const CANARY: &str = "nanochat_canary_that_nobody_defined";

/// As [`crate::evaluate`], with contestants of the caller's beside truth, empty and copy-longest-match.
pub fn evaluate_with(
    options: &Options,
    contestants: &mut [&mut dyn Contestant],
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
) -> Result<Report, EvalError> {
    let files = names(options)?;
    let n_cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let check_options = CheckOptions {
        timeout: Duration::try_from_secs_f64(options.timeout_s)
            .map_err(|_| EvalError::Timeout { seconds: options.timeout_s })?,
        offline: options.offline,
        n_workers: n_cores.min(MAX_WORKERS),
        through_cargo: false,
    };
    let checker = Checker::new(&options.sources, &files, check_options, cancel)?;
    let mut judge = Judge { checker: &checker, known: HashMap::new(), n_done: 0, n_total: 0, events, cancel };

    let mut skipped_files = SkippedFiles::default();
    let mut cut = Vec::new();
    for file in &files {
        match checker.original(file).map(|text| holes::cut(file, text, options.seed)) {
            None => skipped_files.not_compiled += 1,
            Some(None) => skipped_files.not_parsed += 1,
            Some(Some(holes)) => cut.extend(holes),
        }
    }
    (judge.events)(Event::Cut { n_holes: cut.len() });
    let n_cut = cut.len();
    let ordered = holes::order(cut, options.seed);
    let (holes, dropped, tried) = judge.gates(&ordered, options.max_holes)?;
    if holes.is_empty() {
        return Err(EvalError::NoHoles);
    }

    let texts = files.iter().filter_map(|file| Some((file.clone(), checker.original(file)?.to_owned())));
    let mut truth = Truth::new(texts.collect());
    // What the memory may hold, the baseline may copy from.
    let held_out: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
    let (_, known) = known_files(options.sources.collect(&[Role::Member]).0, &held_out);
    let mut copy = Copy::new(known);
    let mut empty = Empty;
    let mut all: Vec<&mut dyn Contestant> = vec![&mut truth, &mut empty, &mut copy];
    let n_controls = all.len();
    for contestant in contestants {
        all.push(&mut **contestant);
    }
    let mut systems = Vec::new();
    for contestant in all {
        let answers = fill(contestant, &holes, &checker, cancel)?;
        systems.push((contestant.name().to_owned(), judge.score(&holes, answers)?));
    }
    judge.confirm(&systems)?;

    let mut used: Vec<&str> = holes.iter().map(|hole| hole.file.as_str()).collect();
    used.sort_unstable();
    used.dedup();
    let copy_scores = &systems[n_controls - 1];
    Ok(Report {
        format: 1,
        holes: holes.len(),
        files: used.len(),
        cut: n_cut,
        tried,
        dropped,
        skipped_files,
        systems: systems.iter().flat_map(|(name, scores)| rows(name, &holes, scores, options.seed)).collect(),
        differences: systems[n_controls..]
            .iter()
            .map(|system| difference(system, copy_scores, &holes, options.seed))
            .collect(),
        seed: options.seed,
        rustc: checker.rustc().to_owned(),
        sandbox: checker.sandbox().level().to_owned(),
    })
}

/// An answer and what it took.
struct Answer {
    text: Option<String>,
    latency_ms: f64,
}

/// What became of an answer.
struct Score {
    compiles: bool,
    exact: bool,
    similarity: f64,
    answered: bool,
    /// `None` without an answer.
    parses: Option<bool>,
    latency_ms: f64,
    degenerate: bool,
    timed_out: bool,
}

/// Asks the compiler, once for each text.
struct Judge<'a> {
    checker: &'a Checker,
    /// By file, hole and text; the file as it is has the hole `0..0`.
    known: HashMap<(String, usize, usize, String), Verdict>,
    n_done: usize,
    n_total: usize,
    events: &'a mut dyn FnMut(Event),
    cancel: &'a Cancel,
}

impl Judge<'_> {
    fn original(&self, file: &str) -> &str {
        self.checker.original(file).expect("holes are cut from files that the checker holds")
    }

    /// Verdicts on these fillers; equal ones are compiled once in a run.
    fn verdicts(&mut self, fillers: &[(&Hole, &str)]) -> Result<Vec<Verdict>, EvalError> {
        let keys: Vec<_> = fillers
            .iter()
            .map(|(hole, middle)| match hole.truth(self.original(&hole.file)) == *middle {
                true => (hole.file.clone(), 0, 0, String::new()),
                false => (hole.file.clone(), hole.start, hole.end, (*middle).to_owned()),
            })
            .collect();
        let mut unknown: BTreeMap<_, Candidate> = BTreeMap::new();
        for ((hole, middle), key) in fillers.iter().zip(&keys) {
            if !self.known.contains_key(key) {
                let text = hole.splice(self.original(&hole.file), middle);
                unknown.insert(key.clone(), Candidate { file: hole.file.clone(), text });
            }
        }
        let (new_keys, candidates): (Vec<_>, Vec<_>) = unknown.into_iter().unzip();
        let verdicts = self.compile(&candidates)?;
        self.known.extend(new_keys.into_iter().zip(verdicts));
        Ok(keys.iter().map(|key| self.known[key]).collect())
    }

    fn compile(&mut self, candidates: &[Candidate]) -> Result<Vec<Verdict>, EvalError> {
        self.n_total += candidates.len();
        let (before, total, events) = (self.n_done, self.n_total, &mut *self.events);
        let mut done = |n| events(Event::Checked { done: before + n, total });
        let verdicts = self.checker.check(candidates, &mut done, self.cancel)?;
        self.n_done = self.n_total;
        Ok(verdicts)
    }

    /// The first `max_holes` in which the truth compiles and neither garbage nor nothing does; how many each gate
    /// dropped; how many were tried.
    fn gates(&mut self, ordered: &[Hole], max_holes: usize) -> Result<(Vec<Hole>, Dropped, usize), EvalError> {
        let mut passed = Vec::new();
        let mut dropped = Dropped::default();
        let mut tried = 0;
        while passed.len() < max_holes && tried < ordered.len() {
            // About half pass; what is tried beyond need is not wasted by much.
            let n = (max_holes - passed.len()).saturating_mul(2).clamp(1, CHUNK).min(ordered.len() - tried);
            let chunk = &ordered[tried..tried + n];
            let truths: Vec<&str> = chunk.iter().map(|hole| hole.truth(self.original(&hole.file))).collect();
            let truths: Vec<String> = truths.into_iter().map(str::to_owned).collect();
            let canaries: Vec<String> =
                chunk.iter().zip(&truths).map(|(hole, truth)| canary(hole.kind, truth)).collect();
            let degenerate: Vec<bool> =
                chunk.iter().zip(&truths).map(|(hole, truth)| self.fault(hole, truth).is_some()).collect();
            let of = |middles: &[String], keep: &[bool]| -> Vec<(usize, String)> {
                (0..n).filter(|&i| keep[i]).map(|i| (i, middles[i].clone())).collect()
            };
            let mut ask = |fillers: Vec<(usize, String)>| -> Result<Vec<bool>, EvalError> {
                let pairs: Vec<_> = fillers.iter().map(|(i, middle)| (&chunk[*i], middle.as_str())).collect();
                let mut compiles = vec![false; n];
                for ((i, _), verdict) in fillers.iter().zip(self.verdicts(&pairs)?) {
                    compiles[*i] = verdict == Verdict::Compiles;
                }
                Ok(compiles)
            };
            let honest: Vec<bool> = degenerate.iter().map(|degenerate| !degenerate).collect();
            let truth = ask(of(&truths, &honest))?;
            let canary = ask(of(&canaries, &truth))?;
            let seen: Vec<bool> = (0..n).map(|i| truth[i] && !canary[i]).collect();
            let empty = ask(of(&vec![String::new(); n], &seen))?;
            for (i, hole) in chunk.iter().enumerate() {
                if passed.len() == max_holes {
                    break;
                }
                tried += 1;
                match () {
                    () if degenerate[i] => dropped.truth_degenerate += 1,
                    () if !truth[i] => dropped.truth_fails += 1,
                    () if canary[i] => dropped.canary_compiles += 1,
                    () if empty[i] => dropped.empty_compiles += 1,
                    () => passed.push(hole.clone()),
                }
            }
        }
        Ok((passed, dropped, tried))
    }

    fn fault(&self, hole: &Hole, middle: &str) -> Option<Degenerate> {
        let task = Task::of(hole, self.original(&hole.file));
        fault(task.kind, task.prefix, middle, task.suffix)
    }

    /// The grammar is asked before the compiler, and fillers before both.
    fn score(&mut self, holes: &[Hole], answers: Vec<Answer>) -> Result<Vec<Score>, EvalError> {
        let mut scores = Vec::with_capacity(holes.len());
        let mut worth_compiling = Vec::new();
        for (i, (hole, answer)) in holes.iter().zip(&answers).enumerate() {
            let original = self.original(&hole.file);
            let truth = hole.truth(original);
            let text = answer.text.as_deref();
            let parses = text.map(|text| source::parses(&hole.splice(original, text)));
            let degenerate = text.is_some_and(|text| self.fault(hole, text).is_some());
            if let Some(text) = text
                && parses == Some(true)
                && !degenerate
            {
                worth_compiling.push((i, text.to_owned()));
            }
            scores.push(Score {
                compiles: false,
                exact: text.is_some_and(|text| text.trim_end() == truth.trim_end()),
                similarity: text.map_or(0.0, |text| metrics::edit_similarity(text, truth)),
                answered: text.is_some(),
                parses,
                latency_ms: answer.latency_ms,
                degenerate,
                timed_out: false,
            });
        }
        let fillers: Vec<_> = worth_compiling.iter().map(|(i, text)| (&holes[*i], text.as_str())).collect();
        for ((i, _), verdict) in worth_compiling.iter().zip(self.verdicts(&fillers)?) {
            scores[*i].compiles = verdict == Verdict::Compiles;
            scores[*i].timed_out = verdict == Verdict::TimedOut;
        }
        Ok(scores)
    }

    /// The controls: truth at 100 %, and every file still compiles as it is, now that everything ran. That nothing at
    /// all does not compile is no control but a gate: the compiler has refused the empty filler in each hole.
    fn confirm(&mut self, systems: &[(String, Vec<Score>)]) -> Result<(), EvalError> {
        let truth = systems.iter().find(|(system, _)| system == "truth").map(|(_, scores)| scores);
        let truth = truth.expect("the truth is always among the systems");
        let (n_truth, n) = (truth.iter().filter(|score| score.compiles).count(), truth.len());
        if n_truth != n {
            return Err(EvalError::Void { why: format!("the truth compiles in {n_truth} of {n} holes only") });
        }
        let mut files: Vec<&String> = self.known.keys().map(|(file, ..)| file).collect();
        files.sort();
        files.dedup();
        let originals: Vec<Candidate> = files
            .into_iter()
            .map(|file| Candidate { file: file.clone(), text: self.original(file).to_owned() })
            .collect();
        for (candidate, verdict) in originals.iter().zip(self.compile(&originals)?) {
            let before = self.known.get(&(candidate.file.clone(), 0, 0, String::new()));
            if before == Some(&Verdict::Compiles) && verdict != Verdict::Compiles {
                return Err(EvalError::Void { why: format!("{} no longer compiles as it is", candidate.file) });
            }
        }
        Ok(())
    }
}

fn fill(
    contestant: &mut dyn Contestant,
    holes: &[Hole],
    checker: &Checker,
    cancel: &Cancel,
) -> Result<Vec<Answer>, EvalError> {
    let mut answers = Vec::with_capacity(holes.len());
    for hole in holes {
        cancel.check()?;
        let text = checker.original(&hole.file).expect("holes are cut from files that the checker holds");
        let start = Instant::now();
        let filled = contestant.fill(&Task::of(hole, text), cancel)?;
        let latency_ms = 1000.0 * start.elapsed().as_secs_f64();
        answers.push(Answer { text: filled.map(|text| unit::first(hole.kind, &text).to_owned()), latency_ms });
    }
    Ok(answers)
}

/// Garbage where the truth was, in its form: every word is replaced by one that nobody defined. Within a literal
/// that compiles, which shows that any filler would.
fn canary(kind: HoleKind, truth: &str) -> String {
    if kind == HoleKind::Statement {
        return format!("{CANARY}();");
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut garbage = String::new();
    let mut rest = truth;
    while let Some(c) = rest.chars().next() {
        let len = rest.find(|next| is_word(next) != is_word(c)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(len);
        garbage.push_str(if is_word(c) && !c.is_ascii_digit() { CANARY } else { run });
        rest = after;
    }
    if garbage == truth { CANARY.to_owned() } else { garbage }
}

/// All holes, then each kind that occurs.
fn rows(name: &str, holes: &[Hole], scores: &[Score], seed: u64) -> Vec<System> {
    let mut kinds: Vec<HoleKind> = holes.iter().map(|hole| hole.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let kinds = [None].into_iter().chain(kinds.into_iter().map(Some));
    kinds.map(|kind| row(name, kind, holes, scores, seed)).collect()
}

fn row(name: &str, kind: Option<HoleKind>, holes: &[Hole], scores: &[Score], seed: u64) -> System {
    let chosen: Vec<(&str, &Score)> = holes
        .iter()
        .zip(scores)
        .filter(|(hole, _)| kind.is_none_or(|kind| hole.kind == kind))
        .map(|(hole, score)| (hole.file.as_str(), score))
        .collect();
    let observe = |figure: fn(&Score) -> Option<f64>| -> Vec<(&str, f64)> {
        chosen.iter().filter_map(|(file, score)| Some((*file, figure(score)?))).collect()
    };
    let mean = |figure| metrics::mean(&observe(figure), seed);
    let latencies = observe(|score| Some(score.latency_ms));
    System {
        name: name.to_owned(),
        kind,
        n: chosen.len(),
        compile_success: mean(|score| Some(share(score.compiles))),
        exact_match: mean(|score| Some(share(score.exact))),
        edit_similarity: mean(|score| Some(score.similarity)),
        answered: mean(|score| Some(share(score.answered))),
        parse_rate: mean(|score| score.parses.map(share)),
        latency_p50_ms: metrics::quantile(&latencies, 0.5, seed),
        latency_p95_ms: metrics::quantile(&latencies, 0.95, seed),
        degenerate: chosen.iter().filter(|(_, score)| score.degenerate).count(),
        timed_out: chosen.iter().filter(|(_, score)| score.timed_out).count(),
    }
}

fn difference(system: &(String, Vec<Score>), baseline: &(String, Vec<Score>), holes: &[Hole], seed: u64) -> Difference {
    let paired = |figure: fn(&Score) -> f64| -> Value {
        let pairs = holes.iter().zip(system.1.iter().zip(&baseline.1));
        let observations: Vec<_> =
            pairs.map(|(hole, (ours, theirs))| (hole.file.as_str(), figure(ours) - figure(theirs))).collect();
        metrics::mean_difference(&observations, seed)
    };
    Difference {
        system: system.0.clone(),
        baseline: baseline.0.clone(),
        compile_success: paired(|score| share(score.compiles)),
        exact_match: paired(|score| share(score.exact)),
        edit_similarity: paired(|score| score.similarity),
    }
}

fn share(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

/// The held-out files' names, sorted, each once.
fn names(options: &Options) -> Result<Vec<String>, EvalError> {
    let mut names = Vec::new();
    for path in &options.held_out {
        let inside = path.strip_prefix(&options.sources.root).unwrap_or(path);
        if !inside.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(EvalError::Outside { path: path.clone() });
        }
        names.push(slashed(inside));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests;
