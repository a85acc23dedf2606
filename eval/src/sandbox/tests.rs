//! Copies, clocks and survivors, on whatever this machine offers.

use std::time::Instant;

use super::run::KEPT_VARIABLES;
use super::*;

fn shell(sandbox: &Sandbox, script: &str) -> Invocation {
    Invocation {
        program: "sh".into(),
        args: vec!["-c".into(), script.into()],
        env: Vec::new(),
        folder: sandbox.tree(0),
    }
}

fn workspace() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in [
        ("Cargo.toml", "[package]"),
        ("Cargo.lock", "# lock"),
        ("src/lib.rs", ""),
        (".gitignore", "Cargo.lock\nsecret\n"),
        ("secret", "s"),
        ("target/debug/x", "built"),
        (".git/config", "g"),
    ] {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }
    root
}

#[test]
fn only_sources_and_the_lock_are_copied() {
    let root = workspace();
    std::os::unix::fs::symlink("/etc/passwd", root.path().join("out.rs")).expect("a link");
    std::os::unix::fs::symlink("src/lib.rs", root.path().join("in.rs")).expect("a link");
    let sandbox = Sandbox::copy(root.path(), 2).expect("a copy");
    for tree in [sandbox.tree(0), sandbox.tree(1)] {
        for (name, copied) in [
            ("Cargo.toml", true),
            ("Cargo.lock", true),
            ("src/lib.rs", true),
            ("in.rs", true),
            ("out.rs", false),
            ("secret", false),
            ("target", false),
            (".git", false),
        ] {
            assert_eq!(tree.join(name).symlink_metadata().is_ok(), copied, "{name}");
        }
        assert!(!tree.join("in.rs").symlink_metadata().expect("copied").is_symlink());
    }
}

#[test]
fn path_dependencies_are_where_the_roots_paths_lead_and_ignored_files_come_on_request() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [
        ("app/Cargo.toml", "[package]"),
        ("app/.gitignore", "made.rs"),
        ("app/made.rs", "pub fn made() {}"),
        ("lib/src/lib.rs", "pub fn lib() {}"),
        ("other/src/lib.rs", "pub fn other() {}"),
    ] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }
    let (root, outside) = (folder.path().join("app"), [folder.path().join("lib")]);
    for with_ignored in [false, true] {
        let origin = Origin { root: &root, path_dependencies: &outside, with_ignored };
        let sandbox = Sandbox::of(&origin, 1, Mode::Off).expect("a copy");
        let tree = sandbox.tree(0);
        assert!(tree.join("Cargo.toml").is_file() && tree.join("../lib/src/lib.rs").is_file());
        assert!(!tree.join("../other").exists());
        assert_eq!(tree.join("made.rs").exists(), with_ignored);
    }
}

#[test]
fn the_folder_goes_with_the_sandbox() {
    let root = workspace();
    let sandbox = Sandbox::copy(root.path(), 1).expect("a copy");
    let tree = sandbox.tree(0);
    assert!(tree.exists());
    drop(sandbox);
    assert!(!tree.exists());
}

#[test]
fn what_is_required_is_there_or_nothing_is() {
    let root = workspace();
    let offered = Sandbox::confined(root.path(), 1, Mode::BestEffort).expect("a copy").layers().clone();
    match Sandbox::confined(root.path(), 1, Mode::Require) {
        Ok(sandbox) => assert_eq!(sandbox.layers().on.len(), Layer::ALL.len()),
        Err(SandboxError::Missing { missing }) => {
            let (layer, reason) = offered.missing.first().expect("something is missing");
            assert!(missing.contains(&layer.to_string()) && missing.contains(reason), "{missing}");
        }
        Err(error) => panic!("{error}"),
    }
    let off = Sandbox::confined(root.path(), 1, Mode::Off).expect("a copy");
    assert!(off.layers().on.is_empty() && off.level().contains("without resource limits"), "{}", off.level());
}

