//! Hostile candidates, run as an evaluation runs them: as this user, and where this is root, as another user
//! too. Containment is seen by its effects: nothing is read, reached, written, killed or left running.
//!
//! A candidate that only a missing layer of this machine would stop is not run, and the output says so. A program of
//! its own and no `#[test]`s, since it starts itself: as the sandbox's helper and as the other user.
#![expect(clippy::print_stdout, reason = "what was contained, skipped or not is its output")]

use std::process::ExitCode;

#[cfg(target_os = "linux")]
mod candidates;
#[cfg(target_os = "linux")]
mod judge;
#[cfg(target_os = "linux")]
mod world;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    println!("hostile candidates: skipped, {} has no layer that would contain them", std::env::consts::OS);
    ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    nanochat_eval::sandbox::become_helper_if_asked();
    if let Some(world) = std::env::var_os("HOSTILE_PLAY") {
        return judge::all(std::path::Path::new(&world));
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let tests = ["hostile_candidates_are_contained", "hostile_candidates_are_contained_as_another_user"];
    if args.iter().any(|arg| arg == "--list") {
        tests.iter().for_each(|test| println!("{test}: test"));
        return ExitCode::SUCCESS;
    }
    let is_exact = args.iter().any(|arg| arg == "--exact");
    let wanted = |test: &str| {
        let mut filters = args.iter().filter(|arg| !arg.starts_with('-')).peekable();
        let is_wanted = |filter: &String| if is_exact { filter == test } else { test.contains(filter) };
        !args.iter().any(|arg| arg == "--ignored") && (filters.peek().is_none() || filters.any(is_wanted))
    };
    let mut is_good = true;
    if wanted(tests[0]) {
        is_good &= world::play(tests[0], None);
    }
    if wanted(tests[1]) {
        let root = rustix::process::geteuid().is_root();
        match root {
            true => is_good &= world::play(tests[1], Some(world::ANOTHER)),
            false => println!("test {} ... skipped: only root can become another user", tests[1]),
        }
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
