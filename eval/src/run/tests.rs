use std::path::PathBuf;

use nanochat_engine::Sources;
use nanochat_engine::workspace::sources::{Package, Role};

use super::*;
use crate::check::{Candidate, Verdict};
use crate::holes::{self, Hole, HoleKind};
use crate::record::FilterOutcome;
use crate::report::{Dropped, Report, SystemScores};
use crate::sandbox::SandboxError;
use crate::suite::SuiteError;
use crate::system::{Completion, Copy, Empty, SystemError, Task, Truth};

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
    records: tempfile::TempDir,
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
        Self { root, records: tempfile::tempdir().expect("a temporary folder") }
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

    /// As [`Self::sources`], after the workspace was made to depend on a package in that folder, outside of the root.
    /// Its code is what its build script finds in `made.txt`, under a comment with the folder in which it was made.
    fn sources_with(&self, near: &Path) -> Sources {
        let write = |path: PathBuf, text: &str| {
            std::fs::create_dir_all(path.parent().expect("below a root")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        };
        let manifest = self.root.path().join("Cargo.toml");
        let name = near.file_name().expect("a temporary folder").to_string_lossy();
        let dependency = format!("[dependencies]\nnear = {{ path = \"../{name}\" }}\n");
        let text = std::fs::read_to_string(&manifest).expect("it was written");
        write(manifest, &format!("{text}{dependency}"));
        let build = "fn main() {\n    let variable = |name| std::env::var(name).expect(\"cargo sets it\");\n    \
                     let made = std::fs::read_to_string(\"made.txt\").expect(\"it was copied\");\n    \
                     let made = format!(\"// {}\\n{made}\", variable(\"CARGO_MANIFEST_DIR\"));\n    \
                     std::fs::write(variable(\"OUT_DIR\") + \"/made.rs\", made).expect(\"there is room\");\n}\n";
        for (name, text) in [
            ("Cargo.toml", "[package]\nname = \"near\"\nversion = \"0.1.0\"\nedition = \"2024\"\n"),
            ("build.rs", build),
            ("made.txt", "pub const MADE: u8 = 1;\n"),
            ("src/lib.rs", "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\n"),
        ] {
            write(near.join(name), text);
        }
        let mut sources = self.sources();
        let (folder, role) = (near.to_path_buf(), Role::Dependency);
        sources.packages.push(Package { name: "near".into(), folder, role, ..sources.packages[0].clone() });
        sources
    }

    fn suite(&self, files: &[&str], max_holes: usize) -> Suite {
        let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
        Suite::workspace(&self.sources(), &files, max_holes).expect("files of the workspace")
    }

    /// Folder of the records of a run of this name.
    fn records(&self, name: &str) -> PathBuf {
        self.records.path().join(name)
    }

    fn checker(&self, timeout_s: f64, through_cargo: bool) -> Checker {
        let options = CheckOptions { timeout: Duration::from_secs_f64(timeout_s), through_cargo, ..check_options() };
        let files = ["src/maps.rs".to_owned(), "src/points.rs".to_owned()];
        Checker::new(&self.sources(), &files, options, &Cancel::new()).expect("the workspace compiles")
    }
}

const BOTH: [&str; 2] = ["src/maps.rs", "src/points.rs"];

fn check_options() -> CheckOptions {
    CheckOptions {
        timeout: Duration::from_secs(60),
        build_timeout: Duration::from_secs(600),
        keep_going: false,
        offline: true,
        n_workers: 2,
        with_ignored: false,
        linked: false,
        through_cargo: false,
        sandbox: Mode::BestEffort,
        cache: None,
    }
}

fn plan<'a>(suite: &'a Suite, folder: &'a Path) -> Plan<'a> {
    Plan {
        suite,
        folder,
        seed: 5,
        shard: None,
        n_workers: 2,
        timeout_s: 60.0,
        build_timeout_s: 600.0,
        offline: true,
        with_ignored: false,
        sandbox: Mode::BestEffort,
        label: "",
        trained_on: None,
        cache: None,
    }
}

