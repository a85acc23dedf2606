//! Computes a report from the records of a run.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    Cluster, Coverage, CoveragePoint, Difference, Dropped, FORMAT, LatencyCurve, Outcomes, Pairs, Reliability,
    ReliabilityBin, Report, SkippedCrate, SkippedFiles, SystemScores, Timings,
};
use crate::holes::{Hole, HoleKind};
use crate::record::{FilterOutcome, Findings, Generated, Scored};
use crate::stats::{self, McNemar, Value};
use crate::system::PRODUCT;

/// Points of the coverage curve, and bins of the reliability diagram.
const N_STEPS: usize = 10;
/// Points of a latency curve: every 5 %.
const N_LATENCIES: usize = 21;
/// Systems whose scores are fixed by rule, so that a gain over them means nothing.
const CONTROLS: [&str; 2] = ["truth", "empty"];

impl Report {
    /// Computes all figures of a run. The order of records does not matter.
    pub fn of(findings: &Findings) -> Self {
        let results = Results::of(findings);
        let systems = &findings.systems;
        let mut dropped = Dropped::default();
        for (_, outcome) in &findings.filtered {
            match outcome {
                FilterOutcome::Passed => {}
                FilterOutcome::TruthDegenerate => dropped.truth_degenerate += 1,
                FilterOutcome::TruthFails => dropped.truth_fails += 1,
                FilterOutcome::CanaryCompiles => dropped.canary_compiles += 1,
                FilterOutcome::EmptyCompiles => dropped.empty_compiles += 1,
                FilterOutcome::Leaks => dropped.leaks += 1,
            }
        }
        let projects = &findings.projects;
        let n_distinct = |name: fn(&Hole) -> (&str, &str)| {
            results.holes.iter().map(|hole| name(hole)).collect::<BTreeSet<_>>().len()
        };
        Self {
            format: FORMAT,
            suite: findings.suite.clone(),
            seed: findings.seed,
            rustc: findings.rustc.clone(),
            sandbox: findings.sandbox.clone(),
            known: findings.known,
            holes: results.holes.len(),
            files: n_distinct(|hole| (&hole.project, &hole.file)),
            crates: n_distinct(|hole| (&hole.project, "")),
            clusters: results.cluster,
            cut: projects.iter().map(|project| project.n_cut).sum(),
            tried: findings.filtered.len(),
            dropped,
            skipped_files: SkippedFiles {
                not_compiled: projects.iter().map(|project| project.files_not_compiled).sum(),
                not_parsed: projects.iter().map(|project| project.files_not_parsed).sum(),
            },
            skipped_crates: projects
                .iter()
                .filter_map(|project| {
                    let (name, version) = (project.name.clone(), project.version.clone());
                    project.skipped.clone().map(|why| SkippedCrate { name, version, why })
                })
                .collect(),
            systems: systems
                .iter()
                .flat_map(|name| results.kinds.iter().map(|kind| results.system(name, *kind)).collect::<Vec<_>>())
                .collect(),
            differences: results.differences(systems),
            coverage: systems.iter().filter_map(|name| results.coverage(name)).collect(),
            reliability: systems.iter().filter_map(|name| results.reliability(name)).collect(),
            timings: systems
                .iter()
                .flat_map(|name| {
                    results.kinds.iter().filter_map(|kind| results.timings(name, *kind)).collect::<Vec<_>>()
                })
                .collect(),
            latency_curves: systems.iter().filter_map(|name| results.latency_curve(name)).collect(),
            pairs: results.pairs(systems),
        }
    }
}

/// The result of one system on one hole.
#[derive(Clone, Copy)]
struct HoleResult<'a> {
    hole: &'a Hole,
    cluster: &'a str,
    scored: &'a Scored,
    generated: Option<&'a Generated>,
    latency_ms: Option<f64>,
}

struct Results<'a> {
    seed: u64,
    cluster: Cluster,
    holes: Vec<&'a Hole>,
    /// `None` for all kinds together, then the kinds that occur.
    kinds: Vec<Option<HoleKind>>,
    /// By system, in the order of `holes`; `None` where it was not asked.
    by_system: BTreeMap<&'a str, Vec<Option<HoleResult<'a>>>>,
}

