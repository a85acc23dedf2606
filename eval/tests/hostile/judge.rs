//! Runs every candidate and reports whether it was contained.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nanochat_engine::Cancel;
use nanochat_eval::sandbox::{Access, Finished, Invocation, Layer, Level, Mode, Sandbox};

use crate::candidates::{ALL, Candidate, Sign, Stage};
use crate::world::World;

/// Time limit of one command. Harmless ones take a second.
const CLOCK: Duration = Duration::from_secs(8);
/// Compiling the candidates that harm when they run is honest work, on a machine that may be busy.
const HONEST_CLOCK: Duration = Duration::from_secs(120);
/// How long killed processes may take to disappear.
const PATIENCE: Duration = Duration::from_secs(5);
/// Limit of all output that is kept.
const MOST_OUTPUT: usize = 32 << 20;

/// What a machine must offer at least for a result to mean something.
const FEWEST: usize = 20;

/// Runs all candidates, each in its own sandbox.
pub(crate) fn all(root: &Path) -> ExitCode {
    let mut world = World::open(root).expect("a world");
    let level = sandbox(&world, None).layers().clone();
    let user = rustix::process::geteuid().as_raw();
    println!("user {user}: {level}");
    let (mut n_contained, mut n_skipped, mut n_failed) = (0, 0, 0);
    for candidate in ALL {
        let stopped =
            candidate.stopped_by.is_empty() || candidate.stopped_by.iter().any(|layer| level.on.contains(layer));
        if !stopped {
            println!("  {:16} skipped: {}", candidate.name, reasons(candidate, &level));
            n_skipped += 1;
            continue;
        }
        let start = Instant::now();
        let harm = play(candidate, &mut world, None);
        let time = start.elapsed().as_secs_f64();
        if harm.is_empty() {
            println!("  {:16} contained ({time:.1} s)", candidate.name);
            n_contained += 1;
        } else {
            println!("  {:16} NOT CONTAINED ({time:.1} s): {}", candidate.name, harm.join("; "));
            n_failed += 1;
        }
    }
    println!("user {user}: {n_contained} of {} contained, {n_skipped} skipped, {n_failed} not contained", ALL.len());
    let is_whole = level.missing.is_empty();
    assert!(!is_whole || n_contained + n_failed >= FEWEST && n_skipped == 0, "a whole sandbox skips nobody");
    drop(world);
    let n_out = alone(root, &level);
    let n_harmless = control(root);
    if n_failed + n_out + n_harmless == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn reasons(candidate: &Candidate, level: &Level) -> String {
    let of = |layer| level.missing.iter().find(|(missing, _)| missing == layer);
    let reasons = candidate.stopped_by.iter().filter_map(of).map(|(layer, reason)| format!("no {layer} ({reason})"));
    reasons.collect::<Vec<_>>().join(", ")
}

/// Runs a candidate with all layers that the machine has, or with these alone.
fn sandbox(world: &World, layers: Option<&[Layer]>) -> Sandbox {
    let sandbox = Sandbox::confined(&world.root.join("workspace"), 1, Mode::BestEffort);
    let mut sandbox = sandbox.expect("a sandbox");
    if let Some(layers) = layers {
        sandbox.reduce_to(layers).expect("its folder is ours");
    }
    sandbox
}

/// Each layer alone holds off whom it is said to. Only those that may be let loose if it does not. How many got out.
fn alone(root: &Path, level: &Level) -> usize {
    let mut n_out = 0;
    for layer in Layer::ALL.into_iter().filter(|layer| level.on.contains(layer)) {
        // A root of its own needs a mount namespace.
        let layers = if layer == Layer::Root { &[Layer::Namespaces, Layer::Root][..] } else { &[layer] };
        let is_its = |candidate: &&Candidate| candidate.is_safe_to_release && candidate.stopped_by.contains(&layer);
        let (mut n_held, mut n) = (0, 0);
        for candidate in ALL.iter().filter(is_its) {
            let harm = play(candidate, &mut World::open(root).expect("a world"), Some(layers));
            n += 1;
            match harm.is_empty() {
                true => n_held += 1,
                false => println!("  {:16} NOT CONTAINED by {layer} alone: {}", candidate.name, harm.join("; ")),
            }
        }
        n_out += n - n_held;
        if n > 0 {
            println!("{layer} alone holds {n_held} of {n}");
        }
    }
    n_out
}

/// The other half of the proof: without layers, the same candidates do the harm that they were kept from. Only those
/// whose harm is to a world that is thrown away afterwards. How many did none.
fn control(root: &Path) -> usize {
    let released: Vec<_> = ALL.iter().filter(|candidate| candidate.is_safe_to_release).collect();
    let mut n_harmless = 0;
    for candidate in &released {
        let is_harmless = play(candidate, &mut World::open(root).expect("a world"), Some(&[])).is_empty();
        if is_harmless {
            println!("  {:16} does no harm even without the sandbox: it proves nothing", candidate.name);
            n_harmless += 1;
        }
    }
    println!("without a layer {} of {} do harm", released.len() - n_harmless, released.len());
    n_harmless
}

/// What harm a candidate did, or how else it was not as it should be.
fn play(candidate: &Candidate, world: &mut World, layers: Option<&[Layer]>) -> Vec<String> {
    let sandbox = sandbox(world, layers);
    let (tree, scratch) = (sandbox.tree(0), sandbox.scratch(0));
    let source = tree.join("src/candidate.rs");
    std::fs::write(&source, candidate.source).expect("the candidate's source");
    // Survivors are recognized by it.
    let program = scratch.join(format!("{}-{}", candidate.name, world.marker));
    let mut args: Vec<std::ffi::OsString> =
        ["--edition=2024", "--crate-name=candidate", "--error-format=json"].map(Into::into).into();
    match candidate.stage {
        Stage::Compiled => args.extend([
            "--crate-type=lib".into(),
            "--emit=metadata".into(),
            "--out-dir".into(),
            scratch.clone().into(),
        ]),
        Stage::Run => args.extend(["-o".into(), program.clone().into()]),
    }
    args.push(source.into());
    let env = [
        ("HOSTILE_WORLD", world.root.clone().into_os_string()),
        ("HOSTILE_SCRATCH", scratch.clone().into()),
        ("HOSTILE_TREE", tree.clone().into()),
        ("HOSTILE_PROGRAM", program.clone().into()),
        ("HOSTILE_TCP", world.tcp.local_addr().expect("an address").to_string().into()),
        ("HOSTILE_UDP", world.udp.local_addr().expect("an address").to_string().into()),
        ("HOSTILE_ABSTRACT", world.marker.clone().into()),
        ("HOSTILE_VICTIM", world.victim.id().to_string().into()),
        ("HOSTILE_MARKER", world.marker.clone().into()),
    ];
    let env: Vec<_> = env.map(|(name, value)| (name.into(), value)).into();
    let mut command = Invocation { program: "rustc".into(), args, env, folder: tree.clone() };
    let mut clock = if candidate.stage == Stage::Compiled { CLOCK } else { HONEST_CLOCK };
    let mut access = Access::Compile;
    if candidate.stage == Stage::Run {
        let finished = sandbox.run_as(access, &command, clock, &Cancel::new()).expect("rustc starts");
        if !finished.success {
            return vec![format!("it does not compile: {}", String::from_utf8_lossy(&finished.stderr))];
        }
        (clock, access) = (CLOCK, Access::Execute);
        command.program = program.clone().into();
        command.args.clear();
    }
    let start = Instant::now();
    let (finished, most_processes) = watched(&world.marker, || sandbox.run_as(access, &command, clock, &Cancel::new()));
    let finished = finished.expect("it starts");
    let mut harm = signs(candidate, &finished, most_processes);
    // The clock, what killing takes, and a machine that is busy with other things.
    if start.elapsed() > 3 * clock {
        harm.push(format!("it took {:.1} s", start.elapsed().as_secs_f64()));
    }
    harm.extend(world.harm());
    for (stream, bytes) in [("stdout", &finished.stdout), ("stderr", &finished.stderr)] {
        if bytes.len() > MOST_OUTPUT {
            harm.push(format!("{} bytes of {stream}", bytes.len()));
        }
        if contains(bytes, &world.token) {
            harm.push(format!("a secret in {stream}"));
        }
    }
    if holds(&scratch, &world.token) {
        harm.push("a secret in the scratch folder".to_owned());
    }
    if std::fs::read_to_string(tree.join("src/lib.rs")).ok().as_deref() != Some("pub fn f() {}\n")
        || tree.join("build.rs").exists()
    {
        harm.push("the tree is changed".to_owned());
    }
    let give_up = Instant::now() + PATIENCE;
    while n_processes(&world.marker) > 0 && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(20));
    }
    let n_left = n_processes(&world.marker);
    if n_left > 0 {
        harm.push(format!("{n_left} processes are left"));
    }
    harm
}

