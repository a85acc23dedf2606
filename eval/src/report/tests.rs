use nanochat_engine::rng::Rng;

use super::*;
use crate::holes::Hole;
use crate::record::{FilterOutcome, Findings, Generated, ProjectSummary, Scored, Timing};

/// Three crates, 60 holes, five systems; everything drawn by seed.
pub(crate) fn findings(seed: u64) -> Findings {
    let mut rng = Rng::new(seed);
    let kinds = [HoleKind::Expression, HoleKind::Statement, HoleKind::FunctionBody];
    let mut findings = Findings {
        suite: "sample".to_owned(),
        seed: 7,
        rustc: "rustc 1.95.0".to_owned(),
        sandbox: "landlock, seccomp".to_owned(),
        systems: ["truth", "empty", "copy-longest-match", "nanochat-without-memory", "nanochat"]
            .map(str::to_owned)
            .to_vec(),
        ..Findings::default()
    };
    for (i, name) in ["alpha", "beta", "gamma", "delta"].into_iter().enumerate() {
        findings.projects.push(ProjectSummary {
            name: name.to_owned(),
            version: format!("1.{i}.0"),
            skipped: (name == "delta").then(|| "it does not build".to_owned()),
            n_cut: 200,
            files_not_compiled: i,
            ..ProjectSummary::default()
        });
    }
    for i in 0..66 {
        let start = 100 * i;
        let hole = Hole {
            id: format!("{i:016x}"),
            project: ["alpha", "beta", "gamma"][i % 3].to_owned(),
            file: format!("src/file{}.rs", i % 5),
            kind: kinds[i % 7 % 3],
            start,
            end: start + 20,
            line: i + 1,
            col: 5,
            function: (start, start + 90),
            prefix_hash: String::new(),
            suffix_hash: String::new(),
            truth_hash: String::new(),
        };
        let outcome = match i {
            60 => FilterOutcome::TruthDegenerate,
            61 => FilterOutcome::TruthFails,
            62 => FilterOutcome::CanaryCompiles,
            63 => FilterOutcome::Leaks,
            64.. => FilterOutcome::EmptyCompiles,
            _ => FilterOutcome::Passed,
        };
        findings.filtered.push((hole, outcome));
    }
    let holes: Vec<Hole> = findings.holes().cloned().collect();
    for system in findings.systems.clone() {
        let (p_compile, p_exact) = match system.as_str() {
            "truth" => (1.0, 1.0),
            "empty" => (0.0, 0.0),
            "copy-longest-match" => (0.35, 0.2),
            "nanochat-without-memory" => (0.4, 0.2),
            _ => (0.65, 0.4),
        };
        let is_model = system.starts_with("nanochat");
        for hole in &holes {
            let u = f64::from(rng.uniform());
            let (compile, exact) = (u < p_compile, u < p_exact);
            let answered = !is_model || rng.uniform() < 0.9;
            let confidence = (is_model && answered).then(|| 1.0 - 0.8 * u - 0.1 * f64::from(rng.uniform()));
            findings.generated.push(Generated {
                hole_id: hole.id.clone(),
                system: system.clone(),
                text: answered.then(|| "x".to_owned()),
                tokens: is_model.then_some(8),
                confidence,
                bits: is_model.then_some(20.0 + 40.0 * u),
                bytes: is_model.then_some(20),
            });
            findings.timings.push(Timing {
                hole_id: hole.id.clone(),
                system: system.clone(),
                latency_ms: if is_model { 5.0 + 60.0 * u * u } else { 0.01 },
            });
            findings.scored.push(Scored {
                hole_id: hole.id.clone(),
                system: system.clone(),
                answered,
                compile: compile && answered,
                exact: exact && answered,
                edit_similarity: if exact { 1.0 } else { p_exact * (1.0 - u) },
                parse: answered.then_some(compile || u < 0.9),
                saved_chars: if exact { 20 } else { 0 },
                truth_chars: 20,
                tests_pass: None,
                degenerate: !is_model && u > 0.97,
                timed_out: false,
                confidence,
            });
        }
    }
    findings
}

#[test]
fn the_table_is_as_it_was() {
    insta::assert_snapshot!(Report::of(&findings(1)).table());
}

