//! One evaluation, from a suite to the records that a report is made from.
//!
//! ```text
//! filter: cut → order → truth, garbage, nothing → holes     gates.jsonl
//! generate: every system fills every hole                   generated.jsonl, timings.jsonl
//! score: degenerate → grammar → compiler                    scored.jsonl, costs.jsonl
//! ```
//!
//! Each stage appends to its file and continues where that ends, so a killed run ends with the same bytes. Only
//! `timings.jsonl` and `costs.jsonl` differ between two runs of one plan.

mod filters;
mod generate;
mod degenerate;
mod score;
mod audit;
mod merge;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use nanochat_engine::Cancel;
use nanochat_engine::checkpoint::Fingerprint;

use crate::check::{CheckError, CheckOptions, Checker, path_dependencies};
use crate::holes::hole::short_hash;
use crate::record::{Filtered, Findings, Generated, Scored, Timing};
use crate::record::{RecordError, log};
use crate::sandbox::{Mode, hash_of_copy};
use crate::suite::Knowledge;
use crate::suite::{Group, Project, Shard, Suite};
use crate::system::System;
use crate::{EvalError, Event};

pub use audit::{Audit, Differing};
pub use merge::merge;

/// Compilers at once: each takes up to a gigabyte and a copy of the tree.
const MAX_WORKERS: usize = 8;

/// What to evaluate, where, and under which limits.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The projects to evaluate on.
    pub suite: &'a Suite,
    /// Folder of the records; each run needs its own.
    pub folder: &'a Path,
    /// Seed of the draw of holes.
    pub seed: u64,
    /// Restricts the run to part of the projects.
    pub shard: Option<Shard>,
    /// Number of parallel compilers; 0 is one per core.
    pub n_workers: usize,
    /// Time limit of one compiler run in seconds.
    pub timeout_s: f64,
    /// Time limit of the first build of the suite in seconds.
    pub build_timeout_s: f64,
    /// Whether cargo is told `--offline`. (It is run in any case: checking executes what the suite configures.)
    pub offline: bool,
    /// Whether files that ignore files exclude are copied for checking.
    pub with_ignored: bool,
    /// The confinement that is required; with less, the run ends before anything is executed.
    pub sandbox: Mode,
    /// Identifies the systems, e.g. by the checkpoint's hash: a run does not continue the records of others.
    pub label: &'a str,
    /// Fingerprint of the text that the checkpoint was trained on.
    pub trained_on: Option<&'a Fingerprint>,
    /// Folder for what the next run can reuse: built dependencies, and which holes pass the filters.
    pub cache: Option<&'a Path>,
}

/// `run.json`: the plan that the records of a folder belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// Grows when a record changes its meaning.
    format: u32,
    suite: String,
    seed: u64,
    shard: Option<Shard>,
    /// All projects of the suite, in order.
    projects: Vec<String>,
    /// What systems may know in addition to the current file.
    known: Knowledge,
    /// Hash of the texts that holes are cut from, what may be known, path dependencies outside the root, and what the
    /// checkpoint was trained on.
    content: String,
}

/// `machine.json`: the compiler and the sandbox of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Machine {
    rustc: String,
    sandbox: String,
}

const FORMAT: u32 = 2;

/// As [`evaluate`], and then compiles up to `n` completions again, each alone: see [`Audit`].
pub fn evaluate_and_audit(
    plan: &Plan<'_>,
    systems: &mut [&mut dyn System],
    n: usize,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
) -> Result<(Findings, Audit), EvalError> {
    let mut run = Run::open(plan, events, cancel)?;
    let findings = stages(&mut run, systems)?;
    let audit = audit::audit(&mut run, &findings, n)?;
    Ok((findings, audit))
}

/// Runs what is left of the plan: the systems fill every hole of the suite, and the compiler judges. Tables show the
/// systems in this order. A system named `truth` must score 100 % and one named `empty` 0 %, or the run is invalid.
pub fn evaluate(
    plan: &Plan<'_>,
    systems: &mut [&mut dyn System],
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
) -> Result<Findings, EvalError> {
    stages(&mut Run::open(plan, events, cancel)?, systems)
}

