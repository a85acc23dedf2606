//! A run that is killed without warning, however often, ends with the same bytes as one that is not.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nanochat_engine::workspace::sources::{Package, Role};
use nanochat_engine::{Cancel, Sources};
use nanochat_eval::sandbox::Mode;
use nanochat_eval::suite::Suite;
use nanochat_eval::system::{Completion, Copy, Empty, System, SystemError, Task, Truth};
use nanochat_eval::{Plan, evaluate};

const LIB: &str = "/// The sum of squares.\npub fn squares(values: &[u64]) -> u64 {\n    let mut total = 0;\n    \
    for value in values {\n        let square = value * value;\n        total += square;\n    }\n    total\n}\n\n\
    /// The longest word.\npub fn longest(text: &str) -> Option<&str> {\n    let words = text.split_whitespace();\n    \
    words.max_by_key(|word| word.chars().count())\n}\n\n/// Pairs of neighbours.\npub fn pairs(values: &[u64]) -> \
    Vec<(u64, u64)> {\n    let pairs = values.windows(2).map(|pair| (pair[0], pair[1]));\n    pairs.collect()\n}\n";

/// Where the process that is killed finds its work.
const WORKSPACE: &str = "NANOCHAT_TEST_WORKSPACE";
const RECORDS: &str = "NANOCHAT_TEST_RECORDS";

#[test]
fn five_kills_change_no_byte() {
    kill(5);
}

#[test]
#[ignore = "takes minutes"]
fn a_hundred_kills_change_no_byte() {
    kill(100);
}

#[test]
#[ignore = "is the process that the others kill"]
fn victim() {
    let (Some(root), Some(records)) = (std::env::var_os(WORKSPACE), std::env::var_os(RECORDS)) else { return };
    let root = PathBuf::from(root);
    let package = Package {
        name: "mini".into(),
        version: "0.1.0".into(),
        edition: "2024".into(),
        licence: None,
        folder: root.clone(),
        role: Role::Member,
    };
    let sources = Sources { root, packages: vec![package] };
    let suite = Suite::workspace(&sources, &["src/lib.rs".into()], 12).expect("the file is there");
    let records = PathBuf::from(records);
    let plan = Plan {
        suite: &suite,
        folder: &records,
        seed: 3,
        shard: None,
        n_workers: 2,
        timeout_s: 120.0,
        build_timeout_s: 600.0,
        offline: true,
        with_ignored: false,
        sandbox: Mode::Off,
        label: "",
        trained_on: None,
        cache: None,
    };
    let systems: &mut [&mut dyn System] = &mut [&mut Truth::default(), &mut Empty, &mut Copy::default(), &mut Slow];
    evaluate(&plan, systems, &mut |_| {}, &Cancel::new()).expect("it ends if it is let");
}

/// Takes its time, so that kills come between its completions.
struct Slow;

impl System for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn complete(&mut self, task: &Task<'_>, _cancel: &Cancel) -> Result<Completion, SystemError> {
        std::thread::sleep(Duration::from_millis(20));
        Ok(Some(format!("total + {} as u64", task.prefix.len())).into())
    }
}

fn kill(n: u32) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let workspace = folder.path().join("workspace");
    std::fs::create_dir_all(workspace.join("src")).expect("a folder");
    std::fs::create_dir_all(folder.path().join("tmp")).expect("a folder");
    let manifest = "[package]\nname = \"mini\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    std::fs::write(workspace.join("Cargo.toml"), manifest).expect("a file");
    std::fs::write(workspace.join("src/lib.rs"), LIB).expect("a file");

    let start = Instant::now();
    let whole = folder.path().join("whole");
    assert!(victim_of(folder.path(), &whole).wait().expect("it was started").success());
    let duration = start.elapsed();

    let killed = folder.path().join("killed");
    for at in 0..n {
        let mut victim = victim_of(folder.path(), &killed);
        std::thread::sleep(duration.mul_f64(0.1 + 0.8 * f64::from(at) / f64::from(n)));
        victim.kill().expect("it can be killed, or has ended");
        victim.wait().expect("it was started");
    }
    assert!(victim_of(folder.path(), &killed).wait().expect("it was started").success());
    for name in ["run.json", "gates.jsonl", "generated.jsonl", "scored.jsonl"] {
        let read = |folder: &Path| std::fs::read_to_string(folder.join(name)).expect("a file of records");
        assert_eq!(read(&killed), read(&whole), "{name}");
    }
}

fn victim_of(folder: &Path, records: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "victim", "--ignored", "--quiet"])
        .env(WORKSPACE, folder.join("workspace"))
        .env(RECORDS, records)
        .env("TMPDIR", folder.join("tmp")) // what a killed process leaves goes with the folder
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it was started once already")
}