#[test]
fn the_json_is_as_it_was() {
    let mut report = Report::of(&findings(1));
    report.systems.retain(|system| system.name == "nanochat" && system.kind.is_none());
    report.differences.truncate(1);
    report.timings.truncate(1);
    report.latency_curves.truncate(1);
    report.coverage.truncate(1);
    report.coverage[0].points.truncate(2);
    report.reliability.truncate(1);
    report.reliability[0].bins.truncate(1);
    report.pairs = Pairs::default();
    insta::assert_json_snapshot!(report);
}

#[test]
fn the_baseline_is_as_it_was_and_reads_back() {
    let mut baseline = Baseline::default();
    baseline.replace(&Report::of(&findings(1)));
    let text = baseline.text();
    assert_eq!(Baseline::parse(&text), Ok(baseline));
    insta::assert_snapshot!(text);
}

#[test]
fn the_order_of_records_does_not_matter() {
    let ordered = findings(2);
    let mut shuffled = ordered.clone();
    let mut rng = Rng::new(1);
    rng.shuffle(&mut shuffled.filtered);
    rng.shuffle(&mut shuffled.generated);
    rng.shuffle(&mut shuffled.timings);
    rng.shuffle(&mut shuffled.scored);
    let json = |findings| serde_json::to_string(&Report::of(findings)).expect("a report is json");
    assert_eq!(json(&shuffled), json(&ordered));
}

#[test]
fn a_report_reads_back_as_it_was_written() {
    let report = Report::of(&findings(1));
    let json = serde_json::to_string(&report).expect("a report is json");
    assert_eq!(serde_json::from_str::<Report>(&json).expect("its own json"), report);
}

#[test]
fn only_timings_differ_between_machines() {
    let mut slow = findings(1);
    slow.timings.iter_mut().for_each(|timing| timing.latency_ms *= 3.0);
    let (mut slow, fast) = (Report::of(&slow), Report::of(&findings(1)));
    assert_ne!(slow, fast);
    slow.timings.clone_from(&fast.timings);
    slow.latency_curves.clone_from(&fast.latency_curves);
    assert_eq!(slow, fast);
}

#[test]
fn figures_are_what_the_records_say() {
    let findings = findings(1);
    let report = Report::of(&findings);
    assert_eq!((report.holes, report.tried, report.cut, report.crates), (60, 66, 800, 3));
    let ours: Vec<&Scored> = findings.scored.iter().filter(|scored| scored.system == "nanochat").collect();
    let row = report.system("nanochat", None).expect("it took part");
    let share = |n: usize| n as f64 / 60.0;
    assert_eq!(row.compile_success.value, share(ours.iter().filter(|scored| scored.compile).count()));
    assert_eq!(row.answered.value, share(ours.iter().filter(|scored| scored.answered).count()));
    assert_eq!(row.characters_saved.value, ours.iter().map(|scored| scored.saved_chars).sum::<usize>() as f64 / 1200.0);
    assert_eq!(report.system("truth", None).expect("a control").compile_success.value, 1.0);
    let by_kind: usize =
        report.kinds().into_iter().filter_map(|kind| Some(report.system("nanochat", Some(kind))?.n)).sum();
    assert_eq!(by_kind, 60);
    // The surest tenth is better than all that was answered, for the sample's confidence tells.
    let points = &report.coverage.iter().find(|coverage| coverage.system == "nanochat").expect("it is sure").points;
    assert!(points[0].compile_success.value > points[points.len() - 1].compile_success.value);
    assert!(points.windows(2).all(|pair| pair[0].confidence >= pair[1].confidence));
}

#[test]
fn a_run_of_one_crate_is_clustered_by_file() {
    let mut findings = findings(1);
    findings.filtered.iter_mut().for_each(|(hole, _)| hole.project = "alpha".to_owned());
    let report = Report::of(&findings);
    assert_eq!((report.clusters, report.crates, report.files), (Cluster::File, 1, 5));
    assert_eq!(report.pairs.clusters[0], "src/file0.rs");
}

#[test]
fn a_run_without_a_hole_has_a_report() {
    let report = Report::of(&Findings { systems: vec!["truth".to_owned()], ..Findings::default() });
    assert_eq!((report.holes, report.systems.len()), (0, 1));
    assert!(report.table().contains("0 holes"));
}

#[test]
fn a_comparison_is_as_it_was() {
    let (a, b) = (Report::of(&findings(1)), Report::of(&findings(2)));
    let comparison = Comparison::of(&a, "copy-longest-match", &b, "nanochat").expect("they share holes");
    insta::assert_snapshot!(comparison.table());
}