/// Completes every hole by the same rule.
struct Rule<F>(&'static str, F);

impl<F: FnMut(&Task<'_>) -> Option<String>> System for Rule<F> {
    fn name(&self) -> &str {
        self.0
    }

    fn complete(&mut self, task: &Task<'_>, _cancel: &Cancel) -> Result<Completion, SystemError> {
        Ok(self.1(task).into())
    }
}

/// Truth, empty, copy and one more.
fn with_controls(plan: &Plan<'_>, more: &mut [&mut dyn System]) -> Result<Findings, EvalError> {
    let (mut truth, mut empty, mut copy) = (Truth::default(), Empty, Copy::default());
    let mut all: Vec<&mut dyn System> = vec![&mut truth, &mut empty, &mut copy];
    for system in more {
        all.push(&mut **system);
    }
    evaluate(plan, &mut all, &mut |_| {}, &Cancel::new())
}

fn of<'a>(report: &'a Report, name: &str) -> &'a SystemScores {
    report.systems.iter().find(|system| system.name == name && system.kind.is_none()).expect("it took part")
}

/// The files that are the same in every run.
fn stable_bytes(folder: &Path) -> Vec<Vec<u8>> {
    let names = ["gates.jsonl", "generated.jsonl", "scored.jsonl"];
    names.iter().map(|name| std::fs::read(folder.join(name)).expect("a file of records")).collect()
}

/// What the file holds there, and then more than was asked for.
fn perfect(task: &Task<'_>) -> Option<String> {
    let text = if task.file == "src/maps.rs" { MAPS } else { POINTS };
    let rest = &text[task.prefix.len()..];
    let hole = &rest[..rest.len() - task.suffix.len()];
    Some(format!("{hole}\n}}\nfn and_more() {{}}"))
}

