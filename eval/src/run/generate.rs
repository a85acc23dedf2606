//! Every contestant fills every hole. Runs no generated code and needs no compiler.
//!
//! Projects come one after the other, and in each the contestants, so that what is known of a project is read once. A
//! contestant that is added to a finished run is asked alone, and its answers stand after those of the others.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::time::Instant;

use nanochat_engine::Cancel;
use nanochat_engine::score::Score;

use super::Run;
use crate::contestant::{Contestant, FileText, FillError, Scene, Task};
use crate::known::{Known, Library};
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
    let mut n_done: HashMap<String, usize> =
        contestants.iter().map(|contestant| (contestant.name().to_owned(), 0)).collect();
    let known_holes: HashSet<&str> = holes.iter().flat_map(|(_, holes)| holes).map(|hole| hole.id.as_str()).collect();
    if !there.iter().all(|there| n_done.contains_key(&there.system) && known_holes.contains(there.hole_id.as_str())) {
        return Err(StageError::Foreign { path: log.path().to_path_buf(), what: "holes or systems" }.into());
    }
    let answered: HashSet<(String, String)> = there.into_iter().map(|there| (there.system, there.hole_id)).collect();
    let total = known_holes.len();
    let mut library = Library::default();
    for (project, holes) in holes {
        let mut known: Option<Known> = None;
        for contestant in &mut *contestants {
            let system = contestant.name().to_owned();
            let left: Vec<&Hole> =
                holes.iter().filter(|hole| !answered.contains(&(system.clone(), hole.id.clone()))).collect();
            let done = n_done.get_mut(&system).expect("every contestant has a number");
            *done += holes.len() - left.len();
            if left.is_empty() {
                continue;
            }
            let known =
                known.get_or_insert_with(|| library.known(&project.known, &project.dependencies, &project.texts));
            contestant.enter(&Scene { texts: &project.texts, known }, run.cancel)?;
            let mut costs = Costs { project, holes, by_file: BTreeMap::new() };
            for hole in left {
                run.cancel.check()?;
                let task = Task::of(hole, &project.texts[&hole.file]);
                let start = Instant::now();
                let answer = contestant.fill(&task, run.cancel)?;
                let latency_ms = 1000.0 * start.elapsed().as_secs_f64();
                let cost = costs.of(hole, &mut **contestant, run.cancel)?;
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
                *done += 1;
                (run.events)(Event::Filled { system: system.clone(), done: *done, total });
            }
        }
    }
    Ok(())
}

/// What the truths of a project cost one contestant, asked for all holes of a file at once.
struct Costs<'a> {
    project: &'a Project,
    holes: &'a [Hole],
    by_file: BTreeMap<&'a str, Option<HashMap<&'a str, Score>>>,
}

impl<'a> Costs<'a> {
    fn of(
        &mut self,
        hole: &'a Hole,
        contestant: &mut dyn Contestant,
        cancel: &Cancel,
    ) -> Result<Option<Score>, FillError> {
        let file = hole.file.as_str();
        if !self.by_file.contains_key(file) {
            let of_file: Vec<&Hole> = self.holes.iter().filter(|hole| hole.file == file).collect();
            let ranges: Vec<Range<usize>> = of_file.iter().map(|hole| hole.start..hole.end).collect();
            let text = FileText { file, text: &self.project.texts[file], holes: &ranges };
            let scores = contestant.costs(&text, cancel)?;
            let by_hole = |scores: Vec<Score>| of_file.iter().map(|hole| hole.id.as_str()).zip(scores).collect();
            self.by_file.insert(file, scores.map(by_hole));
        }
        Ok(self.by_file[file].as_ref().and_then(|scores| scores.get(hole.id.as_str()).copied()))
    }
}
