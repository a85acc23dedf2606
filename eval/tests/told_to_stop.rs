//! A test in its own process, since it kills whatever runs in any sandbox.
#![cfg(unix)]

use std::time::{Duration, Instant};

use nanochat_engine::Cancel;
use nanochat_eval::sandbox::{Invocation, Sandbox, kill_all};

#[test]
fn a_process_that_is_told_to_stop_leaves_no_command_behind() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let sandbox = Sandbox::copy(root.path(), 1).expect("a copy");
    let ready = sandbox.scratch(0).join("ready");
    let invocation = Invocation {
        program: "sh".into(),
        args: vec!["-c".into(), "sleep 300 & touch ready; wait".into()],
        env: Vec::new(),
        folder: sandbox.scratch(0),
    };
    std::thread::scope(|scope| {
        let start = Instant::now();
        let command = scope.spawn(|| sandbox.run(&invocation, Duration::from_secs(30), &Cancel::new()));
        while !ready.exists() {
            assert!(start.elapsed() < Duration::from_secs(20), "the command does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        kill_all();
        let finished = command.join().expect("no panic").expect("it was started");
        assert!(!finished.success && !finished.timed_out, "the wall clock is not what ended it");
        assert!(!sandbox.tree(0).exists(), "the folder is removed, since nobody drops the sandbox");
    });
}