#[cfg(target_os = "linux")]
#[test]
fn a_layer_that_goes_missing_runs_nothing() {
    let root = workspace();
    let mut sandbox = Sandbox::copy(root.path(), 1).expect("a copy");
    if !sandbox.layers().on.contains(&Layer::Root) {
        return; // the other layers need nothing that a test can take away
    }
    sandbox.paths.root_at = sandbox.tree(0).join("gone");
    let started = sandbox.run(&shell(&sandbox, "echo out"), Duration::from_secs(20), &Cancel::new());
    assert!(matches!(&started, Err(SandboxError::Open { reason }) if reason.contains("root folder")), "{started:?}");
}

#[test]
fn a_program_that_is_not_there_is_told_from_one_that_fails() {
    let root = workspace();
    let sandbox = Sandbox::copy(root.path(), 1).expect("a copy");
    let invocation = Invocation { program: "nanochat-no-such-program".into(), ..shell(&sandbox, "") };
    let started = sandbox.run(&invocation, Duration::from_secs(20), &Cancel::new());
    assert!(matches!(&started, Err(SandboxError::Spawn { .. })), "{started:?}");
}

#[test]
fn output_and_status_come_back_and_the_environment_is_cleared() {
    let root = workspace();
    let sandbox = Sandbox::copy(root.path(), 1).expect("a copy");
    let run = |script| sandbox.run(&shell(&sandbox, script), Duration::from_secs(20), &Cancel::new());
    let finished = run("echo out; echo err >&2; exit 3").expect("it runs");
    assert_eq!((finished.stdout.as_slice(), finished.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert!(!finished.success && !finished.timed_out);
    let finished = run("env | cut -d= -f1").expect("it runs");
    let text = String::from_utf8(finished.stdout).expect("names");
    for name in text.lines() {
        let known = KEPT_VARIABLES.contains(&name) || ["TMPDIR", "PWD", "SHLVL", "_", "OLDPWD"].contains(&name);
        assert!(known, "{name} was kept");
    }
}

#[test]
fn the_clock_ends_the_whole_group() {
    let root = workspace();
    let sandbox = Sandbox::copy(root.path(), 1).expect("a copy");
    let start = Instant::now();
    let invocation = shell(&sandbox, "sleep 311.7 & echo $!; sleep 300");
    let finished = sandbox.run(&invocation, Duration::from_millis(400), &Cancel::new()).expect("it runs");
    assert!(finished.timed_out && !finished.success);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_gone(&finished.stdout, "311.7");
}

#[test]
fn what_a_finished_command_left_behind_is_killed() {
    let root = workspace();
    let sandbox = Sandbox::copy(root.path(), 1).expect("a copy");
    let invocation = shell(&sandbox, "sleep 322.9 & echo $!");
    let finished = sandbox.run(&invocation, Duration::from_secs(20), &Cancel::new()).expect("it runs");
    assert!(finished.success);
    assert_gone(&finished.stdout, "322.9");
}

#[test]
fn a_cancelled_command_is_killed() {
    let root = workspace();
    let sandbox = Sandbox::copy(root.path(), 1).expect("a copy");
    let cancel = Cancel::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            cancel.cancel();
        });
        let start = Instant::now();
        let result = sandbox.run(&shell(&sandbox, "sleep 300"), Duration::from_secs(300), &cancel);
        assert!(matches!(result, Err(SandboxError::Cancelled(_))));
        assert!(start.elapsed() < Duration::from_secs(20));
    });
}

/// Checks that the process whose id was printed has ended; a zombie counts as ended. If the id is from another process
/// namespace, the process is recognized by its last argument.
fn assert_gone(stdout: &[u8], argument: &str) {
    let text = String::from_utf8_lossy(stdout);
    let pid: i32 = text.trim().parse().expect("the shell printed a process id");
    let give_up = Instant::now() + Duration::from_secs(5);
    while is_alive(pid, argument) {
        assert!(Instant::now() < give_up, "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(target_os = "linux")]
fn is_alive(_pid: i32, argument: &str) -> bool {
    let argument = format!("{argument}\0");
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    // A zombie has no arguments.
    processes.into_iter().any(|process| {
        std::fs::read(process.path().join("cmdline")).is_ok_and(|line| line.ends_with(argument.as_bytes()))
    })
}

#[cfg(not(target_os = "linux"))]
fn is_alive(pid: i32, _argument: &str) -> bool {
    use rustix::process::{Pid, test_kill_process};
    test_kill_process(Pid::from_raw(pid).expect("not 0")).is_ok()
}
