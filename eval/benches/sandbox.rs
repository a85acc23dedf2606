//! What the sandbox costs a check: `cargo bench -p nanochat-eval --bench sandbox`.
//!
//! The same command with all layers, with none, and bare, in turns, so that a noisy machine treats them alike.
#![expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nanochat_engine::Cancel;
use nanochat_eval::sandbox::{Access, Invocation, Mode, Sandbox};

const N_ROUNDS: usize = 200;

fn main() {
    nanochat_eval::sandbox::become_helper_if_asked();
    let workspace = tempfile::tempdir().expect("a temporary folder");
    let sandboxes =
        [Mode::BestEffort, Mode::Off].map(|mode| Sandbox::confined(workspace.path(), 1, mode).expect("a sandbox"));
    println!("{}", sandboxes[0].level());
    for (layer, reason) in &sandboxes[0].layers().missing {
        println!("missing: {layer}: {reason}");
    }
    for (program, args) in [("/bin/true", &[][..]), ("rustc", &["--version"][..])] {
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..N_ROUNDS {
            for (sandbox, times) in sandboxes.iter().zip(&mut times) {
                times.push(timed(|| confined(sandbox, program, args)));
            }
            times[2].push(timed(|| bare(program, args, &sandboxes[0].tree(0))));
        }
        for (name, times) in ["all layers", "no layer", "bare process"].iter().zip(&mut times) {
            times.sort_by(f64::total_cmp);
            let [least, median, p95] = [0, N_ROUNDS / 2, N_ROUNDS * 95 / 100].map(|at| times[at]);
            println!("{program:10} {name:13} min {least:6.2} ms   median {median:6.2} ms   p95 {p95:6.2} ms");
        }
        println!("{program:10} overhead      median {:6.2} ms", times[0][N_ROUNDS / 2] - times[1][N_ROUNDS / 2]);
    }
}

fn timed(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    1000.0 * start.elapsed().as_secs_f64()
}

fn confined(sandbox: &Sandbox, program: &str, args: &[&str]) {
    let invocation = Invocation {
        program: program.into(),
        args: args.iter().map(Into::into).collect(),
        env: Vec::new(),
        folder: sandbox.tree(0),
    };
    let finished = sandbox.run_as(Access::Compile, &invocation, Duration::from_secs(20), &Cancel::new());
    let finished = finished.expect("it runs");
    assert!(finished.success, "{}", String::from_utf8_lossy(&finished.stderr));
}

fn bare(program: &str, args: &[&str], folder: &Path) {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    assert!(command.status().expect("it runs").success());
}
