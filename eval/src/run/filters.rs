//! The hole filters. A hole is used if the file compiles with the truth, and neither with garbage nor with nothing.
//!
//! ```text
//! degenerate truth? → seen in training? → truth compiles? → canary (garbage) fails? → empty fails? → used
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::Run;
use super::degenerate::fault;
use crate::check::cache::Cache;
use crate::check::{Checker, FilledHole, Verdict};
use crate::holes::hole::short_hash;
use crate::holes::leak::Leaks;
use crate::holes::{self, Hole, HoleKind};
use crate::record::RecordError;
use crate::record::log::Log;
use crate::record::{FilterOutcome, Filtered, ProjectSummary};
use crate::suite::Project;
use crate::system::Task;
use crate::{EvalError, Event};

/// At least so many holes go through the filters at a time.
const MIN_CHUNK: usize = 16;
/// Part of the cache's key; changes when a filter changes.
const FILTERS: &str = "gates 1";
/// A name that no program defines.
const CANARY: &str = "nanochat_canary_that_nobody_defined";

/// Filters the holes of every project of the shard and returns those that are used.
pub(super) fn run<'a>(run: &mut Run<'a, '_>) -> Result<Vec<(&'a Project, Vec<Hole>)>, EvalError> {
    let (mut log, there) = Log::open::<Filtered>(&run.path("gates.jsonl"))?;
    let mut there = there.into_iter().peekable();
    let mut passed = Vec::new();
    let projects = run.projects();
    let total = projects.len();
    for (done, (group_idx, project)) in projects.into_iter().enumerate() {
        let mut lines = Vec::new();
        let mut is_closed = false;
        while !is_closed && let Some(line) = there.next() {
            is_closed = matches!(line, Filtered::Project(_));
            lines.push(line);
        }
        if !is_closed {
            let all = filter_project(run, group_idx, project)?;
            if !all.starts_with(&lines) {
                return Err(RecordError::Foreign { path: log.path().to_path_buf(), what: "holes" }.into());
            }
            log.append_all(&all[lines.len()..])?;
            lines = all;
        }
        let is_this = |line: &Filtered| match line {
            Filtered::Hole { hole, .. } => hole.project == project.name,
            Filtered::Project(line) => line.name == project.name,
        };
        if !lines.iter().all(is_this) {
            return Err(RecordError::Foreign { path: log.path().to_path_buf(), what: "projects" }.into());
        }
        let holes = lines.into_iter().filter_map(|line| match line {
            Filtered::Hole { hole, outcome: FilterOutcome::Passed } => Some(hole),
            _ => None,
        });
        passed.push((project, holes.collect()));
        (run.events)(Event::Filtered { done: done + 1, total });
    }
    Ok(passed)
}

