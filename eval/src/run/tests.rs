use std::path::PathBuf;

use nanochat_engine::Sources;
use nanochat_engine::complete::CompleteError;
use nanochat_engine::sources::Package;

use super::*;
use crate::check::CheckError;
use crate::sandbox::SandboxError;

const MAPS: &str = r#"//! Häufigkeiten – multi-byte text before every hole.

use std::collections::BTreeMap;

/// Counts „words“.
pub fn count_words(text: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for word in text.split_whitespace() {
        let größe = counts.entry(word.to_owned()).or_insert(0usize);
        *größe += word.chars().count().min(1);
    }
    counts
}

/// The longest word, with „ä“ as one letter.
pub fn longest(counts: &BTreeMap<String, usize>) -> Option<usize> {
    let lengths = counts.keys().map(|word| word.chars().count());
    let longest = lengths.max();
    longest.filter(|&length| length > "ß".len())
}

#[cfg(feature = "never")]
pub fn hidden() -> u8 {
    let nothing_sees_this = 1 + 2;
    nothing_sees_this
}
"#;

const POINTS: &str = r#"/// A place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
}

impl Point {
    pub fn distance(self, other: Point) -> f64 {
        let dx = self.x - other.x;
        let dy = self.y - other.y;
        let squared = dx * dx + dy * dy;
        squared.sqrt()
    }

    pub fn middle(self, other: Point) -> Point {
        let x = (self.x + other.x) / 2.0;
        let y = (self.y + other.y) / 2.0;
        Point { x, y }
    }
}
"#;

struct Workspace {
    root: tempfile::TempDir,
}

impl Workspace {
    fn new(maps: &str) -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        let manifest = "[package]\nname = \"mini\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
                        description = '''it's\ntwo lines! `quoted`'''\n[features]\nnever = []\n[workspace]\n";
        let lib = "pub mod maps;\npub mod points;\n";
        for (name, text) in
            [("Cargo.toml", manifest), ("src/lib.rs", lib), ("src/maps.rs", maps), ("src/points.rs", POINTS)]
        {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        Self { root }
    }

    fn sources(&self) -> Sources {
        let package = Package {
            name: "mini".into(),
            version: "0.1.0".into(),
            edition: "2024".into(),
            licence: None,
            folder: self.root.path().to_path_buf(),
            role: Role::Member,
        };
        Sources { root: self.root.path().to_path_buf(), packages: vec![package] }
    }

    fn options(&self, max_holes: usize) -> Options {
        Options {
            sources: self.sources(),
            held_out: vec!["src/maps.rs".into(), "src/points.rs".into()],
            max_holes,
            seed: 5,
            timeout_s: 60.0,
            offline: true,
        }
    }

    fn checker(&self, timeout_s: f64, through_cargo: bool) -> Checker {
        let options =
            CheckOptions { timeout: Duration::from_secs_f64(timeout_s), offline: true, n_workers: 2, through_cargo };
        let files = ["src/maps.rs".to_owned(), "src/points.rs".to_owned()];
        Checker::new(&self.sources(), &files, options, &Cancel::new()).expect("the workspace compiles")
    }
}

/// Answers every hole by the same rule.
struct Rule<F>(&'static str, F);

impl<F: FnMut(&Task<'_>) -> Option<String>> Contestant for Rule<F> {
    fn name(&self) -> &str {
        self.0
    }

    fn fill(&mut self, task: &Task<'_>, _cancel: &Cancel) -> Result<Option<String>, CompleteError> {
        Ok(self.1(task))
    }
}

fn of<'a>(report: &'a Report, name: &str) -> &'a System {
    report.systems.iter().find(|system| system.name == name && system.kind.is_none()).expect("it took part")
}

/// Everything but the clock.
fn untimed(mut report: Report) -> Report {
    for system in &mut report.systems {
        system.latency_p50_ms = Value::default();
        system.latency_p95_ms = Value::default();
    }
    report
}

