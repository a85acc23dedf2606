//! Finds and kills processes that left their group, by following parents and children.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A process may start another between listing and killing; repeating this ends soon, since killed ones start none.
const GIVE_UP: Duration = Duration::from_secs(2);

/// Kills all descendants of a process and not itself. Orphans count if the process adopts them (a subreaper).
pub(super) fn kill_descendants(of: u32) {
    let start = Instant::now();
    loop {
        let living = descendants(of);
        if living.is_empty() || start.elapsed() > GIVE_UP {
            return;
        }
        for pid in living {
            // The only failure is that it ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Living descendants, including those of zombies.
fn descendants(of: u32) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<(i32, bool)>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // `pid (name) state parent ..`, and the name may hold anything.
        let mut words = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        if let (Some(state), Some(Ok(parent))) = (words.next(), words.next().map(str::parse::<i32>)) {
            children.entry(parent).or_default().push((pid, state != "Z" && state != "X"));
        }
    }
    let mut found = Vec::new();
    let mut todo = vec![of.cast_signed()];
    while let Some(parent) = todo.pop() {
        for (pid, is_alive) in children.remove(&parent).unwrap_or_default() {
            todo.push(pid);
            found.extend(Pid::from_raw(pid).filter(|_| is_alive));
        }
    }
    found
}