impl<'a> Results<'a> {
    fn of(findings: &'a Findings) -> Self {
        let mut holes: Vec<&Hole> = findings.holes().collect();
        holes.sort_by_key(|hole| (&hole.project, &hole.file, hole.start, hole.end, hole.kind, &hole.id));
        let n_crates = holes.iter().map(|hole| &hole.project).collect::<BTreeSet<_>>().len();
        let cluster = if n_crates > 1 { Cluster::Crate } else { Cluster::File };
        let mut kinds: Vec<Option<HoleKind>> = holes.iter().map(|hole| Some(hole.kind)).chain([None]).collect();
        kinds.sort_unstable();
        kinds.dedup();

        let key = |system: &'a str, id: &'a str| (system, id);
        let scored: HashMap<_, _> =
            findings.scored.iter().map(|scored| (key(&scored.system, &scored.hole_id), scored)).collect();
        let generated: HashMap<_, _> = findings
            .generated
            .iter()
            .map(|generated| (key(&generated.system, &generated.hole_id), generated))
            .collect();
        let latencies: HashMap<_, _> =
            findings.timings.iter().map(|timing| (key(&timing.system, &timing.hole_id), timing.latency_ms)).collect();
        let of_system = |system: &'a str| {
            let result = |hole: &&'a Hole| {
                let key = (system, hole.id.as_str());
                let cluster = match cluster {
                    Cluster::Crate => hole.project.as_str(),
                    Cluster::File => hole.file.as_str(),
                };
                let (generated, latency_ms) = (generated.get(&key).copied(), latencies.get(&key).copied());
                Some(HoleResult { hole, cluster, scored: scored.get(&key)?, generated, latency_ms })
            };
            (system, holes.iter().map(result).collect())
        };
        let by_system = findings.systems.iter().map(|system| of_system(system)).collect();
        Self { seed: findings.seed, cluster, holes, kinds, by_system }
    }

    fn results(&self, system: &str, kind: Option<HoleKind>) -> impl Iterator<Item = HoleResult<'a>> + Clone {
        let all = self.by_system.get(system).map(Vec::as_slice).unwrap_or_default();
        all.iter().flatten().copied().filter(move |result| kind.is_none_or(|kind| result.hole.kind == kind))
    }

    /// The mean of a figure over the results that have it; `None` if none has.
    fn mean<'b>(
        &self,
        results: impl Iterator<Item = HoleResult<'b>>,
        figure: fn(&Scored) -> Option<f64>,
    ) -> Option<Value> {
        let observations: Vec<_> =
            results.filter_map(|result| Some((result.cluster, figure(result.scored)?))).collect();
        (!observations.is_empty()).then(|| stats::mean(&observations, self.seed))
    }

    fn system(&self, name: &str, kind: Option<HoleKind>) -> SystemScores {
        let results = || self.results(name, kind);
        let mean = |figure| self.mean(results(), figure).unwrap_or_default();
        let bits: Vec<_> =
            results().filter_map(|result| bits(&result).map(|(bits, bytes)| (result.cluster, bits, bytes))).collect();
        let saved: Vec<_> = results()
            .map(|result| (result.cluster, result.scored.saved_chars as f64, result.scored.truth_chars as f64))
            .collect();
        SystemScores {
            name: name.to_owned(),
            kind,
            n: results().count(),
            compile_success: mean(|scored| Some(share(scored.compile))),
            exact_match: mean(|scored| Some(share(scored.exact))),
            edit_similarity: mean(|scored| Some(scored.edit_similarity)),
            bits_per_byte: (!bits.is_empty()).then(|| stats::ratio(&bits, self.seed)),
            characters_saved: stats::ratio(&saved, self.seed),
            answered: mean(|scored| Some(share(scored.answered))),
            parse_rate: mean(|scored| scored.parse.map(share)),
            tests_pass: self.mean(results(), |scored| scored.tests_pass.map(share)),
            degenerate: results().filter(|result| result.scored.degenerate).count(),
            timed_out: results().filter(|result| result.scored.timed_out).count(),
        }
    }

    fn differences(&self, systems: &[String]) -> Vec<Difference> {
        let mut names: Vec<&str> =
            systems.iter().map(String::as_str).filter(|name| !CONTROLS.contains(name) && *name != PRODUCT).collect();
        names.extend(systems.iter().map(String::as_str).find(|name| *name == PRODUCT));
        let of_pair = |(system, other): (&str, &str)| {
            self.kinds.iter().map(|kind| self.difference(system, other, *kind)).collect::<Vec<_>>()
        };
        let pairs = (0..names.len()).rev().flat_map(|at| names[..at].iter().map(move |other| (at, *other)));
        pairs.flat_map(|(at, other)| of_pair((names[at], other))).collect()
    }

    fn difference(&self, system: &str, baseline: &str, kind: Option<HoleKind>) -> Difference {
        let both = self.by_system[system].iter().zip(&self.by_system[baseline]);
        let pairs: Vec<(HoleResult<'_>, HoleResult<'_>)> = both
            .filter_map(|(a, b)| Some((*a.as_ref()?, *b.as_ref()?)))
            .filter(|(a, _)| kind.is_none_or(|kind| a.hole.kind == kind))
            .collect();
        let paired = |figure: fn(&Scored) -> f64| {
            let differences: Vec<_> =
                pairs.iter().map(|(a, b)| (a.cluster, figure(a.scored) - figure(b.scored))).collect();
            stats::difference(&differences, self.seed)
        };
        // The same truths, and so the same bytes.
        let bits: Vec<_> = pairs
            .iter()
            .filter_map(|(a, b)| {
                let ((ours, bytes), (theirs, _)) = (bits(a)?, bits(b)?);
                Some((a.cluster, ours - theirs, bytes))
            })
            .collect();
        let saved: Vec<_> = pairs
            .iter()
            .map(|(a, b)| {
                let gained = a.scored.saved_chars as f64 - b.scored.saved_chars as f64;
                (a.cluster, gained, a.scored.truth_chars as f64)
            })
            .collect();
        Difference {
            system: system.to_owned(),
            baseline: baseline.to_owned(),
            kind,
            n: pairs.len(),
            compile_success: paired(|scored| share(scored.compile)),
            exact_match: paired(|scored| share(scored.exact)),
            edit_similarity: paired(|scored| scored.edit_similarity),
            bits_per_byte: (!bits.is_empty()).then(|| stats::ratio(&bits, self.seed)),
            characters_saved: stats::ratio(&saved, self.seed),
            mcnemar: McNemar::of(pairs.iter().map(|(a, b)| (a.scored.compile, b.scored.compile))),
        }
    }

    /// Completions with a confidence, the most confident first.
    fn by_confidence(&self, system: &str) -> Vec<(f64, HoleResult<'a>)> {
        let sure =
            |result: HoleResult<'a>| Some((result.scored.confidence.filter(|_| result.scored.answered)?, result));
        let mut results: Vec<_> = self.results(system, None).filter_map(sure).collect();
        results.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.hole.id.cmp(&b.1.hole.id)));
        results
    }

    fn coverage(&self, system: &str) -> Option<Coverage> {
        let (results, n) = (self.by_confidence(system), self.results(system, None).count());
        let point = |step: usize| {
            let n_answered = (n * step).div_ceil(N_STEPS);
            let chosen = results.get(..n_answered)?;
            let of = |figure| self.mean(chosen.iter().map(|(_, result)| *result), figure).unwrap_or_default();
            Some(CoveragePoint {
                coverage: n_answered as f64 / n as f64,
                confidence: chosen.last()?.0,
                compile_success: of(|scored| Some(share(scored.compile))),
                exact_match: of(|scored| Some(share(scored.exact))),
            })
        };
        let points: Vec<_> = (1..=N_STEPS).map_while(point).collect();
        (!points.is_empty()).then(|| Coverage { system: system.to_owned(), points })
    }

    fn reliability(&self, system: &str) -> Option<Reliability> {
        let mut results = self.by_confidence(system);
        results.reverse();
        let n = results.len();
        let bin = |i: usize| {
            let chosen = &results[n * i / N_STEPS..n * (i + 1) / N_STEPS];
            let of = |figure| self.mean(chosen.iter().map(|(_, result)| *result), figure).unwrap_or_default();
            ReliabilityBin {
                n: chosen.len(),
                confidence: chosen.iter().map(|(confidence, _)| confidence).sum::<f64>() / chosen.len() as f64,
                compile_success: of(|scored| Some(share(scored.compile))),
                exact_match: of(|scored| Some(share(scored.exact))),
            }
        };
        (n >= N_STEPS).then(|| Reliability { system: system.to_owned(), bins: (0..N_STEPS).map(bin).collect() })
    }

    fn timings(&self, system: &str, kind: Option<HoleKind>) -> Option<Timings> {
        let latencies: Vec<_> =
            self.results(system, kind).filter_map(|result| Some((result.cluster, result.latency_ms?))).collect();
        let tokens: Vec<_> = self
            .results(system, kind)
            .filter_map(|result| Some((result.cluster, result.generated?.tokens? as f64, result.latency_ms? / 1000.0)))
            .collect();
        if latencies.is_empty() {
            return None;
        }
        let quantiles = stats::quantiles(&latencies, &[0.5, 0.95, 0.99], self.seed);
        Some(Timings {
            system: system.to_owned(),
            kind,
            p50_ms: quantiles[0],
            p95_ms: quantiles[1],
            p99_ms: quantiles[2],
            tokens_per_s: (!tokens.is_empty()).then(|| stats::ratio(&tokens, self.seed)),
        })
    }

    fn latency_curve(&self, system: &str) -> Option<LatencyCurve> {
        let mut ms: Vec<f64> = self.results(system, None).filter_map(|result| result.latency_ms).collect();
        ms.sort_by(f64::total_cmp);
        let last = ms.len().checked_sub(1)?;
        let at = |step: usize| ms[last * step / (N_LATENCIES - 1)];
        Some(LatencyCurve { system: system.to_owned(), ms: (0..N_LATENCIES).map(at).collect() })
    }

    /// For each hole a property of its truth, from any system's record.
    fn each_truth(&self, figure: fn(&HoleResult<'a>) -> usize) -> Vec<usize> {
        let result = |at: usize| self.by_system.values().find_map(|results| results[at].as_ref());
        (0..self.holes.len()).map(|at| result(at).map_or(0, figure)).collect()
    }

    fn pairs(&self, systems: &[String]) -> Pairs {
        let outcomes = |system: &String| {
            let results = &self.by_system[system.as_str()];
            let column = |is: fn(&Scored) -> bool| {
                let mark = |result: &Option<HoleResult<'_>>| match result {
                    None => '-',
                    Some(result) if is(result.scored) => '1',
                    Some(_) => '0',
                };
                results.iter().map(mark).collect()
            };
            let thousandths = |result: &Option<HoleResult<'_>>| {
                result.map_or(0, |result| (1000.0 * result.scored.edit_similarity.clamp(0.0, 1.0)).round() as u16)
            };
            Outcomes {
                system: system.clone(),
                compile: column(|scored| scored.compile),
                exact: column(|scored| scored.exact),
                similarity: results.iter().map(thousandths).collect(),
                saved: results.iter().map(|result| result.map_or(0, |result| result.scored.saved_chars)).collect(),
                bits: results
                    .iter()
                    .map(|result| {
                        result.and_then(|result| bits(&result)).map(|(bits, _)| (1000.0 * bits).round() / 1000.0)
                    })
                    .collect(),
            }
        };
        let cluster = |hole: &&Hole| match self.cluster {
            Cluster::Crate => hole.project.clone(),
            Cluster::File => hole.file.clone(),
        };
        Pairs {
            ids: self.holes.iter().map(|hole| hole.id.clone()).collect(),
            clusters: self.holes.iter().map(cluster).collect(),
            kinds: self.holes.iter().map(|hole| hole.kind).collect(),
            chars: self.each_truth(|result| result.scored.truth_chars),
            bytes: self.holes.iter().map(|hole| hole.end - hole.start).collect(),
            systems: systems.iter().map(outcomes).collect(),
        }
    }
}

fn bits(result: &HoleResult<'_>) -> Option<(f64, f64)> {
    let generated = result.generated?;
    Some((generated.bits?, generated.bytes? as f64))
}

fn share(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}
