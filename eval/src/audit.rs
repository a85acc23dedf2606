//! Do verdicts that were found many at a time agree with those found one at a time?

use std::collections::HashMap;

use nanochat_engine::rng::Rng;
use serde::Serialize;

use crate::check::{Candidate, Verdict};
use crate::record::{Findings, Hole};
use crate::run::Run;
use crate::{EvalError, Event};

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Audit {
    /// Verdicts that were found again alone.
    pub audited: usize,
    /// Of these, the same.
    pub agree: usize,
    /// The file compiled in company, and does not alone.
    pub false_ok: usize,
    /// The file did not compile in company, and does alone.
    pub false_fail: usize,
    /// Where they differ.
    pub differing: Vec<Differing>,
}

/// A verdict that is another one alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Differing {
    /// The contestant's name.
    pub system: String,
    /// The hole's crate, file, line and column.
    pub place: String,
    /// Whether it compiles alone.
    pub alone: bool,
}

/// Compiles up to `n` answers of a finished run alone, drawn by the plan's seed among those that the compiler had to
/// judge.
pub(crate) fn audit(run: &mut Run<'_, '_>, findings: &Findings, n: usize) -> Result<Audit, EvalError> {
    let cancel = run.cancel;
    let holes: HashMap<&str, &Hole> = findings.holes().map(|hole| (hole.id.as_str(), hole)).collect();
    let mut judged: Vec<usize> = (0..findings.scored.len())
        .filter(|&at| {
            let scored = &findings.scored[at];
            scored.parse == Some(true) && !scored.degenerate && !scored.exact && !scored.timed_out
        })
        .collect();
    Rng::new(run.plan.seed).shuffle(&mut judged);
    judged.truncate(n);
    let mut audit = Audit::default();
    for (group_idx, project) in run.projects() {
        let (mut at, mut candidates) = (Vec::new(), Vec::new());
        for &scored_idx in &judged {
            let answer = &findings.generated[scored_idx];
            let hole = holes.get(answer.hole_id.as_str()).filter(|hole| hole.project == project.name);
            if let (Some(hole), Some(text)) = (hole, &answer.text) {
                at.push((scored_idx, *hole));
                let text = hole.splice(&project.texts[&hole.file], text);
                candidates.push(Candidate { file: hole.file.clone(), text });
            }
        }
        if candidates.is_empty() {
            continue;
        }
        let verdicts = run.checker(group_idx)?.check(&candidates, &mut |_| {}, cancel)?;
        for ((scored_idx, hole), verdict) in at.into_iter().zip(verdicts) {
            let (together, alone) = (findings.scored[scored_idx].compile, verdict == Verdict::Compiles);
            audit.audited += 1;
            audit.agree += usize::from(together == alone);
            audit.false_ok += usize::from(together && !alone);
            audit.false_fail += usize::from(!together && alone);
            if together != alone {
                audit.differing.push(Differing {
                    system: findings.scored[scored_idx].system.clone(),
                    place: format!("{} {}:{}:{}", hole.project, hole.file, hole.line, hole.col),
                    alone,
                });
            }
        }
        run.report(Event::Audited { done: audit.audited, total: judged.len() });
    }
    Ok(audit)
}