fn stages(run: &mut Run<'_, '_>, systems: &mut [&mut dyn System]) -> Result<Findings, EvalError> {
    let holes = filters::run(run)?;
    if run.plan.shard.is_none() && holes.iter().all(|(_, holes)| holes.is_empty()) {
        return Err(EvalError::NoHoles);
    }
    generate::run(run, &holes, systems)?;
    let names: Vec<String> = systems.iter().map(|system| system.name().to_owned()).collect();
    score::run(run, &holes, &names)?;
    Findings::load(run.plan.folder)
}

/// Keeps other runs out of a folder. The operating system frees it when the process ends, however it ends.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a command that is being started has it open too, until it runs its program.
        let _ = self.0.unlock();
    }
}

/// A run in progress.
pub(crate) struct Run<'a, 'e> {
    pub(crate) plan: &'a Plan<'a>,
    events: &'e mut dyn FnMut(Event),
    pub(crate) cancel: &'e Cancel,
    /// One per group, created when first needed: a finished stage needs none.
    checkers: Vec<Option<Checker>>,
    /// Two runs would write into each other's records.
    _lock: Lock,
}

impl<'a, 'e> Run<'a, 'e> {
    fn open(plan: &'a Plan<'a>, events: &'e mut dyn FnMut(Event), cancel: &'e Cancel) -> Result<Self, EvalError> {
        for seconds in [plan.timeout_s, plan.build_timeout_s] {
            Duration::try_from_secs_f64(seconds).map_err(|_| EvalError::Timeout { seconds })?;
        }
        cancel.check()?;
        let failed = |source| RecordError::Io { path: plan.folder.to_path_buf(), source };
        std::fs::create_dir_all(plan.folder).map_err(failed)?;
        let lock = Lock(File::create(plan.folder.join("lock")).map_err(failed)?);
        lock.0.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => RecordError::Busy { path: plan.folder.to_path_buf() },
            TryLockError::Error(source) => failed(source),
        })?;
        let header = Header {
            format: FORMAT,
            suite: plan.suite.name.clone(),
            seed: plan.seed,
            shard: plan.shard,
            projects: plan.suite.projects().map(|(_, project)| project.name.clone()).collect(),
            known: plan.suite.knowledge,
            content: content(plan)?,
        };
        settle(plan.folder, "run.json", &header, |there: &Header| match () {
            () if there.suite != header.suite => "suites",
            () if there.seed != header.seed => "seeds",
            () if there.shard != header.shard => "shards",
            () if there.known != header.known => "what is known",
            () => "sources, versions, numbers of holes or checkpoints",
        })?;
        let checkers = plan.suite.groups.iter().map(|_| None).collect();
        Ok(Self { plan, events, cancel, checkers, _lock: lock })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.plan.folder.join(name)
    }

    /// The projects of this shard, each with the index of its group.
    pub(crate) fn projects(&self) -> Vec<(usize, &'a Project)> {
        let suite = self.plan.suite;
        let all = suite.groups.iter().enumerate();
        let all = all.flat_map(|(group_idx, group)| group.projects.iter().map(move |project| (group_idx, project)));
        let chosen = all.enumerate().filter(|(at, _)| suite.has(*at, self.plan.shard));
        chosen.map(|(_, project)| project).collect()
    }

    pub(crate) fn report(&mut self, event: Event) {
        (self.events)(event);
    }

    pub(crate) fn checker(&mut self, group_idx: usize) -> Result<&Checker, EvalError> {
        if self.checkers[group_idx].is_none() {
            let group = &self.plan.suite.groups[group_idx];
            let checker = self.build(group)?;
            let machine = Machine { rustc: checker.rustc().to_owned(), sandbox: checker.sandbox().level().to_string() };
            settle(self.plan.folder, "machine.json", &machine, |there: &Machine| {
                if there.rustc == machine.rustc { "sandbox levels" } else { "compilers" }
            })?;
            self.checkers[group_idx] = Some(checker);
        }
        Ok(self.checkers[group_idx].as_ref().expect("it was made above if it was missing"))
    }

    fn build(&mut self, group: &Group) -> Result<Checker, CheckError> {
        (self.events)(Event::Building { packages: group.sources.members().count() });
        let n_cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let n_workers = if self.plan.n_workers == 0 { n_cores } else { self.plan.n_workers };
        let options = CheckOptions {
            timeout: Duration::from_secs_f64(self.plan.timeout_s),
            build_timeout: Duration::from_secs_f64(self.plan.build_timeout_s),
            keep_going: group.keep_going,
            offline: self.plan.offline,
            n_workers: n_workers.min(MAX_WORKERS),
            with_ignored: self.plan.with_ignored,
            linked: group.projects.iter().any(|project| project.tests),
            through_cargo: false,
            sandbox: self.plan.sandbox,
            cache: self.plan.cache.map(Path::to_path_buf),
        };
        Checker::new(&group.sources, &group.files(), options, self.cancel)
    }
}

