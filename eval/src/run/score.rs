//! What each answer is worth: fillers first, then the grammar, then the compiler.

use std::collections::BTreeMap;
use std::time::Instant;

use nanochat_engine::Cancel;
use serde::{Deserialize, Serialize};

use super::{Run, gates};
use crate::check::{Checker, Verdict};
use crate::contestant::Task;
use crate::degenerate::fault;
use crate::record::{Generated, Hole, Scored};
use crate::similarity::{edit_similarity, saved_chars};
use crate::stage::{self, Log, StageError};
use crate::suite::Project;
use crate::{EvalError, Event, source};

/// A line of `costs.jsonl`: what the verdicts took. It is of the machine, not of the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cost {
    system: String,
    #[serde(rename = "crate")]
    project: String,
    n_holes: usize,
    n_runs: usize,
    seconds: f64,
}

pub(super) fn run(run: &mut Run<'_, '_>, holes: &[(&Project, Vec<Hole>)], systems: &[String]) -> Result<(), EvalError> {
    let generated = stage::read::<Generated>(&run.path("generated.jsonl"))?;
    let (mut log, there) = Log::open::<Scored>(&run.path("scored.jsonl"))?;
    let (mut costs, _) = Log::open::<Cost>(&run.path("costs.jsonl"))?;
    let groups: Vec<usize> = run.projects().into_iter().map(|(group_idx, _)| group_idx).collect();
    let total: usize = holes.iter().map(|(_, holes)| holes.len()).sum();
    let mut at = 0;
    for system in systems {
        let mut done = 0;
        for ((project, holes), group_idx) in holes.iter().zip(&groups) {
            let answers = &generated[at..at + holes.len()];
            let known = &there[at.min(there.len())..(at + holes.len()).min(there.len())];
            at += holes.len();
            done += holes.len();
            let fresh;
            let scored = if known.len() == holes.len() {
                known
            } else {
                let start = Instant::now();
                let n_runs;
                (fresh, n_runs) = score(run, *group_idx, project, holes, answers)?;
                if !fresh.starts_with(known) {
                    return Err(StageError::Foreign { path: log.path().to_path_buf(), what: "verdicts" }.into());
                }
                costs.append(&Cost {
                    system: system.clone(),
                    project: project.name.clone(),
                    n_holes: holes.len(),
                    n_runs,
                    seconds: start.elapsed().as_secs_f64(),
                })?;
                log.append_all(&fresh[known.len()..])?;
                &fresh
            };
            control(system, project, scored)?;
            (run.events)(Event::Scored { system: system.clone(), done, total });
        }
    }
    Ok(())
}

/// The truth compiles everywhere, and nothing at all nowhere.
fn control(system: &str, project: &Project, scored: &[Scored]) -> Result<(), EvalError> {
    let n = scored.iter().filter(|score| score.compile).count();
    match system {
        "truth" if n != scored.len() => {
            let why = format!("in {} the truth compiles in {n} of {} holes only", project.name, scored.len());
            Err(EvalError::Void { why })
        }
        "truth" if scored.iter().any(|score| score.tests_pass == Some(false)) => {
            Err(EvalError::Void { why: format!("in {} the truth does not pass its tests", project.name) })
        }
        "empty" if n != 0 => {
            Err(EvalError::Void { why: format!("in {} nothing at all compiles in {n} holes", project.name) })
        }
        _ => Ok(()),
    }
}

fn score(
    run: &mut Run<'_, '_>,
    group_idx: usize,
    project: &Project,
    holes: &[Hole],
    answers: &[Generated],
) -> Result<(Vec<Scored>, usize), EvalError> {
    let cancel = run.cancel;
    let checker = run.checker(group_idx)?;
    let mut scored = Vec::with_capacity(holes.len());
    let mut worth_compiling = Vec::new();
    for (hole, answer) in holes.iter().zip(answers) {
        let original = project.texts[&hole.file].as_str();
        let truth = hole.truth(original);
        let text = answer.text.as_deref();
        let parse = text.map(|text| text == truth || source::parses_with(original, hole, text));
        let degenerate = text.is_some_and(|text| fault(&Task::of(hole, original), text, Some(truth)).is_some());
        if let Some(text) = text
            && parse == Some(true)
            && !degenerate
        {
            worth_compiling.push((scored.len(), (hole, original, text)));
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
    let asked: Vec<(&Hole, &str, &str)> = worth_compiling.iter().map(|(_, asked)| *asked).collect();
    let (verdicts, n_runs) = gates::verdicts(checker, &asked, &mut |_| {}, cancel)?;
    for ((at, _), verdict) in worth_compiling.iter().zip(verdicts) {
        scored[*at].compile = verdict == Verdict::Compiles;
        scored[*at].timed_out = verdict == Verdict::TimedOut;
    }
    if project.tests {
        let compiling: Vec<(usize, (&Hole, &str, &str))> =
            worth_compiling.into_iter().filter(|(at, _)| scored[*at].compile).collect();
        for (at, passes) in tests(checker, &compiling, cancel)? {
            scored[at].tests_pass = Some(passes);
        }
        for scored in &mut scored {
            scored.tests_pass.get_or_insert(false);
        }
    }
    Ok((scored, n_runs))
}

/// Whether the tests pass with each of these answers, at most one of each file. They are built together, and one by one
/// if that fails.
fn tests(
    checker: &Checker,
    answers: &[(usize, (&Hole, &str, &str))],
    cancel: &Cancel,
) -> Result<Vec<(usize, bool)>, EvalError> {
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
