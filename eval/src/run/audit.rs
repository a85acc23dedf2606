//! Checks that the verdicts of completions compiled together agree with those of each compiled alone.

use std::collections::{HashMap, HashSet};

use nanochat_engine::rng::Rng;
use serde::Serialize;

use super::Run;
use crate::check::{Candidate, Verdict};
use crate::holes::Hole;
use crate::record::{Findings, Scored};
use crate::{EvalError, Event};

/// How many verdicts an audit checked, and where they differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Audit {
    /// Number of completions that were compiled again, each alone.
    pub audited: usize,
    /// How many of these got the same verdict.
    pub agree: usize,
    /// Compiled together with others, but does not alone.
    pub false_ok: usize,
    /// Did not compile together with others, but does alone.
    pub false_fail: usize,
    /// Killed at the timeout when compiled alone; not counted above.
    pub timed_out: usize,
    /// Each verdict that differs.
    pub differing: Vec<Differing>,
}

/// A verdict that differs when the completion is compiled alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Differing {
    /// Name of the system.
    pub system: String,
    /// The hole's crate, file, line and column.
    pub place: String,
    /// Whether the completion compiles alone.
    pub alone: bool,
}

/// Compiles up to `n` completions of a finished run alone, among those that the compiler had to judge, each text once.
/// Every project gets an equal share, as far as it has enough; within a project they are drawn by the plan's seed.
pub(crate) fn audit(run: &mut Run<'_, '_>, findings: &Findings, n: usize) -> Result<Audit, EvalError> {
    let cancel = run.cancel;
    let holes: HashMap<&str, &Hole> = findings.holes().map(|hole| (hole.id.as_str(), hole)).collect();
    let texts: HashMap<(&str, &str), &str> = findings
        .generated
        .iter()
        .filter_map(|answer| Some(((answer.system.as_str(), answer.hole_id.as_str()), answer.text.as_deref()?)))
        .collect();
    let mut seen = HashSet::new();
    let mut by_project: HashMap<&str, Vec<(&Hole, &Scored, &str)>> = HashMap::new();
    for scored in &findings.scored {
        let is_judged = scored.parse == Some(true) && !scored.degenerate && !scored.exact && !scored.timed_out;
        let hole = holes.get(scored.hole_id.as_str());
        let text = texts.get(&(scored.system.as_str(), scored.hole_id.as_str()));
        if let (true, Some(hole), Some(text)) = (is_judged, hole, text)
            && seen.insert((&hole.id, text))
        {
            by_project.entry(&hole.project).or_default().push((hole, scored, text));
        }
    }
    let mut sizes: Vec<usize> = by_project.values().map(Vec::len).collect();
    sizes.sort_unstable();
    let mut n_left = n;
    let mut share = 0;
    for (done, size) in sizes.iter().enumerate() {
        share = n_left.div_ceil(sizes.len() - done);
        // All remaining projects have at least as many, since sizes ascend.
        if *size >= share {
            break;
        }
        n_left -= size;
    }
    let total = n.min(sizes.iter().sum());
    let mut audit = Audit::default();
    for (group_idx, project) in run.projects() {
        let Some(mut judged) = by_project.remove(project.name.as_str()) else { continue };
        Rng::new(run.plan.seed).shuffle(&mut judged);
        judged.truncate(share.min(total - audit.audited - audit.timed_out));
        let spliced = |(hole, _, text): &(&Hole, &Scored, &str)| Candidate {
            file: hole.file.clone(),
            text: hole.splice(&project.texts[&hole.file], text),
        };
        let candidates: Vec<Candidate> = judged.iter().map(spliced).collect();
        let verdicts = run.checker(group_idx)?.check(&candidates, &mut |_| {}, cancel)?;
        for ((hole, scored, _), verdict) in judged.into_iter().zip(verdicts) {
            if verdict == Verdict::TimedOut {
                audit.timed_out += 1;
                continue;
            }
            let (together, alone) = (scored.compile, verdict == Verdict::Compiles);
            audit.audited += 1;
            audit.agree += usize::from(together == alone);
            audit.false_ok += usize::from(together && !alone);
            audit.false_fail += usize::from(!together && alone);
            if together != alone {
                audit.differing.push(Differing {
                    system: scored.system.clone(),
                    place: format!("{} {}:{}:{}", hole.project, hole.file, hole.line, hole.col),
                    alone,
                });
            }
        }
        run.report(Event::Audited { done: audit.audited + audit.timed_out, total });
    }
    Ok(audit)
}