impl Findings {
    /// Reads the records in a run's folder, finished or not.
    pub fn load(folder: &Path) -> Result<Self, EvalError> {
        let header: Header = read_json(folder, "run.json")?;
        let machine: Option<Machine> = read_json(folder, "machine.json").ok();
        let mut findings = Self {
            suite: header.suite,
            seed: header.seed,
            rustc: machine.as_ref().map_or_else(String::new, |machine| machine.rustc.clone()),
            sandbox: machine.map_or_else(String::new, |machine| machine.sandbox),
            known: header.known,
            ..Self::default()
        };
        for line in log::read::<Filtered>(&folder.join("gates.jsonl"))? {
            match line {
                Filtered::Hole { hole, outcome } => findings.filtered.push((hole, outcome)),
                Filtered::Project(project) => findings.projects.push(project),
            }
        }
        findings.generated = log::read::<Generated>(&folder.join("generated.jsonl"))?;
        findings.timings = log::read::<Timing>(&folder.join("timings.jsonl"))?;
        findings.scored = log::read::<Scored>(&folder.join("scored.jsonl"))?;
        for record in &findings.generated {
            if !findings.systems.contains(&record.system) {
                findings.systems.push(record.system.clone());
            }
        }
        Ok(findings)
    }
}

fn content(plan: &Plan<'_>) -> Result<String, CheckError> {
    let mut parts: Vec<String> = Vec::new();
    for (_, project) in plan.suite.projects() {
        parts.extend([project.name.clone(), project.version.clone(), project.max_holes.to_string()]);
        parts.extend(project.texts.iter().flat_map(|(name, text)| [name.clone(), text.clone()]));
        parts.extend(project.known.iter().flat_map(|file| [file.name.clone(), file.text.clone()]));
        // A registry does not change what it has under a name and a version.
        parts.extend(project.dependencies.iter().flat_map(|package| [package.name.clone(), package.version.clone()]));
    }
    // Path dependencies do change, and are compiled whether they may be known or not.
    for package in plan.suite.groups.iter().flat_map(|group| path_dependencies(&group.sources)) {
        let copied = hash_of_copy(&package.folder, plan.with_ignored)?;
        parts.extend([package.name.clone(), package.version.clone(), copied]);
    }
    parts.extend(plan.trained_on.map(Fingerprint::hash));
    parts.push(plan.label.to_owned());
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Ok(short_hash(&parts))
}

/// Writes a small file, or compares the value with what the file has already.
fn settle<T: Serialize + for<'de> Deserialize<'de> + PartialEq>(
    folder: &Path,
    name: &str,
    value: &T,
    differs: impl FnOnce(&T) -> &'static str,
) -> Result<(), EvalError> {
    let path = folder.join(name);
    if path.exists() {
        let there: T = read_json(folder, name)?;
        if there == *value {
            return Ok(());
        }
        return Err(RecordError::Foreign { path: folder.to_path_buf(), what: differs(&there) }.into());
    }
    write_json(&path, value)
}

/// Writes atomically: a killed run leaves the old file or the new one.
fn write_json(path: &Path, value: &impl Serialize) -> Result<(), EvalError> {
    let failed = |source| RecordError::Io { path: path.to_path_buf(), source };
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    let new = path.with_extension("new");
    std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path)).map_err(failed)?;
    Ok(())
}

fn read_json<T: for<'de> Deserialize<'de>>(folder: &Path, name: &str) -> Result<T, RecordError> {
    let path = folder.join(name);
    let bytes = std::fs::read(&path).map_err(|source| RecordError::Io { path: path.clone(), source })?;
    serde_json::from_slice(&bytes).map_err(|error| RecordError::Record {
        path,
        line: error.line(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