#[test]
fn controls_and_cheaters_score_what_they_must_and_a_seed_names_its_records() {
    let workspace = Workspace::new(MAPS);
    let suite = workspace.suite(&BOTH, 14);
    let run = |name: &str| {
        let mut perfect = Rule("perfect", perfect);
        let mut cheater = Rule("cheater", |_: &Task<'_>| Some("todo!();".to_owned()));
        let mut silent = Rule("silent", |_: &Task<'_>| None);
        let systems: &mut [&mut dyn System] = &mut [&mut perfect, &mut cheater, &mut silent];
        let folder = workspace.records(name);
        with_controls(&plan(&suite, &folder), systems).expect("findings")
    };
    let findings = run("a");
    let report = Report::of(&findings);
    assert_eq!((report.holes, report.files), (14, 2));
    let Dropped { truth_degenerate, truth_fails, canary_compiles, empty_compiles, leaks } = report.dropped;
    assert_eq!(report.tried - report.holes, truth_degenerate + truth_fails + canary_compiles + empty_compiles + leaks);
    assert_eq!(truth_fails + leaks, 0);
    let kinds: std::collections::BTreeSet<HoleKind> = findings.holes().map(|hole| hole.kind).collect();
    assert!(kinds.len() >= 6, "{kinds:?}");
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
    let json = serde_json::to_string(&report).expect("plain data");
    assert_eq!(serde_json::from_str::<Report>(&json).expect("what was written").holes, 14);

    assert_eq!(run("b").scored, findings.scored);
    assert_eq!(stable_bytes(&workspace.records("a")), stable_bytes(&workspace.records("b")));
}

#[test]
fn records_cut_off_anywhere_are_completed_to_the_same_bytes() {
    let workspace = Workspace::new(MAPS);
    let suite = workspace.suite(&BOTH, 6);
    let folder = workspace.records("run");
    let run = || {
        let mut perfect = Rule("perfect", perfect);
        with_controls(&plan(&suite, &folder), &mut [&mut perfect]).expect("findings")
    };
    run();
    let whole = stable_bytes(&folder);
    for (name, bytes) in ["gates.jsonl", "generated.jsonl", "scored.jsonl"].iter().zip(&whole) {
        for share in [0.0, 0.3, 0.77] {
            let n = (bytes.len() as f64 * share) as usize;
            std::fs::write(folder.join(name), &bytes[..n]).expect("a file");
            run();
            assert_eq!(stable_bytes(&folder), whole, "{name} at {n}");
        }
    }
    std::fs::write(folder.join("generated.jsonl"), &whole[1][..whole[1].len() / 2]).expect("a file");
    let mut other = Rule("other", |_: &Task<'_>| None);
    let error = evaluate(&plan(&suite, &folder), &mut [&mut other], &mut |_| {}, &Cancel::new());
    assert!(matches!(error, Err(EvalError::Record(RecordError::Foreign { .. }))), "{error:?}");
    let error = with_controls(&Plan { seed: 6, ..plan(&suite, &folder) }, &mut []);
    assert!(matches!(error, Err(EvalError::Record(RecordError::Foreign { what: "seeds", .. }))), "{error:?}");
}

#[test]
fn shards_merge_to_the_bytes_of_the_whole() {
    let workspace = Workspace::new(MAPS);
    let mut suite = workspace.suite(&BOTH, 8);
    // A project per file: what a shard takes is whole projects.
    let both = suite.groups[0].projects.remove(0);
    for (name, text) in &both.texts {
        let texts = [(name.clone(), text.clone())].into();
        suite.groups[0].projects.push(Project { name: name.clone(), texts, ..both.clone() });
    }
    let run = |name: &str, shard: Option<Shard>| {
        let folder = workspace.records(name);
        let plan = Plan { shard, ..plan(&suite, &folder) };
        with_controls(&plan, &mut [&mut Rule("perfect", perfect)]).expect("findings");
        folder
    };
    let whole = run("whole", None);
    let shards: Vec<PathBuf> = (0..3).map(|index| run(&format!("{index}"), Some(Shard { index, count: 3 }))).collect();
    let merged = workspace.records("merged");
    let findings = merge(&[shards[2].clone(), shards[0].clone(), shards[1].clone()], &merged).expect("all are there");
    assert_eq!(stable_bytes(&merged), stable_bytes(&whole));
    let mut findings_of_whole = Findings::load(&whole).expect("it is finished");
    assert_eq!(findings.timings.len(), findings_of_whole.timings.len());
    findings_of_whole.timings = findings.timings.clone();
    assert_eq!(findings, findings_of_whole);
    for wrong in [&shards[..2], &[shards[0].clone(), shards[0].clone()], std::slice::from_ref(&whole), &[]] {
        let error = merge(wrong, &workspace.records("wrong")).expect_err("no whole");
        assert!(matches!(error, EvalError::Record(RecordError::Shards { .. })), "{error}");
    }
}

#[test]
fn an_audit_finds_the_same_verdicts_alone() {
    let workspace = Workspace::new(MAPS);
    let suite = workspace.suite(&BOTH, 20);
    let folder = workspace.records("run");
    let plan = plan(&suite, &folder);
    let mut wrong = Rule("wrong", |_: &Task<'_>| Some("let never = 1 + 2;".to_owned()));
    let systems: &mut [&mut dyn System] = &mut [&mut Truth::default(), &mut Empty, &mut wrong];
    let (_, audit) =
        evaluate_and_audit(&plan, systems, 100, &mut |_| {}, &Cancel::new()).expect("findings and an audit");
    assert!(audit.audited > 5, "{audit:?}");
    assert_eq!((audit.agree, audit.false_ok, audit.false_fail), (audit.audited, 0, 0), "{audit:?}");
}

#[test]
fn errors_in_one_run_are_blamed_on_their_own_completions() {
    let text = "pub fn shown() -> impl Iterator<Item = u32> + Send {\n    let all = vec![1, 2, 3];\n    \
                all.into_iter().filter(|n| *n > 1)\n}\n\npub fn sends() -> usize {\n    \
                let thread = std::thread::spawn(|| shown().count());\n    thread.join().unwrap_or_default()\n}\n\n\
                pub fn plain(n: usize) -> usize {\n    let twice = n * 2;\n    twice + 1\n}\n";
    let workspace = Workspace::new(text);
    let checker = workspace.checker(60.0, false);
    let holes = holes::cut("mini", "src/maps.rs", text, 1).expect("it parses");
    let hole = |truth: &str| {
        let found = holes.iter().find(|hole| hole.kind == HoleKind::Statement && hole.truth(text) == truth);
        found.expect("it was cut").clone()
    };
    let shown = hole("all.into_iter().filter(|n| *n > 1)");
    let sends = hole("let thread = std::thread::spawn(|| shown().count());");
    let plain = hole("let twice = n * 2;");
    let judge = |filled: &[(&Hole, &str)]| {
        let filled: Vec<_> = filled.iter().map(|(hole, text)| crate::check::FilledHole { hole, text }).collect();
        checker.judge(&filled, &mut |_| {}, &Cancel::new()).expect("verdicts").0
    };
    // The first is not `Send` any more, which is an error of the first alone; the second is as good as the truth.
    let local = "all.into_iter().filter({ let local = std::rc::Rc::new(1); move |n| *n > *local })";
    let fine = "let thread = std::thread::spawn(move || shown().count());";
    let filled = [(&shown, local), (&sends, fine), (&plain, "let twice = n * 3;"), (&plain, "let once = n;")];
    let verdicts = judge(&filled);
    let alone: Vec<Verdict> = filled.iter().map(|one| judge(&[*one])[0]).collect();
    assert_eq!(verdicts, alone);
    assert_eq!(verdicts, [Verdict::Fails, Verdict::Compiles, Verdict::Compiles, Verdict::Fails]);
}

#[test]
fn each_gate_drops_what_it_is_for() {
    let text = "pub fn f(x: &mut u32) -> u32 {\n    *x += 1;\n    let text = \"some long literal text stands here\";\n    \
         if *x > 3 {\n        panic!(\"too large\");\n    }\n    x.saturating_add(text.len() as u32)\n}\n";
    let workspace = Workspace::new(text);
    let suite = workspace.suite(&["src/maps.rs"], usize::MAX / 4);
    let folder = workspace.records("run");
    let findings = with_controls(&plan(&suite, &folder), &mut []).expect("findings");
    let report = Report::of(&findings);
    let Dropped { truth_degenerate, truth_fails, canary_compiles, empty_compiles, .. } = report.dropped;
    assert_eq!((report.tried, truth_fails), (report.cut, 0));
    assert!(truth_degenerate >= 2, "the panic and the block around it");
    assert!(canary_compiles >= 1, "any words fit within a literal");
    assert!(empty_compiles >= 1, "nobody misses `*x += 1;`");
    assert!(report.holes >= 2 && report.holes + 4 <= report.tried);

    let trained_on = Fingerprint::of([text].into_iter());
    let folder = workspace.records("leaking");
    let leaking = Plan { trained_on: Some(&trained_on), ..plan(&suite, &folder) };
    assert!(matches!(with_controls(&leaking, &mut []), Err(EvalError::NoHoles)));
    let filtered = Findings::load(&folder).expect("records").filtered;
    assert!(filtered.iter().filter(|(_, outcome)| *outcome == FilterOutcome::Leaks).count() > 5);
}

#[test]
fn a_path_dependency_that_changed_makes_another_plan() {
    let workspace = Workspace::new(MAPS);
    let near = tempfile::tempdir().expect("a temporary folder");
    let sources = workspace.sources_with(near.path());
    let suite = Suite::workspace(&sources, &["src/points.rs".into()], 3).expect("files of the workspace");
    let folder = workspace.records("run");
    let open = || Run::open(&plan(&suite, &folder), &mut |_| {}, &Cancel::new()).map(drop);
    open().expect("a new run");
    std::fs::write(near.path().join("made.txt"), "pub const MADE: u8 = 1;\n").expect("a file");
    open().expect("it holds the same");
    std::fs::write(near.path().join("made.txt"), "pub const MADE: u8 = 2;\n").expect("a file");
    let error = open();
    assert!(matches!(error, Err(EvalError::Record(RecordError::Foreign { .. }))), "{error:?}");
}

#[test]
fn two_runs_do_not_write_to_one_folder() {
    let workspace = Workspace::new(MAPS);
    let suite = workspace.suite(&["src/points.rs"], 3);
    let folder = workspace.records("run");
    let plan = plan(&suite, &folder);
    let (mut events, mut other_events, cancel) = (|_| {}, |_| {}, Cancel::new());
    let first = Run::open(&plan, &mut events, &cancel).expect("a new run");
    let second = Run::open(&plan, &mut other_events, &cancel).map(drop);
    assert!(matches!(second, Err(EvalError::Record(RecordError::Busy { .. }))), "{second:?}");
    drop(first);
    Run::open(&plan, &mut other_events, &cancel).map(drop).expect("nobody writes there any more");
}

#[test]
fn gates_are_kept_where_a_build_script_makes_code() {
    let workspace = Workspace::new(MAPS);
    let near = tempfile::tempdir().expect("a temporary folder");
    let sources = workspace.sources_with(near.path());
    let suite = Suite::workspace(&sources, &["src/points.rs".into()], 3).expect("files of the workspace");
    let cache = workspace.records("cache");
    let n_kept = |name: &str| {
        let folder = workspace.records(name);
        let plan = Plan { cache: Some(cache.as_path()), ..plan(&suite, &folder) };
        with_controls(&plan, &mut []).expect("findings");
        std::fs::read_dir(cache.join("gates")).expect("outcomes are kept").count()
    };
    assert_eq!((n_kept("first"), n_kept("second")), (1, 1));
    std::fs::write(near.path().join("made.txt"), "pub const MADE: u8 = 2;\n").expect("a file");
    assert_eq!(n_kept("changed"), 2);
}

#[test]
fn the_compiler_alone_and_cargo_agree() {
    let workspace = Workspace::new(MAPS);
    let holes: Vec<Hole> =
        holes::cut("mini", "src/points.rs", POINTS, 3).expect("it parses").into_iter().take(3).collect();
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
        let folder = tree.parent().expect("trees are in a folder").to_string_lossy().into_owned();
        for process in std::fs::read_dir("/proc").expect("Linux").flatten() {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&line).contains(&folder), "{process:?} is left");
        }
    }
}

#[test]
fn a_workspace_that_does_not_compile_is_named_with_its_first_error() {
    let workspace = Workspace::new("pub fn broken() -> u8 {\n    \"text\"\n}\n");
    let suite = workspace.suite(&BOTH, 4);
    let folder = workspace.records("run");
    let error = with_controls(&plan(&suite, &folder), &mut []).expect_err("no findings");
    let text = error.to_string();
    assert!(matches!(error, EvalError::Check(CheckError::Baseline { .. })), "{text}");
    assert!(text.contains("mismatched types (src/maps.rs:2)"), "{text}");
}

#[test]
fn bad_input_is_refused_in_words() {
    let workspace = Workspace::new(MAPS);
    let outside = Suite::workspace(&workspace.sources(), &["../elsewhere.rs".into()], 4);
    assert!(matches!(outside, Err(SuiteError::Outside { .. })));
    let folder = workspace.records("run");
    let run = |suite: &Suite, timeout_s: f64, cancel: &Cancel| {
        let plan = Plan { timeout_s, ..plan(suite, &folder) };
        evaluate(&plan, &mut [], &mut |_| {}, cancel).expect_err("no findings")
    };
    assert!(matches!(run(&workspace.suite(&["src/missing.rs"], 4), 60.0, &Cancel::new()), EvalError::NoHoles));
    let suite = workspace.suite(&BOTH, 4);
    assert!(matches!(run(&suite, -1.0, &Cancel::new()), EvalError::Timeout { .. }));
    let cancel = Cancel::new();
    cancel.cancel();
    assert!(matches!(run(&suite, 60.0, &cancel), EvalError::Cancelled(_)));
    let empty = tempfile::tempdir().expect("a folder");
    let mut sources = workspace.sources();
    sources.root = empty.path().to_path_buf();
    let new = |sources: &Sources| Checker::new(sources, &[], check_options(), &Cancel::new()).map(drop);
    assert!(matches!(new(&sources), Err(CheckError::NoManifest { .. })));
    let copied = crate::sandbox::Sandbox::copy(&empty.path().join("gone"), 1).expect_err("nothing to copy");
    assert!(matches!(copied, SandboxError::Copy { .. }));
}

#[test]
fn garbage_takes_the_form_of_the_truth() {
    let word = "nanochat_canary_that_nobody_defined";
    let canary = super::filters::canary;
    assert_eq!(canary(HoleKind::LineTail, "x + 1.0;"), format!("{word} + 1.0;"));
    assert_eq!(canary(HoleKind::NextLine, "if let Some(y) = x {"), format!("if let {word}({word}) = {word} {{"));
    assert_eq!(canary(HoleKind::LineTail, "1 + 2"), word);
    assert_eq!(canary(HoleKind::Statement, "a();"), format!("{word}();"));
}

#[test]
fn holes_are_cut_from_text_with_the_line_ends_that_training_sees() {
    let workspace = Workspace::new(&MAPS.replace('\n', "\r\n"));
    let suite = workspace.suite(&["src/maps.rs"], 3);
    let mut reader = Rule("reader", |task: &Task<'_>| {
        assert!(task.prefix.contains('\n') && !task.prefix.contains('\r') && !task.suffix.contains('\r'));
        None
    });
    let folder = workspace.records("run");
    let report = Report::of(&with_controls(&plan(&suite, &folder), &mut [&mut reader]).expect("findings"));
    assert_eq!((report.holes, of(&report, "truth").compile_success.value), (3, 1.0));
}

