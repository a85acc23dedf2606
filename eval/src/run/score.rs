//! Scores each completion: is it degenerate, does it parse, does it compile, do the tests pass?
//!
//! The completions of all systems for the holes of a project are judged together: equal completions are compiled once,
//! and compiler runs are shared by more of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use nanochat_engine::Cancel;
use serde::{Deserialize, Serialize};

use super::degenerate::fault;
use super::{Run, filters};
use crate::check::{Checker, Verdict};
use crate::holes::{Hole, parses_with};
use crate::record::RecordError;
use crate::record::log::{self, Log};
use crate::record::{Generated, Scored};
use crate::similarity::{edit_similarity, saved_chars};
use crate::suite::Project;
use crate::system::Task;
use crate::{EvalError, Event};

/// A line of `costs.jsonl`: the effort of the verdicts. It depends on the machine, not only on the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cost {
    #[serde(rename = "crate")]
    project: String,
    n_systems: usize,
    n_holes: usize,
    /// Distinct completions that had to be compiled.
    n_compiled: usize,
    n_runs: usize,
    seconds: f64,
}

/// A hole, its file's text, and a completion.
type Asked<'a> = (&'a Hole, &'a str, &'a str);

pub(super) fn run(run: &mut Run<'_, '_>, holes: &[(&Project, Vec<Hole>)], systems: &[String]) -> Result<(), EvalError> {
    let generated = log::read::<Generated>(&run.path("generated.jsonl"))?;
    let answers: HashMap<(&str, &str), &Generated> =
        generated.iter().map(|answer| ((answer.system.as_str(), answer.hole_id.as_str()), answer)).collect();
    let (mut log, there) = Log::open::<Scored>(&run.path("scored.jsonl"))?;
    let (mut costs, _) = Log::open::<Cost>(&run.path("costs.jsonl"))?;
    let groups: Vec<usize> = run.projects().into_iter().map(|(group_idx, _)| group_idx).collect();
    let total: usize = holes.iter().map(|(_, holes)| holes.len()).sum();
    let is_of_project = |holes: &[Hole], id: &str| holes.iter().any(|hole| hole.id == id);
    let last: Vec<(String, String)> = match there.last() {
        None => Vec::new(),
        Some(last) => {
            let of_last = holes.iter().find(|(_, holes)| is_of_project(holes, &last.hole_id));
            let of_last = of_last.map_or(&[][..], |(_, holes)| holes);
            let tail = there.iter().rev().take_while(|scored| is_of_project(of_last, &scored.hole_id));
            tail.map(|scored| (scored.system.clone(), scored.hole_id.clone())).collect()
        }
    };
    let mut scored: HashMap<(String, String), Scored> =
        there.into_iter().map(|scored| ((scored.system.clone(), scored.hole_id.clone()), scored)).collect();
    let is_asked = |(system, hole_id): &(String, String)| answers.contains_key(&(system.as_str(), hole_id.as_str()));
    if !scored.keys().all(is_asked) {
        return Err(RecordError::Foreign { path: log.path().to_path_buf(), what: "verdicts" }.into());
    }
    // A project that a killed run left incomplete is judged again as a whole, so that the same completions are compiled
    // together.
    let mut done = 0;
    for ((project, holes), group_idx) in holes.iter().zip(&groups) {
        let key = |system: &String, hole: &Hole| (system.clone(), hole.id.clone());
        let is_open = |system: &&String| holes.iter().any(|hole| !scored.contains_key(&key(system, hole)));
        let open: Vec<&String> = systems.iter().filter(is_open).collect();
        if !open.is_empty() {
            let start = Instant::now();
            let is_torn = |system: &String| last.iter().any(|(of, id)| of == system && is_of_project(holes, id));
            let together: Vec<&String> =
                systems.iter().filter(|system| open.contains(system) || is_torn(system)).collect();
            let asked: Vec<(&Hole, &Generated)> = together
                .iter()
                .flat_map(|system| holes.iter().map(|hole| (hole, answers[&(system.as_str(), hole.id.as_str())])))
                .collect();
            let (fresh, n_compiled, n_runs) = score(run, *group_idx, project, &asked)?;
            costs.append(&Cost {
                project: project.name.clone(),
                n_systems: together.len(),
                n_holes: holes.len(),
                n_compiled,
                n_runs,
                seconds: start.elapsed().as_secs_f64(),
            })?;
            let new: Vec<Scored> = fresh
                .into_iter()
                .filter(|fresh| !scored.contains_key(&(fresh.system.clone(), fresh.hole_id.clone())))
                .collect();
            log.append_all(&new)?;
            scored.extend(new.into_iter().map(|new| ((new.system.clone(), new.hole_id.clone()), new)));
        }
        done += holes.len();
        for system in systems {
            let of_system: Vec<&Scored> = holes.iter().map(|hole| &scored[&key(system, hole)]).collect();
            control(system, project, &of_system)?;
            (run.events)(Event::Scored { system: system.clone(), done, total });
        }
    }
    Ok(())
}

