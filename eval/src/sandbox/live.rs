//! Running commands and existing folders, so that a process that must end at once can clean up.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Leaders of the running process groups. An id is removed before its process is reaped, so it cannot have been reused.
static LIVE: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
/// Folders of the existing sandboxes.
static FOLDERS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts and registers a command atomically: [`kill_all`] sees it either not yet started or registered.
pub(super) fn start(command: &mut Command) -> io::Result<Child> {
    let mut live = locked(&LIVE);
    let child = command.spawn()?;
    live.insert(child.id());
    Ok(child)
}

/// Unregisters a command; call it before the process is reaped.
pub(super) fn forget(child: &Child) {
    locked(&LIVE).remove(&child.id());
}

/// A folder that [`kill_all`] removes as long as this lives.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(path: &Path) -> Self {
        locked(&FOLDERS).insert(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        locked(&FOLDERS).remove(&self.0);
    }
}

/// Kills all commands that run in any sandbox and removes the sandboxes' folders: for a process that ends without
/// waiting for its threads. Cancel first, or the next command starts. Kills nothing where there are no process
/// groups.
pub fn kill_all() {
    // The lock is held to the end, so nothing is started in a folder that is being removed.
    let live = locked(&LIVE);
    #[cfg(unix)]
    for id in live.iter() {
        kill_tree_of(*id);
        kill_group_of(*id);
    }
    for folder in locked(&FOLDERS).iter() {
        // Killed processes may still write for a moment, and a folder that is written to cannot be removed.
        for _ in 0..100 {
            match std::fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => std::thread::sleep(Duration::from_millis(10)),
                _ => break,
            }
        }
    }
    drop(live);
}

/// Kills what a command started, whatever group it is in, as far as its ancestors live.
#[cfg(unix)]
pub(super) fn kill_tree_of(id: u32) {
    #[cfg(target_os = "linux")]
    super::survivors::kill_descendants(id);
    let _ = id;
}

/// Kills the group that a command leads.
#[cfg(unix)]
pub(super) fn kill_group_of(id: u32) {
    use rustix::process::{Pid, Signal, kill_process_group};
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        // The only failure is that the group is empty already.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}
