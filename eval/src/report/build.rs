//! Records to report.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    Cluster, Coverage, CoveragePoint, Difference, Dropped, FORMAT, LatencyCurve, Outcomes, Pairs, Reliability,
    ReliabilityBin, Report, SkippedCrate, SkippedFiles, System, Timings,
};
use crate::contestant::PRODUCT;
use crate::holes::HoleKind;
use crate::record::{Findings, Gate, Generated, Hole, Scored};
use crate::stats::{self, McNemar, Value};

/// Steps of the coverage curve, and bins of the reliability diagram.
const N_STEPS: usize = 10;
/// Points of a latency curve: every 5 %.
const N_LATENCIES: usize = 21;
/// Systems that a gain over would say nothing: their figures are set by rule.
const CONTROLS: [&str; 2] = ["truth", "empty"];

impl Report {
    /// All figures of a run. The order of records does not matter.
    pub fn of(findings: &Findings) -> Self {
        let answers = Answers::of(findings);
        let systems = &findings.systems;
        let mut dropped = Dropped::default();
        for (_, gate) in &findings.gated {
            match gate {
                Gate::Passed => {}
                Gate::TruthDegenerate => dropped.truth_degenerate += 1,
                Gate::TruthFails => dropped.truth_fails += 1,
                Gate::CanaryCompiles => dropped.canary_compiles += 1,
                Gate::EmptyCompiles => dropped.empty_compiles += 1,
                Gate::Leaks => dropped.leaks += 1,
            }
        }
        let projects = &findings.projects;
        let n_distinct = |name: fn(&Hole) -> (&str, &str)| {
            answers.holes.iter().map(|hole| name(hole)).collect::<BTreeSet<_>>().len()
        };
        Self {
            format: FORMAT,
            suite: findings.suite.clone(),
            seed: findings.seed,
            rustc: findings.rustc.clone(),
            sandbox: findings.sandbox.clone(),
            known: findings.known,
            holes: answers.holes.len(),
            files: n_distinct(|hole| (&hole.project, &hole.file)),
            crates: n_distinct(|hole| (&hole.project, "")),
            clusters: answers.cluster,
            cut: projects.iter().map(|project| project.n_cut).sum(),
            tried: findings.gated.len(),
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
                .flat_map(|name| answers.kinds.iter().map(|kind| answers.system(name, *kind)).collect::<Vec<_>>())
                .collect(),
            differences: answers.differences(systems),
            coverage: systems.iter().filter_map(|name| answers.coverage(name)).collect(),
            reliability: systems.iter().filter_map(|name| answers.reliability(name)).collect(),
            timings: systems
                .iter()
                .flat_map(|name| {
                    answers.kinds.iter().filter_map(|kind| answers.timings(name, *kind)).collect::<Vec<_>>()
                })
                .collect(),
            latency_curves: systems.iter().filter_map(|name| answers.latency_curve(name)).collect(),
            pairs: answers.pairs(systems),
        }
    }
}

/// What one system did with one hole.
#[derive(Clone, Copy)]
struct Answer<'a> {
    hole: &'a Hole,
    cluster: &'a str,
    scored: &'a Scored,
    generated: Option<&'a Generated>,
    latency_ms: Option<f64>,
}

struct Answers<'a> {
    seed: u64,
    cluster: Cluster,
    holes: Vec<&'a Hole>,
    /// `None` for all together, then those that occur.
    kinds: Vec<Option<HoleKind>>,
    /// By system, in the order of `holes`; `None` where it was not asked.
    by_system: BTreeMap<&'a str, Vec<Option<Answer<'a>>>>,
}