#[test]
fn a_system_is_not_better_than_itself_and_gains_turn_into_losses() {
    let report = Report::of(&findings(1));
    let compare = |a: &str, b: &str| Comparison::of(&report, a, &report, b).expect("they share holes");
    let itself = compare("nanochat", "nanochat");
    assert_eq!((itself.verdict, itself.contrasts[0].compile_success.value), (Verdict::NotShown, 0.0));
    assert!(itself.contrasts[0].compile_success.half_width() > 0.0);
    assert_eq!(compare("empty", "truth").verdict, Verdict::Better);
    assert_eq!(compare("truth", "empty").verdict, Verdict::Worse);
    // The same figures as the report's own difference, the other way round.
    let difference = report.differences.iter().find(|difference| difference.kind.is_none()).expect("there is one");
    let contrast = &compare(&difference.baseline, &difference.system).contrasts[0];
    assert_eq!(contrast.compile_success, difference.compile_success);
    assert_eq!(contrast.mcnemar.p, difference.mcnemar.p);
}

#[test]
fn only_shared_holes_are_compared() {
    let whole = Report::of(&findings(1));
    let mut part = findings(1);
    part.filtered.retain(|(hole, _)| hole.start % 200 == 0);
    let part = Report::of(&part);
    let comparison = Comparison::of(&whole, "nanochat", &part, "nanochat").expect("they share holes");
    assert_eq!((comparison.holes_a, comparison.holes_b, comparison.contrasts[0].n), (60, 30, 30));
    let mut other = findings(1);
    other.filtered.iter_mut().for_each(|(hole, _)| hole.id.insert(0, 'x'));
    let error = Comparison::of(&whole, "nanochat", &Report::of(&other), "nanochat");
    assert!(matches!(error, Err(CompareError::System { .. } | CompareError::NothingShared)), "{error:?}");
}

#[test]
fn a_report_that_does_not_line_up_is_refused() {
    let report = Report::of(&findings(1));
    let mut short = report.clone();
    short.pairs.systems[4].exact.pop();
    assert_eq!(Comparison::of(&report, "truth", &short, "nanochat"), Err(CompareError::Columns { run: 'B' }));
    let mut wide = report.clone();
    wide.pairs.clusters.push("more".to_owned());
    assert_eq!(Comparison::of(&wide, "truth", &report, "nanochat"), Err(CompareError::Columns { run: 'A' }));
    let error = Comparison::of(&report, "nobody", &report, "nanochat").expect_err("there is no such system");
    assert!(error.to_string().contains("truth, empty"), "{error}");
}

#[test]
fn a_baseline_keeps_other_suites_and_tells_what_moved() {
    let before = Report::of(&findings(1));
    let mut baseline = Baseline::default();
    baseline.replace(&Report { suite: "other".to_owned(), ..before.clone() });
    baseline.replace(&before);
    assert_eq!(baseline.moved(&before), []);
    let n_rows = baseline.text().lines().count();
    let after = Report::of(&findings(2));
    let moved = baseline.moved(&after);
    assert!(!moved.is_empty() && moved.iter().all(|moved| moved.row[0] == "sample"));
    assert!(moved.iter().all(|moved| moved.row[1] != "truth"), "the truth never moves: {moved:?}");
    baseline.replace(&after);
    assert_eq!(baseline.text().lines().count(), n_rows);
    assert!(baseline.text().contains("\nother,truth,all,60,100.00,"));
    let without = Report { systems: Vec::new(), ..before };
    assert!(baseline.moved(&without).iter().all(|moved| moved.after.is_none() && moved.before.is_some()));
}

#[test]
fn a_table_that_is_no_baseline_is_refused_with_the_line() {
    let mut baseline = Baseline::default();
    baseline.replace(&Report::of(&findings(1)));
    let text = baseline.text();
    assert_eq!(Baseline::parse("a,b,c\n"), Err(BaselineError::Header));
    assert_eq!(Baseline::parse(""), Err(BaselineError::Header));
    assert_eq!(
        Baseline::parse(&(text.clone() + "sample,x\n")),
        Err(BaselineError::Row { line: text.lines().count() + 1 })
    );
    let last = text.lines().last().expect("rows");
    assert_eq!(
        Baseline::parse(&format!("{text}{last}\n")),
        Err(BaselineError::Twice { line: text.lines().count() + 1 })
    );
    let wrong = text.replacen("100.00", "inf", 1);
    assert!(matches!(Baseline::parse(&wrong), Err(BaselineError::Row { .. })));
}