#[test]
fn controls_and_cheaters_score_what_they_must_and_a_seed_names_its_report() {
    let workspace = Workspace::new(MAPS);
    let run = || {
        let text = |file: &str| if file == "src/maps.rs" { MAPS } else { POINTS };
        // It knows the files, goes on for too long, and is read up to the end of the hole's kind.
        let perfect = |task: &Task<'_>| {
            let rest = &text(task.file)[task.prefix.len()..];
            let hole = &rest[..rest.len() - task.suffix.len()];
            Some(format!("{hole}\nfn and_more() {{}}"))
        };
        let mut perfect = Rule("perfect", perfect);
        let mut cheater = Rule("cheater", |_: &Task<'_>| Some("todo!();".to_owned()));
        let mut silent = Rule("silent", |_: &Task<'_>| None);
        let mut n_checked = 0;
        let mut events = |event| {
            if let Event::Checked { done, total } = event {
                assert!(done <= total);
                n_checked = done;
            }
        };
        let contestants: &mut [&mut dyn Contestant] = &mut [&mut perfect, &mut cheater, &mut silent];
        let report = evaluate_with(&workspace.options(10), contestants, &mut events, &Cancel::new());
        assert!(n_checked > 10);
        report.expect("a report")
    };
    let report = run();
    assert_eq!((report.holes, report.files), (10, 2));
    let Dropped { truth_degenerate, truth_fails, canary_compiles, empty_compiles } = report.dropped;
    assert_eq!(report.tried - report.holes, truth_degenerate + truth_fails + canary_compiles + empty_compiles);
    assert_eq!(truth_fails, 0);
    for (name, success, exact, answered) in
        [("truth", 1.0, 1.0, 1.0), ("empty", 0.0, 0.0, 1.0), ("perfect", 1.0, 1.0, 1.0), ("silent", 0.0, 0.0, 0.0)]
    {
        let system = of(&report, name);
        assert_eq!(system.compile_success.value, success, "{name}");
        assert_eq!(system.exact_match.value, exact, "{name}");
        assert_eq!(system.answered.value, answered, "{name}");
    }
    let cheater = of(&report, "cheater");
    assert_eq!(cheater.compile_success.value, 0.0);
    assert!(cheater.degenerate > 5, "within a word `todo!` is another word, elsewhere it is known");
    let copy = of(&report, "copy-longest-match").compile_success.value;
    let gain = report.differences.iter().find(|d| d.system == "perfect").expect("a pair").compile_success;
    assert!((gain.value - (1.0 - copy)).abs() < 1e-9 && gain.low <= gain.value && gain.value <= gain.high);
    let table = report.table();
    assert!(table.contains("copy-longest-match") && table.contains("100.0"), "{table}");
    let json = serde_json::to_string(&report).expect("plain data");
    assert_eq!(serde_json::from_str::<Report>(&json).expect("what was written").holes, 10);

    assert_eq!(untimed(run()), untimed(report));
}

#[test]
fn each_gate_drops_what_it_is_for() {
    let workspace = Workspace::new(
        "pub fn f(x: &mut u32) -> u32 {\n    *x += 1;\n    let text = \"some long literal text stands here\";\n    \
         if *x > 3 {\n        panic!(\"too large\");\n    }\n    x.saturating_add(text.len() as u32)\n}\n",
    );
    let mut options = workspace.options(usize::MAX);
    options.held_out = vec!["src/maps.rs".into()];
    let report = evaluate_with(&options, &mut [], &mut |_| {}, &Cancel::new()).expect("a report");
    let Dropped { truth_degenerate, truth_fails, canary_compiles, empty_compiles } = report.dropped;
    assert_eq!((report.tried, truth_fails), (report.cut, 0));
    assert!(truth_degenerate >= 2, "the panic and the block around it");
    assert!(canary_compiles >= 1, "any words fit within a literal");
    assert!(empty_compiles >= 1, "nobody misses `*x += 1;`");
    assert!(report.holes >= 2 && report.holes + 4 <= report.tried);
}

#[test]
fn the_compiler_alone_and_cargo_agree() {
    let workspace = Workspace::new(MAPS);
    let holes: Vec<Hole> = holes::cut("src/points.rs", POINTS, 3).expect("it parses").into_iter().take(3).collect();
    let candidates: Vec<Candidate> = holes
        .iter()
        .flat_map(|hole| {
            [hole.truth(POINTS), "", "let dx: &str = 1;"]
                .map(|middle| Candidate { file: hole.file.clone(), text: hole.splice(POINTS, middle) })
        })
        .collect();
    let check = |through_cargo| {
        let checker = workspace.checker(60.0, through_cargo);
        checker.check(&candidates, &mut |_| {}, &Cancel::new()).expect("verdicts")
    };
    let verdicts = check(false);
    assert_eq!(verdicts[0], Verdict::Compiles);
    assert_eq!(verdicts[2], Verdict::Fails);
    assert_eq!(verdicts, check(true));
}

#[test]
fn bombs_are_contained_and_leave_nothing_behind() {
    let workspace = Workspace::new(MAPS);
    let checker = workspace.checker(3.0, false);
    let with = |code: &str| Candidate { file: "src/points.rs".into(), text: format!("{POINTS}\n{code}\n") };
    let candidates = [
        with("const X: () = loop {};"),
        with("macro_rules! b { ($($t:tt)*) => { b! { $($t)* $($t)* } } } b! { x x }"),
        with(""),
    ];
    let verdicts = checker.check(&candidates, &mut |_| {}, &Cancel::new()).expect("verdicts");
    assert_ne!(verdicts[0], Verdict::Compiles);
    assert_ne!(verdicts[1], Verdict::Compiles);
    assert_eq!(verdicts[2], Verdict::Compiles);
    #[cfg(target_os = "linux")]
    {
        let tree = checker.sandbox().tree(0);
        let folder = tree.parent().expect("trees lie in a folder").to_string_lossy().into_owned();
        for process in std::fs::read_dir("/proc").expect("Linux").flatten() {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&line).contains(&folder), "{process:?} is left");
        }
    }
}

