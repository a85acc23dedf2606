//! Which holes are used: those in which the truth compiles, and neither garbage nor nothing does.

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

/// Holes that go through the gates at a time, at least.
const MIN_CHUNK: usize = 16;
/// Grows when a gate changes.
const GATES: &str = "gates 1";
/// No program defines it.
const CANARY: &str = "nanochat_canary_that_nobody_defined";

/// The holes of every project of the shard.
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

/// All lines of one project.
fn filter_project(run: &mut Run<'_, '_>, group_idx: usize, project: &Project) -> Result<Vec<Filtered>, EvalError> {
    let (seed, cancel, trained_on, cache) = (run.plan.seed, run.cancel, run.plan.trained_on, run.plan.cache);
    let checker = run.checker(group_idx)?;
    let mut line =
        ProjectSummary { name: project.name.clone(), version: project.version.clone(), ..ProjectSummary::default() };
    let mut cut = Vec::new();
    for (file, text) in &project.texts {
        // What was copied is what is compiled; a file that changed since is none that holes fit.
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
    // What does not build today may do so tomorrow.
    let cache = cache.filter(|_| line.skipped.is_none());
    let cache = cache.map(|root| (Cache::new(root), key(checker, project, &ordered, &leaking)));
    if let Some(lines) = cache.as_ref().and_then(|(cache, key)| cache.take_lines(key)).filter(|lines| is_whole(lines)) {
        return Ok(lines);
    }
    let mut lines = Vec::new();
    let (mut n_passed, mut tried, mut timed_out) = (0, 0, false);
    while n_passed < project.max_holes && tried < ordered.len() {
        // About half pass; what is tried beyond need is not wasted by much.
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
        let mut pass = |fillers: &[&str], wanted: Verdict, failed: FilterOutcome| -> Result<(), EvalError> {
            let open: Vec<usize> = (0..n).filter(|&at| outcomes[at].is_none()).collect();
            let asked: Vec<(&Hole, &str, &str)> = open.iter().map(|&at| (&chunk[at], texts[at], fillers[at])).collect();
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
    // What a busy machine did not finish is not to be believed another time.
    if let Some((cache, key)) = cache.filter(|_| !timed_out) {
        cache.keep_lines(&key, &lines);
    }
    Ok(lines)
}

/// Whether the lines of a project are all there: its own is the last.
fn is_whole(lines: &[Filtered]) -> bool {
    matches!(lines.last(), Some(Filtered::Project(_)))
}

/// Of all that the gates of a project follow from: the holes in their order, which name their texts, how many are wanted,
/// which leak, and how they are compiled. Another checkpoint that has not seen them finds them done.
fn key(checker: &Checker, project: &Project, ordered: &[Hole], leaking: &BTreeSet<&str>) -> String {
    let max_holes = project.max_holes.to_string();
    let mut parts: Vec<&str> = vec![GATES, &project.name, &project.version, &max_holes, checker.rustc()];
    parts.push(checker.compiled());
    parts.extend(ordered.iter().map(|hole| hole.id.as_str()));
    parts.push("leaking");
    parts.extend(leaking);
    short_hash(&parts)
}

/// Verdicts on (hole, its file's text, filler). The grammar is asked first, and the truth, which leaves a file as it
/// is, is compiled once for all holes.
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
    // Files of the same crates as they are: one of them stands for all.
    let mut as_they_are: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for (file, holes) in truths {
        as_they_are.entry(checker.units_of(file).to_vec()).or_default().extend(holes);
    }
    let n_as_they_are = as_they_are.len();
    let fillers: Vec<FilledHole<'_>> = as_they_are
        .values()
        .map(|holes| holes[0])
        .chain(others.iter().copied())
        .map(|at| FilledHole { hole: asked[at].0, text: asked[at].2 })
        .collect();
    // They would share a run with the others and be spoiled by them.
    let (left, mut n_runs) = checker.judge(&fillers[..n_as_they_are], &mut |_| {}, cancel)?;
    let (right, n_more) = checker.judge(&fillers[n_as_they_are..], done, cancel)?;
    n_runs += n_more;
    for (holes, verdict) in as_they_are.into_values().zip(left) {
        for at in holes {
            verdicts[at] = verdict;
        }
    }
    for (at, verdict) in others.into_iter().zip(right) {
        verdicts[at] = verdict;
    }
    Ok((verdicts, n_runs))
}

/// Garbage where the truth was, in its form: every name is replaced by one that nobody defined. Within a literal
/// that compiles, which shows that any filler would.
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

/// Words that the form of a line depends on.
const KEYWORDS: [&str; 22] = [
    "as", "async", "await", "break", "const", "continue", "dyn", "else", "fn", "for", "if", "impl", "in", "let",
    "loop", "match", "move", "mut", "ref", "return", "unsafe", "while",
];