fn signs(candidate: &Candidate, finished: &Finished, most_processes: usize) -> Vec<String> {
    let stdout = String::from_utf8_lossy(&finished.stdout);
    let counted = stdout.lines().find_map(|line| line.strip_prefix("count ")?.parse::<u64>().ok());
    let ran = || match finished.success {
        true => None,
        false => Some(format!("it did not run to its end: {}", String::from_utf8_lossy(&finished.stderr))),
    };
    let sign = match candidate.sign {
        Sign::Fails => finished.success.then(|| "it compiles".to_owned()),
        Sign::Ends => finished.success.then(|| "it succeeds".to_owned()),
        Sign::Finishes => ran(),
        Sign::FinishesWithout(word) => ran().or_else(|| stdout.contains(word).then(|| word.to_owned())),
        Sign::Counts(most) => match counted {
            Some(n) => (n > most).then(|| format!("it had {n}")),
            None => Some(format!("it counted nothing: {}", String::from_utf8_lossy(&finished.stderr))),
        },
        Sign::Processes(most) => match most_processes {
            0 | 1 => Some("it did not multiply".to_owned()),
            n => (n > most).then(|| format!("there were {n} processes")),
        },
    };
    sign.into_iter().collect()
}

/// The result of `run`, and how many processes of the candidate were seen at most.
fn watched<T>(marker: &str, run: impl FnOnce() -> T) -> (T, usize) {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !is_done.load(Ordering::Acquire) {
                most = most.max(n_processes(marker));
                std::thread::sleep(Duration::from_millis(50));
            }
            most
        });
        let result = run();
        is_done.store(true, Ordering::Release);
        (result, watch.join().expect("no panic"))
    })
}

/// Living processes that run a candidate's program.
fn n_processes(marker: &str) -> usize {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|process| {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let program = line.split(|&byte| byte == 0).next().unwrap_or_default();
            contains(program, marker)
        })
        .count()
}

fn holds(folder: &Path, token: &str) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => holds(&entry.path(), token),
        Ok(kind) if kind.is_file() => std::fs::read(entry.path()).is_ok_and(|bytes| contains(&bytes, token)),
        _ => false,
    })
}

fn contains(bytes: &[u8], token: &str) -> bool {
    bytes.windows(token.len()).any(|window| window == token.as_bytes())
}
