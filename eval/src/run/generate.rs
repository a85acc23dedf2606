//! Every contestant fills every hole. Runs no generated code and needs no compiler.

use std::time::Instant;

use super::Run;
use crate::contestant::{Contestant, Scene, Task};
use crate::record::{Generated, Hole, Timing};
use crate::stage::{Log, StageError};
use crate::suite::Project;
use crate::{EvalError, Event, unit};

pub(super) fn run(
    run: &mut Run<'_, '_>,
    holes: &[(&Project, Vec<Hole>)],
    contestants: &mut [&mut dyn Contestant],
) -> Result<(), EvalError> {
    let (mut log, there) = Log::open::<Generated>(&run.path("generated.jsonl"))?;
    let (mut timings, _) = Log::open::<Timing>(&run.path("timings.jsonl"))?;
    let foreign = |log: &Log| StageError::Foreign { path: log.path().to_path_buf(), what: "holes or systems" };
    let total: usize = holes.iter().map(|(_, holes)| holes.len()).sum();
    let mut at = 0;
    for contestant in contestants {
        let system = contestant.name().to_owned();
        let mut done = 0;
        for (project, holes) in holes {
            let n_there = there.len().saturating_sub(at).min(holes.len());
            let known = &there[at.min(there.len())..][..n_there];
            if !known.iter().zip(holes).all(|(record, hole)| record.hole_id == hole.id && record.system == system) {
                return Err(foreign(&log).into());
            }
            at += holes.len();
            done += n_there;
            if n_there == holes.len() {
                continue;
            }
            let scene = Scene { project: &project.name, texts: &project.texts, known: &project.known };
            contestant.enter(&scene, run.cancel)?;
            for hole in &holes[n_there..] {
                run.cancel.check()?;
                let text = &project.texts[&hole.file];
                let task = Task::of(hole, text);
                let start = Instant::now();
                let answer = contestant.fill(&task, run.cancel)?;
                let latency_ms = 1000.0 * start.elapsed().as_secs_f64();
                let cost = contestant.cost(&task, hole.truth(text), run.cancel)?;
                timings.append(&Timing { hole_id: hole.id.clone(), system: system.clone(), latency_ms })?;
                log.append(&Generated {
                    hole_id: hole.id.clone(),
                    system: system.clone(),
                    text: answer.text.map(|text| unit::first(hole.kind, &text).to_owned()),
                    tokens: answer.tokens,
                    confidence: answer.confidence,
                    bits: cost.map(|cost| cost.bits),
                    bytes: cost.map(|cost| cost.bytes),
                })?;
                done += 1;
                (run.events)(Event::Filled { system: system.clone(), done, total });
            }
        }
    }
    if there.len() > at { Err(foreign(&log).into()) } else { Ok(()) }
}
