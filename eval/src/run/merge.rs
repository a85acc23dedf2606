//! Merges the shards of a run: the result has the same bytes as an unsharded run, except for timings.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Header, Machine, read_json, settle, write_json};
use crate::EvalError;
use crate::record::RecordError;
use crate::record::log::{self, Log};
use crate::record::{FilterOutcome, Filtered, Findings, Generated, Scored, Timing};

/// Merges finished shards, given by their folders in any order, into `out`, a folder of its own.
pub fn merge(shards: &[PathBuf], out: &Path) -> Result<Findings, EvalError> {
    let bad = |why: String| EvalError::from(RecordError::Shards { why });
    let mut by_index: BTreeMap<usize, (&Path, Header)> = BTreeMap::new();
    let mut count = 0;
    for folder in shards {
        let header: Header = read_json(folder, "run.json")?;
        let shard = header.shard.ok_or_else(|| bad(format!("{} is a whole run", folder.display())))?;
        if let Some((_, first)) = by_index.values().next()
            && (Header { shard: None, ..first.clone() } != Header { shard: None, ..header.clone() }
                || shard.count != count)
        {
            return Err(bad(format!("{} is of another run", folder.display())));
        }
        count = shard.count;
        if by_index.insert(shard.index, (folder, header)).is_some() {
            return Err(bad(format!("shard {} is there twice", shard.index + 1)));
        }
    }
    if let Some(missing) = (0..count).find(|index| !by_index.contains_key(index)) {
        return Err(bad(format!("shard {} of {count} is missing", missing + 1)));
    }
    let Some((first, header)) = by_index.get(&0) else { return Err(bad("there are none".to_owned())) };
    let failed = |source| RecordError::Io { path: out.to_path_buf(), source };
    std::fs::create_dir_all(out).map_err(failed)?;
    let header = Header { shard: None, ..header.clone() };
    settle(out, "run.json", &header, |_: &Header| "shards")?;
    let machine: Machine = read_json(first, "machine.json")?;
    write_json(&out.join("machine.json"), &machine)?;

    let folders: Vec<&Path> = by_index.values().map(|(folder, _)| *folder).collect();
    let mut projects: HashMap<String, Vec<Filtered>> = HashMap::new();
    for folder in &folders {
        let mut lines = Vec::new();
        for line in log::read::<Filtered>(&folder.join("gates.jsonl"))? {
            let closes = match &line {
                Filtered::Project(project) => Some(project.name.clone()),
                Filtered::Hole { .. } => None,
            };
            lines.push(line);
            if let Some(name) = closes {
                projects.insert(name, std::mem::take(&mut lines));
            }
        }
    }
    let mut filtered = Vec::new();
    for name in &header.projects {
        filtered
            .extend(projects.remove(name).ok_or_else(|| bad(format!("no shard has filtered the holes of {name}")))?);
    }
    let passed = filtered.iter().filter_map(|line| match line {
        Filtered::Hole { hole, outcome: FilterOutcome::Passed } => Some(hole),
        _ => None,
    });
    let project_idx = |name: &str| header.projects.iter().position(|project| project == name);
    let order: HashMap<&str, (Option<usize>, usize)> =
        passed.enumerate().map(|(at, hole)| (hole.id.as_str(), (project_idx(&hole.project), at))).collect();
    let mut systems: Vec<String> = Vec::new();
    let generated: Vec<Generated> = gather(&folders, "generated.jsonl")?;
    for record in &generated {
        if !systems.contains(&record.system) {
            systems.push(record.system.clone());
        }
    }
    let key = |system: &str, hole_id: &str| {
        let (project_idx, at) = order.get(hole_id)?;
        Some(((*project_idx)?, systems.iter().position(|known| known == system)?, *at))
    };
    write_all(&out.join("gates.jsonl"), &filtered)?;
    let generated = sorted(generated, |record| key(&record.system, &record.hole_id));
    let scored = sorted(gather::<Scored>(&folders, "scored.jsonl")?, |record| key(&record.system, &record.hole_id));
    let expected = systems.len() * order.len();
    for (what, n) in [("completions", generated.len()), ("scores", scored.len())] {
        if n != expected {
            return Err(bad(format!("they have {n} {what} where {expected} are needed; let each shard finish")));
        }
    }
    write_all(&out.join("generated.jsonl"), &generated)?;
    write_all(&out.join("scored.jsonl"), &scored)?;
    write_all(&out.join("timings.jsonl"), &gather::<Timing>(&folders, "timings.jsonl")?)?;
    Findings::load(out)
}

fn gather<T: DeserializeOwned>(folders: &[&Path], name: &str) -> Result<Vec<T>, RecordError> {
    let mut records = Vec::new();
    for folder in folders {
        records.extend(log::read(&folder.join(name))?);
    }
    Ok(records)
}

/// Sorts by project, system and hole, as a run writes them.
fn sorted<T>(records: Vec<T>, key: impl Fn(&T) -> Option<(usize, usize, usize)>) -> Vec<T> {
    let mut keyed: Vec<_> = records.into_iter().filter_map(|record| Some((key(&record)?, record))).collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, record)| record).collect()
}

/// Replaces the file if it exists.
fn write_all<T: Serialize + DeserializeOwned>(path: &Path, records: &[T]) -> Result<(), RecordError> {
    if path.exists() {
        std::fs::remove_file(path).map_err(|source| RecordError::Io { path: path.to_path_buf(), source })?;
    }
    let (mut log, _) = Log::open::<T>(path)?;
    log.append_all(records)
}