#[test]
fn the_first_error_ends_the_workers() {
    let workspace = Workspace::new(MAPS);
    let options = CheckOptions { n_workers: 1, ..check_options() };
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

#[test]
fn answers_are_run_with_their_tests() {
    let problem = |name: &str, body: &str, expected: u32| {
        serde_json::json!({
            "task_id": name, "prompt": "/* Of four. */", "declaration": format!("fn {name}(n: u32) -> u32 {{\n"),
            "canonical_solution": format!("    {body}\n}}\n"),
            "test": format!("mod t {{ use super::*; #[test] fn t() {{ assert_eq!({name}(4), {expected}) }} }}"),
        })
        .to_string()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("problems.jsonl");
    let lines = [problem("double", "n.saturating_mul(2)", 8), problem("square", "n.pow(2) + 0", 16)];
    std::fs::write(&data, lines.join("\n")).expect("a file");
    let suite = Suite::humaneval(&data, &Sources::default()).expect("two problems");
    let records = folder.path().join("run");
    let mut wrong = Rule("wrong", |_: &Task<'_>| Some("n.saturating_mul(2)".to_owned()));
    let systems: &mut [&mut dyn System] = &mut [&mut Truth::default(), &mut wrong];
    let findings = evaluate(&plan(&suite, &records), systems, &mut |_| {}, &Cancel::new()).expect("findings");
    for scored in &findings.scored {
        let hole = findings.holes().find(|hole| hole.id == scored.hole_id).expect("it was filtered");
        let is_right = scored.system == "truth" || hole.file == "src/p000.rs";
        assert_eq!((scored.compile, scored.tests_pass), (true, Some(is_right)), "{} {}", scored.system, hole.file);
    }
    assert_eq!(findings.scored.len(), 4);
}
