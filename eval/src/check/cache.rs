//! What a run reuses from earlier ones: the dependencies that cargo built, and which holes passed the filters.
//!
//! ```text
//! <root>/builds/<key>/   target folder without the crates that holes are cut from
//! <root>/gates/<key>     the lines of one project in gates.jsonl
//! <root>/locks/          one file for all keys of a kind with the same last digit
//! ```
//!
//! A key is a hash of everything that the content depends on. Entries are written to a temporary name and renamed, and
//! a build that is being copied is not replaced, so runs that share the folder see complete entries or none; candidates
//! see none of it. cargo checks each artefact's own fingerprint again, so a build that does not fit costs time and
//! changes no verdict.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most builds that are kept; the least recently used one is removed, unless it is being copied.
const MAX_BUILDS: usize = 6;
/// Most outcomes of hole filters that are kept, of a few kilobytes each.
const MAX_GATES: usize = 2000;
/// Marker file; its time is when the entry was last used.
const USED: &str = "nanochat-used";

/// The cache folder; errors only cost time.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// Copies the build of that key into a target folder that is empty; whether there was one. If copying fails half way,
    /// the folder is empty again.
    pub(crate) fn take_build(&self, key: &str, target: &Path) -> bool {
        let taken = || -> io::Result<bool> {
            let lock = self.lock_file("builds", key)?;
            lock.lock_shared()?;
            let place = self.place("builds", key);
            if !place.is_dir() {
                return Ok(false);
            }
            copy(&place, target, &|_| true)?;
            fs::write(place.join(USED), "")?;
            Ok(true)
        };
        taken().unwrap_or_else(|error| {
            tracing::debug!("a kept build cannot be used: {error}");
            let _ = fs::remove_dir_all(target).and_then(|()| fs::create_dir_all(target));
            false
        })
    }

    /// Keeps a target folder, without files that have one of these words in their name.
    pub(crate) fn keep_build(&self, key: &str, target: &Path, without: &[String]) {
        let is_kept = |name: &OsStr| !without.iter().any(|word| name.to_string_lossy().contains(word.as_str()));
        self.keep("builds", key, MAX_BUILDS, |new| {
            copy(target, new, &is_kept).and_then(|()| fs::write(new.join(USED), ""))
        });
    }

    /// The lines that were kept under that key.
    pub(crate) fn take_lines<T: DeserializeOwned>(&self, key: &str) -> Option<Vec<T>> {
        let bytes = fs::read(self.place("gates", key).join("lines.jsonl")).ok()?;
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        // Lines of another version are computed again.
        let lines = lines.map(serde_json::from_slice).collect::<Result<_, _>>().ok()?;
        let _ = fs::write(self.place("gates", key).join(USED), "");
        Some(lines)
    }

    pub(crate) fn keep_lines<T: Serialize>(&self, key: &str, lines: &[T]) {
        let text = lines.iter().map(|line| Ok(serde_json::to_string(line)? + "\n")).collect::<io::Result<String>>();
        self.keep("gates", key, MAX_GATES, |new| {
            fs::create_dir_all(new)?;
            fs::write(new.join("lines.jsonl"), text?)?;
            fs::write(new.join(USED), "")
        });
    }

    fn place(&self, kind: &str, key: &str) -> PathBuf {
        self.root.join(kind).join(key)
    }

    /// Writes an entry. If that fails, the next run is only slower.
    fn keep(&self, kind: &str, key: &str, most: usize, write: impl FnOnce(&Path) -> io::Result<()>) {
        let kept = || -> io::Result<()> {
            let folder = self.root.join(kind);
            fs::create_dir_all(&folder)?;
            let new = tempfile::Builder::new().prefix(".new-").tempdir_in(&folder)?;
            let whole = new.path().join("whole");
            write(&whole)?;
            // If another run uses the entry, it stays: it is just as good.
            if let Some(_lock) = self.lock_unused(kind, key)? {
                let place = folder.join(key);
                let _ = fs::rename(&place, new.path().join("old"));
                fs::rename(&whole, &place)?;
            }
            self.prune(kind, most, new.path())
        };
        if let Err(error) = kept() {
            tracing::debug!("nothing is kept for the next run: {error}");
        }
    }

    /// Moves entries away until `most` are left, except those in use, and removes what a killed run left half written a
    /// day ago. Entries are moved before they are removed, since a killed run would leave half of them in place.
    fn prune(&self, kind: &str, most: usize, away: &Path) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.root.join(kind))? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let is_new = name.starts_with(".new-");
            let used = if is_new { path.clone() } else { path.join(USED) };
            let used = used.metadata().and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            if !is_new {
                entries.push((used, name));
            } else if used.elapsed().is_ok_and(|age| age.as_secs() > 86_400) {
                fs::remove_dir_all(path)?;
            }
        }
        entries.sort();
        let n = entries.len().saturating_sub(most);
        for (_, key) in entries.into_iter().take(n) {
            if let Some(_lock) = self.lock_unused(kind, &key)? {
                let _ = fs::rename(self.place(kind, &key), away.join(key)); // another run may have been faster
            }
        }
        Ok(())
    }

    /// The lock of an entry: shared while it is copied, exclusive while it is replaced. Lock files stay, so that all
    /// runs lock the same one; keys with the same last digit share one, so that there are few.
    fn lock_file(&self, kind: &str, key: &str) -> io::Result<File> {
        let folder = self.root.join("locks");
        fs::create_dir_all(&folder)?;
        let end = key.chars().next_back().unwrap_or_default();
        File::options().create(true).truncate(false).write(true).open(folder.join(format!("{kind}-{end}")))
    }

    /// The exclusive lock of an entry; `None` if another run has it.
    fn lock_unused(&self, kind: &str, key: &str) -> io::Result<Option<File>> {
        let file = self.lock_file(kind, key)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Copies files and folders with their times, by which cargo knows what is fresh. A target folder has no links.
fn copy(from: &Path, to: &Path, is_kept: &dyn Fn(&OsStr) -> bool) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if name == USED || name == "incremental" || !is_kept(&name) {
            continue;
        }
        let target = to.join(&name);
        if kind.is_dir() {
            copy(&entry.path(), &target, is_kept)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
            File::options().write(true).open(&target)?.set_modified(entry.metadata()?.modified()?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_comes_back_with_its_times_and_without_what_is_not_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let (target, other) = (folder.path().join("target"), folder.path().join("other"));
        fs::create_dir_all(target.join("debug/deps")).expect("a folder");
        for name in ["debug/deps/libdep-0a.rmeta", "debug/deps/libown-ff.rmeta"] {
            fs::write(target.join(name), name).expect("a file");
        }
        let cache = Cache::new(&folder.path().join("cache"));
        assert!(!cache.take_build("k", &other));
        cache.keep_build("k", &target, &["-ff".to_owned()]);
        assert!(cache.take_build("k", &other) && !cache.take_build("l", &other));
        assert!(!other.join("debug/deps/libown-ff.rmeta").exists());
        let time = |root: &Path| root.join("debug/deps/libdep-0a.rmeta").metadata().expect("a file").modified().ok();
        assert_eq!(time(&target), time(&other));
        // Again under the same key, in its place.
        fs::write(target.join("debug/deps/libdep-0a.rmeta"), "newer").expect("a file");
        cache.keep_build("k", &target, &[]);
        let again = folder.path().join("again");
        assert!(cache.take_build("k", &again));
        assert_eq!(fs::read_to_string(again.join("debug/deps/libdep-0a.rmeta")).expect("a file"), "newer");
        assert!(again.join("debug/deps/libown-ff.rmeta").exists());
    }

    #[test]
    fn a_build_that_is_being_copied_is_neither_replaced_nor_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, target) = (Cache::new(folder.path()), folder.path().join("target"));
        fs::create_dir_all(&target).expect("a folder");
        let keep = |key: &str, text: &str| {
            fs::write(target.join("a.rmeta"), text).expect("a file");
            cache.keep_build(key, &target, &[]);
        };
        let kept = || fs::read_to_string(folder.path().join("builds/k/a.rmeta")).ok();
        keep("k", "first");
        std::thread::sleep(std::time::Duration::from_millis(20));
        let copying = cache.lock_file("builds", "k").expect("a file");
        copying.lock_shared().expect("nobody changes it");
        keep("k", "second");
        (0..MAX_BUILDS).for_each(|at| keep(&at.to_string(), "other"));
        assert_eq!(kept().as_deref(), Some("first"));
        drop(copying);
        keep("0", "other");
        assert_eq!(kept(), None);
        keep("k", "second");
        keep("k", "third");
        assert_eq!(kept().as_deref(), Some("third"));
    }

    #[test]
    fn what_is_taken_is_one_build_while_others_take_its_place() {
        const N_FILES: usize = 40;
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(&folder.path().join("cache"));
        let targets = ["first", "second"].map(|text| {
            let target = folder.path().join(text);
            fs::create_dir_all(&target).expect("a folder");
            (0..N_FILES).for_each(|at| fs::write(target.join(at.to_string()), text).expect("a file"));
            target
        });
        cache.keep_build("k", &targets[0], &[]);
        std::thread::scope(|scope| {
            scope.spawn(|| targets.iter().cycle().take(60).for_each(|target| cache.keep_build("k", target, &[])));
            for at in 0..30 {
                let taken = folder.path().join(format!("taken-{at}"));
                assert!(cache.take_build("k", &taken));
                let files = fs::read_dir(&taken).expect("it was taken").map(|entry| entry.expect("a file").path());
                let texts: Vec<String> = files.map(|path| fs::read_to_string(path).expect("a file")).collect();
                assert_eq!(texts, vec![texts[0].clone(); N_FILES]);
            }
        });
    }

    #[test]
    fn the_oldest_go_and_damaged_lines_are_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, target) = (Cache::new(folder.path()), folder.path().join("target"));
        fs::create_dir_all(&target).expect("a folder");
        for at in 0..MAX_BUILDS + 2 {
            cache.keep_build(&at.to_string(), &target, &[]);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let kept = (0..MAX_BUILDS + 2).filter(|at| folder.path().join(format!("builds/{at}")).exists());
        assert_eq!(kept.collect::<Vec<_>>(), (2..MAX_BUILDS + 2).collect::<Vec<_>>());
        cache.keep_lines("g", &[1, 2, 3]);
        assert_eq!(cache.take_lines::<u32>("g"), Some(vec![1, 2, 3]));
        assert_eq!(cache.take_lines::<u32>("h"), None);
        fs::write(folder.path().join("gates/g/lines.jsonl"), "1\nx\n").expect("a file");
        assert_eq!(cache.take_lines::<u32>("g"), None);
    }
}