impl<'a> Answers<'a> {
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
            let answer = |hole: &&'a Hole| {
                let key = (system, hole.id.as_str());
                let cluster = match cluster {
                    Cluster::Crate => hole.project.as_str(),
                    Cluster::File => hole.file.as_str(),
                };
                let (generated, latency_ms) = (generated.get(&key).copied(), latencies.get(&key).copied());
                Some(Answer { hole, cluster, scored: scored.get(&key)?, generated, latency_ms })
            };
            (system, holes.iter().map(answer).collect())
        };
        let by_system = findings.systems.iter().map(|system| of_system(system)).collect();
        Self { seed: findings.seed, cluster, holes, kinds, by_system }
    }

    fn answers(&self, system: &str, kind: Option<HoleKind>) -> impl Iterator<Item = Answer<'a>> + Clone {
        let all = self.by_system.get(system).map(Vec::as_slice).unwrap_or_default();
        all.iter().flatten().copied().filter(move |answer| kind.is_none_or(|kind| answer.hole.kind == kind))
    }

    /// The mean of a figure over the answers that have it; `None` where none has.
    fn mean<'b>(&self, answers: impl Iterator<Item = Answer<'b>>, figure: fn(&Scored) -> Option<f64>) -> Option<Value> {
        let observations: Vec<_> =
            answers.filter_map(|answer| Some((answer.cluster, figure(answer.scored)?))).collect();
        (!observations.is_empty()).then(|| stats::mean(&observations, self.seed))
    }

    fn system(&self, name: &str, kind: Option<HoleKind>) -> System {
        let answers = || self.answers(name, kind);
        let mean = |figure| self.mean(answers(), figure).unwrap_or_default();
        let bits: Vec<_> =
            answers().filter_map(|answer| bits(&answer).map(|(bits, bytes)| (answer.cluster, bits, bytes))).collect();
        let saved: Vec<_> = answers()
            .map(|answer| (answer.cluster, answer.scored.saved_chars as f64, answer.scored.truth_chars as f64))
            .collect();
        System {
            name: name.to_owned(),
            kind,
            n: answers().count(),
            compile_success: mean(|scored| Some(share(scored.compile))),
            exact_match: mean(|scored| Some(share(scored.exact))),
            edit_similarity: mean(|scored| Some(scored.edit_similarity)),
            bits_per_byte: (!bits.is_empty()).then(|| stats::ratio(&bits, self.seed)),
            characters_saved: stats::ratio(&saved, self.seed),
            answered: mean(|scored| Some(share(scored.answered))),
            parse_rate: mean(|scored| scored.parse.map(share)),
            tests_pass: self.mean(answers(), |scored| scored.tests_pass.map(share)),
            degenerate: answers().filter(|answer| answer.scored.degenerate).count(),
            timed_out: answers().filter(|answer| answer.scored.timed_out).count(),
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
        let pairs: Vec<(Answer<'_>, Answer<'_>)> = both
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

    /// Answers with a confidence, the surest first.
    fn by_confidence(&self, system: &str) -> Vec<(f64, Answer<'a>)> {
        let sure = |answer: Answer<'a>| Some((answer.scored.confidence.filter(|_| answer.scored.answered)?, answer));
        let mut answers: Vec<_> = self.answers(system, None).filter_map(sure).collect();
        answers.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.hole.id.cmp(&b.1.hole.id)));
        answers
    }

    fn coverage(&self, system: &str) -> Option<Coverage> {
        let (answers, n) = (self.by_confidence(system), self.answers(system, None).count());
        let point = |step: usize| {
            let n_answered = (n * step).div_ceil(N_STEPS);
            let chosen = answers.get(..n_answered)?;
            let of = |figure| self.mean(chosen.iter().map(|(_, answer)| *answer), figure).unwrap_or_default();
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
        let mut answers = self.by_confidence(system);
        answers.reverse();
        let n = answers.len();
        let bin = |i: usize| {
            let chosen = &answers[n * i / N_STEPS..n * (i + 1) / N_STEPS];
            let of = |figure| self.mean(chosen.iter().map(|(_, answer)| *answer), figure).unwrap_or_default();
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
            self.answers(system, kind).filter_map(|answer| Some((answer.cluster, answer.latency_ms?))).collect();
        let tokens: Vec<_> = self
            .answers(system, kind)
            .filter_map(|answer| Some((answer.cluster, answer.generated?.tokens? as f64, answer.latency_ms? / 1000.0)))
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
        let mut ms: Vec<f64> = self.answers(system, None).filter_map(|answer| answer.latency_ms).collect();
        ms.sort_by(f64::total_cmp);
        let last = ms.len().checked_sub(1)?;
        let at = |step: usize| ms[last * step / (N_LATENCIES - 1)];
        Some(LatencyCurve { system: system.to_owned(), ms: (0..N_LATENCIES).map(at).collect() })
    }

    /// By hole, what any system's record says of its truth.
    fn each_truth(&self, figure: fn(&Answer<'a>) -> usize) -> Vec<usize> {
        let answer = |at: usize| self.by_system.values().find_map(|answers| answers[at].as_ref());
        (0..self.holes.len()).map(|at| answer(at).map_or(0, figure)).collect()
    }

    fn pairs(&self, systems: &[String]) -> Pairs {
        let outcomes = |system: &String| {
            let answers = &self.by_system[system.as_str()];
            let column = |is: fn(&Scored) -> bool| {
                let mark = |answer: &Option<Answer<'_>>| match answer {
                    None => '-',
                    Some(answer) if is(answer.scored) => '1',
                    Some(_) => '0',
                };
                answers.iter().map(mark).collect()
            };
            let thousandths = |answer: &Option<Answer<'_>>| {
                answer.map_or(0, |answer| (1000.0 * answer.scored.edit_similarity.clamp(0.0, 1.0)).round() as u16)
            };
            Outcomes {
                system: system.clone(),
                compile: column(|scored| scored.compile),
                exact: column(|scored| scored.exact),
                similarity: answers.iter().map(thousandths).collect(),
                saved: answers.iter().map(|answer| answer.map_or(0, |answer| answer.scored.saved_chars)).collect(),
                bits: answers
                    .iter()
                    .map(|answer| {
                        answer.and_then(|answer| bits(&answer)).map(|(bits, _)| (1000.0 * bits).round() / 1000.0)
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
            chars: self.each_truth(|answer| answer.scored.truth_chars),
            bytes: self.holes.iter().map(|hole| hole.end - hole.start).collect(),
            systems: systems.iter().map(outcomes).collect(),
        }
    }
}

fn bits(answer: &Answer<'_>) -> Option<(f64, f64)> {
    let generated = answer.generated?;
    Some((generated.bits?, generated.bytes? as f64))
}

fn share(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}