/// Cuts and filters the holes of one project and returns its lines.
fn filter_project(run: &mut Run<'_, '_>, group_idx: usize, project: &Project) -> Result<Vec<Filtered>, EvalError> {
    let (seed, cancel, trained_on, cache) = (run.plan.seed, run.cancel, run.plan.trained_on, run.plan.cache);
    let checker = run.checker(group_idx)?;
    let mut line =
        ProjectSummary { name: project.name.clone(), version: project.version.clone(), ..ProjectSummary::default() };
    let mut cut = Vec::new();
    for (file, text) in &project.texts {
        // The copy is what is compiled; holes do not fit a file that has changed since.
        match checker.original(file).filter(|copied| copied == text) {
            None => line.files_not_compiled += 1,
            Some(_) if project.cut.is_some() => {}
            Some(text) => match holes::cut(&project.name, file, text, seed) {
                None => line.files_not_parsed += 1,
                Some(holes) => cut.extend(holes),
            },
        }
    }
    cut.extend(project.cut.iter().flatten().filter(|hole| checker.original(&hole.file).is_some()).cloned());
    line.n_cut = cut.len();
    if line.files_not_compiled == project.texts.len() {
        line.skipped = Some("it does not build".to_owned());
    } else if cut.is_empty() {
        line.skipped = Some("there are no holes to cut".to_owned());
    }
    let leaks = trained_on.map(|trained_on| Leaks::new(trained_on, &project.texts));
    let ordered = holes::order(cut, seed);
    let leaking: BTreeSet<&str> = match &leaks {
        Some(leaks) => ordered.iter().filter(|hole| leaks.has(hole)).map(|hole| hole.id.as_str()).collect(),
        None => BTreeSet::new(),
    };
    // A project that does not build today may do so tomorrow.
    let cache = cache.filter(|_| line.skipped.is_none());
    let cache = cache.map(|root| (Cache::new(root), key(checker, project, &ordered, &leaking)));
    if let Some(lines) = cache.as_ref().and_then(|(cache, key)| cache.take_lines(key)).filter(|lines| is_whole(lines)) {
        return Ok(lines);
    }
    let mut lines = Vec::new();
    let (mut n_passed, mut tried, mut timed_out) = (0, 0, false);
    while n_passed < project.max_holes && tried < ordered.len() {
        // About half pass; little is wasted by trying more than needed.
        let n = (project.max_holes - n_passed).saturating_mul(2).max(MIN_CHUNK).min(ordered.len() - tried);
        let chunk = &ordered[tried..tried + n];
        let texts: Vec<&str> = chunk.iter().map(|hole| project.texts[&hole.file].as_str()).collect();
        let truths: Vec<&str> = chunk.iter().zip(&texts).map(|(hole, text)| hole.truth(text)).collect();
        let mut outcomes: Vec<Option<FilterOutcome>> = vec![None; n];
        for (at, hole) in chunk.iter().enumerate() {
            let task = Task::of(hole, texts[at]);
            if fault(&task, truths[at], Some(truths[at])).is_some() {
                outcomes[at] = Some(FilterOutcome::TruthDegenerate);
            } else if leaking.contains(hole.id.as_str()) {
                outcomes[at] = Some(FilterOutcome::Leaks);
            }
        }
        let canaries: Vec<String> = chunk.iter().zip(&truths).map(|(hole, truth)| canary(hole.kind, truth)).collect();
        let mut pass = |texts_in_holes: &[&str], wanted: Verdict, failed: FilterOutcome| -> Result<(), EvalError> {
            let open: Vec<usize> = (0..n).filter(|&at| outcomes[at].is_none()).collect();
            let asked: Vec<(&Hole, &str, &str)> =
                open.iter().map(|&at| (&chunk[at], texts[at], texts_in_holes[at])).collect();
            let (verdicts, n_runs) = verdicts(checker, &asked, &mut |_| {}, cancel)?;
            line.n_runs += n_runs;
            for (at, verdict) in open.into_iter().zip(verdicts) {
                timed_out |= verdict == Verdict::TimedOut;
                let compiles = verdict == Verdict::Compiles;
                if compiles != (wanted == Verdict::Compiles) {
                    outcomes[at] = Some(failed);
                }
            }
            Ok(())
        };
        pass(&truths, Verdict::Compiles, FilterOutcome::TruthFails)?;
        pass(&canaries.iter().map(String::as_str).collect::<Vec<_>>(), Verdict::Fails, FilterOutcome::CanaryCompiles)?;
        pass(&vec![""; n], Verdict::Fails, FilterOutcome::EmptyCompiles)?;
        for (hole, outcome) in chunk.iter().zip(outcomes) {
            if n_passed == project.max_holes {
                break;
            }
            let outcome = outcome.unwrap_or(FilterOutcome::Passed);
            n_passed += usize::from(outcome == FilterOutcome::Passed);
            tried += 1;
            lines.push(Filtered::Hole { hole: hole.clone(), outcome });
        }
    }
    lines.push(Filtered::Project(line));
    // A timeout on a busy machine must not be remembered.
    if let Some((cache, key)) = cache.filter(|_| !timed_out) {
        cache.keep_lines(&key, &lines);
    }
    Ok(lines)
}