/// Checks the controls: the truth compiles in every hole, an empty completion in none.
fn control(system: &str, project: &Project, scored: &[&Scored]) -> Result<(), EvalError> {
    let n = scored.iter().filter(|score| score.compile).count();
    match system {
        "truth" if n != scored.len() => {
            let why = format!("in {} the truth compiles in only {n} of {} holes", project.name, scored.len());
            Err(EvalError::Invalid { why })
        }
        "truth" if scored.iter().any(|score| score.tests_pass == Some(false)) => {
            Err(EvalError::Invalid { why: format!("in {} the truth does not pass its tests", project.name) })
        }
        "empty" if n != 0 => {
            Err(EvalError::Invalid { why: format!("in {} an empty completion compiles in {n} holes", project.name) })
        }
        _ => Ok(()),
    }
}

/// Scores in the order of `asked`, the number of completions that had to be compiled, and of compiler runs.
fn score(
    run: &mut Run<'_, '_>,
    group_idx: usize,
    project: &Project,
    asked: &[(&Hole, &Generated)],
) -> Result<(Vec<Scored>, usize, usize), EvalError> {
    let cancel = run.cancel;
    let checker = run.checker(group_idx)?;
    let mut scored = Vec::with_capacity(asked.len());
    let mut worth_compiling: Vec<(usize, Asked<'_>)> = Vec::new();
    for (hole, answer) in asked {
        let original = project.texts[&hole.file].as_str();
        let truth = hole.truth(original);
        let text = answer.text.as_deref();
        let parse = text.map(|text| text == truth || parses_with(original, hole, text));
        let degenerate = text.is_some_and(|text| fault(&Task::of(hole, original), text, Some(truth)).is_some());
        if let Some(text) = text
            && parse == Some(true)
            && !degenerate
        {
            worth_compiling.push((scored.len(), (*hole, original, text)));
        }
        scored.push(Scored {
            hole_id: hole.id.clone(),
            system: answer.system.clone(),
            answered: text.is_some(),
            compile: false,
            exact: text.is_some_and(|text| text.trim_end() == truth.trim_end()),
            edit_similarity: text.map_or(0.0, |text| edit_similarity(text, truth)),
            parse,
            saved_chars: text.map_or(0, |text| saved_chars(text, truth)),
            truth_chars: truth.chars().count(),
            tests_pass: None,
            degenerate,
            timed_out: false,
            confidence: answer.confidence,
        });
    }
    let mut index_of: HashMap<(&str, &str), usize> = HashMap::new();
    let mut different: Vec<Asked<'_>> = Vec::new();
    for (_, (hole, original, text)) in &worth_compiling {
        index_of.entry((&hole.id, text)).or_insert_with(|| {
            different.push((hole, original, text));
            different.len() - 1
        });
    }
    let (verdicts, n_runs) = filters::verdicts(checker, &different, &mut |_| {}, cancel)?;
    for (at, (hole, _, text)) in &worth_compiling {
        let verdict = verdicts[index_of[&(hole.id.as_str(), *text)]];
        scored[*at].compile = verdict == Verdict::Compiles;
        scored[*at].timed_out = verdict == Verdict::TimedOut;
    }
    if project.tests {
        let systems: BTreeSet<&str> = asked.iter().map(|(_, answer)| answer.system.as_str()).collect();
        for system in systems {
            // Each file has one hole, so a system has at most one completion in it.
            let is_its = |at: usize| asked[at].1.system == system;
            let compiling: Vec<(usize, Asked<'_>)> =
                worth_compiling.iter().copied().filter(|(at, _)| scored[*at].compile && is_its(*at)).collect();
            for (at, passes) in tests(checker, &compiling, cancel)? {
                scored[at].tests_pass = Some(passes);
            }
        }
        for scored in &mut scored {
            scored.tests_pass.get_or_insert(false);
        }
    }
    Ok((scored, different.len(), n_runs))
}

/// Whether the tests pass with each of these completions, at most one per file. They are built together, or one by one
/// if that fails.
fn tests(checker: &Checker, answers: &[(usize, Asked<'_>)], cancel: &Cancel) -> Result<Vec<(usize, bool)>, EvalError> {
    let texts: Vec<(&str, String)> =
        answers.iter().map(|(_, (hole, original, text))| (hole.file.as_str(), hole.splice(original, text))).collect();
    let all: BTreeMap<&str, &str> = texts.iter().map(|(file, text)| (*file, text.as_str())).collect();
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let together = checker.tests(&all, cancel)?;
    let mut passed = Vec::with_capacity(answers.len());
    for ((at, _), (file, text)) in answers.iter().zip(&texts) {
        let alone;
        let of_file = match &together {
            Some(together) => Some(together),
            None => {
                alone = checker.tests(&BTreeMap::from([(*file, text.as_str())]), cancel)?;
                alone.as_ref()
            }
        };
        passed.push((*at, of_file.and_then(|passed| passed.get(*file)).copied().unwrap_or(false)));
    }
    Ok(passed)
}