#[test]
fn a_workspace_that_does_not_compile_is_named_with_its_first_error() {
    let workspace = Workspace::new("pub fn broken() -> u8 {\n    \"text\"\n}\n");
    let error = evaluate_with(&workspace.options(4), &mut [], &mut |_| {}, &Cancel::new()).expect_err("no report");
    let text = error.to_string();
    assert!(matches!(error, EvalError::Check(CheckError::Baseline { .. })), "{text}");
    assert!(text.contains("mismatched types (src/maps.rs:2)"), "{text}");
}

#[test]
fn bad_input_is_refused_in_words() {
    let workspace = Workspace::new(MAPS);
    let run = |options: &Options, cancel: &Cancel| {
        evaluate_with(options, &mut [], &mut |_| {}, cancel).expect_err("no report")
    };
    let mut options = workspace.options(4);
    options.held_out = vec!["../elsewhere.rs".into()];
    assert!(matches!(run(&options, &Cancel::new()), EvalError::Outside { .. }));
    options.held_out = vec!["src/missing.rs".into()];
    assert!(matches!(run(&options, &Cancel::new()), EvalError::NoHoles));
    options.timeout_s = -1.0;
    assert!(matches!(run(&options, &Cancel::new()), EvalError::Timeout { .. }));
    let cancel = Cancel::new();
    cancel.cancel();
    assert!(matches!(run(&workspace.options(4), &cancel), EvalError::Cancelled(_)));
    let empty = tempfile::tempdir().expect("a folder");
    let mut options = workspace.options(4);
    options.sources.root = empty.path().to_path_buf();
    options.held_out = Vec::<PathBuf>::new();
    assert!(matches!(run(&options, &Cancel::new()), EvalError::Check(CheckError::NoManifest { .. })));
    options.sources.root = empty.path().join("gone");
    let copied = crate::sandbox::Sandbox::copy(&options.sources.root, 1).expect_err("nothing to copy");
    assert!(matches!(copied, SandboxError::Copy { .. }));
}

#[test]
fn garbage_takes_the_form_of_the_truth() {
    assert_eq!(canary(HoleKind::LineTail, "x + 1.0;"), format!("{CANARY} + 1.0;"));
    assert_eq!(canary(HoleKind::LineTail, "1 + 2"), CANARY);
    assert_eq!(canary(HoleKind::Statement, "a();"), format!("{CANARY}();"));
}

#[test]
fn holes_are_cut_from_text_with_the_line_ends_that_training_sees() {
    let workspace = Workspace::new(&MAPS.replace('\n', "\r\n"));
    let mut options = workspace.options(3);
    options.held_out = vec!["src/maps.rs".into()];
    let mut reader = Rule("reader", |task: &Task<'_>| {
        assert!(task.prefix.contains('\n') && !task.prefix.contains('\r') && !task.suffix.contains('\r'));
        None
    });
    let report = evaluate_with(&options, &mut [&mut reader], &mut |_| {}, &Cancel::new()).expect("a report");
    assert_eq!((report.holes, of(&report, "truth").compile_success.value), (3, 1.0));
}

#[test]
fn the_first_error_ends_the_workers() {
    let workspace = Workspace::new(MAPS);
    let options = CheckOptions { timeout: Duration::from_secs(60), offline: true, n_workers: 1, through_cargo: false };
    let files = ["src/lib.rs", "src/maps.rs", "src/points.rs"].map(str::to_owned);
    let checker = Checker::new(&workspace.sources(), &files, options, &Cancel::new()).expect("it compiles");
    let tree = checker.sandbox().tree(0);
    // A folder in its place cannot be written; a file that is gone is written by the candidate that comes to it.
    std::fs::remove_file(tree.join("src/maps.rs")).expect("it was copied");
    std::fs::create_dir(tree.join("src/maps.rs")).expect("there is room");
    std::fs::remove_file(tree.join("src/lib.rs")).expect("it was copied");
    let candidate = |file: &str| Candidate { file: file.to_owned(), text: String::new() };
    let mut candidates = vec![candidate("src/maps.rs")];
    candidates.extend((0..4).map(|_| candidate("src/points.rs")));
    candidates.push(candidate("src/lib.rs"));
    let error = checker.check(&candidates, &mut |_| {}, &Cancel::new()).expect_err("a folder is no file");
    assert!(matches!(error, CheckError::Write { .. }), "{error}");
    assert!(!tree.join("src/lib.rs").exists(), "the last candidate was compiled nonetheless");
}
