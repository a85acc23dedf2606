//! Every system fills every hole. This stage runs no generated code and needs no compiler.
//!
//! The outer loop is over projects and the inner one over systems, so that what is known of a project is read once. A
//! system that is added to a finished run runs alone, and its completions follow those of the others.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::time::Instant;

use nanochat_engine::Cancel;
use nanochat_engine::score::Score;

use super::Run;
use crate::holes::{Hole, first_unit};
use crate::record::RecordError;
use crate::record::log::Log;
use crate::record::{Generated, Timing};
use crate::suite::{Known, Library, Project};
use crate::system::{FileText, ProjectContext, System, SystemError, Task};
use crate::{EvalError, Event};

pub(super) fn run(
    run: &mut Run<'_, '_>,
    holes: &[(&Project, Vec<Hole>)],
    systems: &mut [&mut dyn System],
) -> Result<(), EvalError> {
    let (mut log, there) = Log::open::<Generated>(&run.path("generated.jsonl"))?;
    let (mut timings, _) = Log::open::<Timing>(&run.path("timings.jsonl"))?;
    let mut n_done: HashMap<String, usize> = systems.iter().map(|system| (system.name().to_owned(), 0)).collect();
    let known_holes: HashSet<&str> = holes.iter().flat_map(|(_, holes)| holes).map(|hole| hole.id.as_str()).collect();
    if !there.iter().all(|there| n_done.contains_key(&there.system) && known_holes.contains(there.hole_id.as_str())) {
        return Err(RecordError::Foreign { path: log.path().to_path_buf(), what: "holes or systems" }.into());
    }
    let answered: HashSet<(String, String)> = there.into_iter().map(|there| (there.system, there.hole_id)).collect();
    let total = known_holes.len();
    let mut library = Library::default();
    for (project, holes) in holes {
        let mut known: Option<Known> = None;
        for system in &mut *systems {
            let name = system.name().to_owned();
            let left: Vec<&Hole> =
                holes.iter().filter(|hole| !answered.contains(&(name.clone(), hole.id.clone()))).collect();
            let done = n_done.get_mut(&name).expect("every system has an entry");
            *done += holes.len() - left.len();
            if left.is_empty() {
                continue;
            }
            let known =
                known.get_or_insert_with(|| library.known(&project.known, &project.dependencies, &project.texts));
            system.enter(&ProjectContext { texts: &project.texts, known }, run.cancel)?;
            let mut costs = Costs { project, holes, by_file: BTreeMap::new() };
            for hole in left {
                run.cancel.check()?;
                let task = Task::of(hole, &project.texts[&hole.file]);
                let start = Instant::now();
                let completion = system.complete(&task, run.cancel)?;
                let latency_ms = 1000.0 * start.elapsed().as_secs_f64();
                let cost = costs.of(hole, &mut **system, run.cancel)?;
                timings.append(&Timing { hole_id: hole.id.clone(), system: name.clone(), latency_ms })?;
                log.append(&Generated {
                    hole_id: hole.id.clone(),
                    system: name.clone(),
                    text: completion.text.map(|text| first_unit(hole.kind, &text).to_owned()),
                    tokens: completion.tokens,
                    confidence: completion.confidence,
                    bits: cost.map(|cost| cost.bits),
                    bytes: cost.map(|cost| cost.bytes),
                })?;
                *done += 1;
                (run.events)(Event::Filled { system: name.clone(), done: *done, total });
            }
        }
    }
    Ok(())
}

/// Bits that the truths of a project cost one system, computed for all holes of a file at once.
struct Costs<'a> {
    project: &'a Project,
    holes: &'a [Hole],
    by_file: BTreeMap<&'a str, Option<HashMap<&'a str, Score>>>,
}

impl<'a> Costs<'a> {
    fn of(&mut self, hole: &'a Hole, system: &mut dyn System, cancel: &Cancel) -> Result<Option<Score>, SystemError> {
        let file = hole.file.as_str();
        if !self.by_file.contains_key(file) {
            let of_file: Vec<&Hole> = self.holes.iter().filter(|hole| hole.file == file).collect();
            let ranges: Vec<Range<usize>> = of_file.iter().map(|hole| hole.start..hole.end).collect();
            let text = FileText { file, text: &self.project.texts[file], holes: &ranges };
            let scores = system.costs(&text, cancel)?;
            let by_hole = |scores: Vec<Score>| of_file.iter().map(|hole| hole.id.as_str()).zip(scores).collect();
            self.by_file.insert(file, scores.map(by_hole));
        }
        Ok(self.by_file[file].as_ref().and_then(|scores| scores.get(hole.id.as_str()).copied()))
    }
}