/// Whether the lines of a project are complete: its summary is the last one.
fn is_whole(lines: &[Filtered]) -> bool {
    matches!(lines.last(), Some(Filtered::Project(_)))
}

/// Key of everything that the outcomes of a project depend on: the holes in their order, whose ids include the text,
/// how many are wanted, which were seen in training, and how they are compiled. Checkpoints that have seen none of them
/// share the entry.
fn key(checker: &Checker, project: &Project, ordered: &[Hole], leaking: &BTreeSet<&str>) -> String {
    let max_holes = project.max_holes.to_string();
    let mut parts: Vec<&str> = vec![FILTERS, &project.name, &project.version, &max_holes, checker.rustc()];
    parts.push(checker.compiled());
    parts.extend(ordered.iter().map(|hole| hole.id.as_str()));
    parts.push("leaking");
    parts.extend(leaking);
    short_hash(&parts)
}

/// Verdicts on (hole, its file's text, completion). The grammar is checked first, and the truth, which leaves a file
/// unchanged, is compiled once for all holes.
pub(super) fn verdicts(
    checker: &Checker,
    asked: &[(&Hole, &str, &str)],
    done: &mut dyn FnMut(usize),
    cancel: &nanochat_engine::Cancel,
) -> Result<(Vec<Verdict>, usize), EvalError> {
    let mut verdicts = vec![Verdict::Fails; asked.len()];
    let (mut truths, mut others) = (BTreeMap::<&str, Vec<usize>>::new(), Vec::new());
    for (at, (hole, text, middle)) in asked.iter().enumerate() {
        if hole.truth(text) == *middle {
            truths.entry(&hole.file).or_default().push(at);
        } else if holes::parses_with(text, hole, middle) {
            others.push(at);
        }
    }
    // Unchanged files of the same crates: one of them represents all.
    let mut unchanged: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for (file, holes) in truths {
        unchanged.entry(checker.units_of(file).to_vec()).or_default().extend(holes);
    }
    let n_unchanged = unchanged.len();
    let filled: Vec<FilledHole<'_>> = unchanged
        .values()
        .map(|holes| holes[0])
        .chain(others.iter().copied())
        .map(|at| FilledHole { hole: asked[at].0, text: asked[at].2 })
        .collect();
    // Judged separately: in a shared run errors of the others would be blamed on them.
    let (left, mut n_runs) = checker.judge(&filled[..n_unchanged], &mut |_| {}, cancel)?;
    let (right, n_more) = checker.judge(&filled[n_unchanged..], done, cancel)?;
    n_runs += n_more;
    for (holes, verdict) in unchanged.into_values().zip(left) {
        for at in holes {
            verdicts[at] = verdict;
        }
    }
    for (at, verdict) in others.into_iter().zip(right) {
        verdicts[at] = verdict;
    }
    Ok((verdicts, n_runs))
}

/// Garbage in the form of the truth: every name is replaced by one that is not defined. Inside a literal it compiles,
/// which shows that any completion would.
pub(super) fn canary(kind: HoleKind, truth: &str) -> String {
    match kind {
        HoleKind::Statement | HoleKind::Block | HoleKind::FunctionBody => return format!("{CANARY}();"),
        HoleKind::Expression => return CANARY.to_owned(),
        HoleKind::LineTail | HoleKind::NextLine | HoleKind::RestOfLine => {}
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut garbage = String::new();
    let mut rest = truth;
    while let Some(c) = rest.chars().next() {
        let len = rest.find(|next| is_word(next) != is_word(c)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(len);
        let is_name = is_word(c) && !c.is_ascii_digit() && !KEYWORDS.contains(&run);
        garbage.push_str(if is_name { CANARY } else { run });
        rest = after;
    }
    if garbage == truth { CANARY.to_owned() } else { garbage }
}

/// Words that canaries keep, since the form of a line depends on them.
const KEYWORDS: [&str; 22] = [
    "as", "async", "await", "break", "const", "continue", "dyn", "else", "fn", "for", "if", "impl", "in", "let",
    "loop", "match", "move", "mut", "ref", "return", "unsafe", "while",
];
