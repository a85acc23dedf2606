//! Indexes and symbols of dependencies, kept for all workspaces and servers of a user.
//!
//! ```text
//! <folder>/
//!   stamps/<folder and tokenizer>   the stamp of a package, and the key of its stream: nothing is read twice
//!   streams/<key>                   its tokens; the key is a hash of its text and of the tokenizer
//!   symbols/<folder>                the stamp of a package, and its symbols: see [`crate::symbols`]
//!   indexes/<set of keys>           one index of the streams of all packages: see [`crate::memory::Library`]
//!   lock                            held by the process that encodes
//! ```
//!
//! ```text
//! packages → stamps → keys → index exists?  open it
//!                            otherwise      streams (encoded where they are missing) → index
//! ```
//!
//! Every file is written under a temporary name and renamed, and is hashed when it is read: damaged files are rebuilt.
//! Indexes are synced before they get their names. Streams and stamps are not: one lost in a power cut costs the
//! encoding of a package, and some hundred syncs would cost more than encoding all of them.

mod build;
mod files;
mod stream;
mod symbols;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::sources::{Package, Role};
use crate::memory::Library;
use crate::memory::index::{Index, IndexError, IndexId};
use crate::text::tokenizer::Tokenizer;
use crate::{Cancel, Cancelled};
use files::Hash;

/// A package with more source is left out: nearly always it is bindings or tables.
const MOST_PACKAGE_BYTES: u64 = 8 << 20;
/// How often a process checks whether the one before it is done.
const POLL: Duration = Duration::from_millis(100);
/// Temporary files of a process that died are removed after this long. Younger ones may belong to a process that writes
/// without the lock because it could not get it, so holding the lock does not prove that they are abandoned.
const ABANDONED: Duration = Duration::from_secs(3600);
/// Stamps of packages that no workspace has opened for so long are removed.
const FORGOTTEN: Duration = Duration::from_secs(90 * 24 * 3600);

/// A cache of indexes and symbols, in a folder.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    most_bytes: u64,
}

/// What a library is made from, and how.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The packages; their order does not matter.
    pub packages: &'a [Package],
    /// The tokenizer that encodes them.
    pub tokenizer: &'a Tokenizer,
    /// How many threads encode and sort.
    pub n_threads: usize,
    /// Ends the work after the current package.
    pub cancel: &'a Cancel,
}

/// What happens while a library is made. Of the user's data it names only packages and files.
#[derive(Clone, Debug)]
pub enum Event {
    /// A package or a file is left out.
    Skipped {
        /// The name of the package or the path of the file.
        what: String,
        /// Why it is left out.
        reason: String,
    },
    /// Another process works on this cache; this one waits for it.
    Waiting,
    /// A file of the cache is damaged and is rebuilt.
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The library cannot be stored: it, or a part of it, is in memory until this process ends.
    NotKept {
        /// Why it cannot be stored.
        reason: String,
    },
    /// A part of the library, to be used until more is ready.
    Partial(Library),
}

impl Cache {
    /// The default limit on the bytes of a cache.
    pub const MOST_BYTES: u64 = 4 << 30;

    /// A cache in a folder, which need not exist yet.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), most_bytes: Self::MOST_BYTES }
    }

    /// This cache with another limit. The least recently used files are removed first.
    #[must_use]
    pub fn with_most_bytes(self, most_bytes: u64) -> Self {
        Self { most_bytes, ..self }
    }

    /// The library of some packages: from the cache, or made now. Whatever goes wrong on the disk is an event, and the
    /// library then holds as much as could be read.
    pub fn library(&self, request: &Request<'_>, tell: &mut dyn FnMut(Event)) -> Result<Library, Cancelled> {
        if request.packages.is_empty() {
            return Ok(Library::default());
        }
        let mut wanted = self.wanted(request);
        for (package, stamp) in wanted.too_large.drain(..) {
            let reason = format!("it has {} MiB of source: bindings or tables", stamp >> 20);
            tell(Event::Skipped { what: package, reason });
        }
        // Damage is reported below, under the lock: until then another process may rebuild the file.
        if let Some(library) = self.open(&wanted, request, &mut |_| ()) {
            return Ok(library);
        }
        let lock = match self.lock(request.cancel, tell)? {
            Ok(lock) => Some(lock),
            Err(error) => {
                tell(Event::NotKept { reason: error.to_string() });
                None
            }
        };
        // The process before this one may have made what is wanted.
        wanted.recall();
        if let Some(library) = self.open(&wanted, request, tell) {
            return Ok(library);
        }
        let library = build::build(self, &wanted, request, tell)?;
        if lock.is_some() {
            self.clean();
        }
        Ok(library)
    }

    /// The packages with their stamps, and those that are too large.
    fn wanted<'a>(&self, request: &Request<'a>) -> Wanted<'a> {
        let found = Mutex::new(Vec::with_capacity(request.packages.len()));
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..request.n_threads.max(1) {
                scope.spawn(|| {
                    while let Some(package) = request.packages.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let stamp = package.stamp();
                        lock(&found).push((package, stamp));
                    }
                });
            }
        });
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|(package, _)| (&package.name, &package.version, &package.folder));
        // A package that is in two folders, vendored and downloaded for example, would be read twice.
        found.dedup_by(|(second, _), (first, _)| (&first.name, &first.version) == (&second.name, &second.version));
        let mut wanted = Wanted { packages: Vec::new(), too_large: Vec::new() };
        for (package, stamp) in found {
            if stamp.n_bytes > MOST_PACKAGE_BYTES {
                wanted.too_large.push((format!("{}-{}", package.name, package.version), stamp.n_bytes));
                continue;
            }
            let mut hasher = blake3::Hasher::new();
            hasher.update(&request.tokenizer.hash()).update(package.folder.as_os_str().as_encoded_bytes());
            let path = self.folder.join("stamps").join(hasher.finalize().to_hex().as_str());
            wanted.packages.push(KnownPackage { package, stamp: stamp.hash, path, key: None });
        }
        wanted.recall();
        wanted
    }

    /// The index of these packages, if there is an intact one.
    fn open(&self, wanted: &Wanted<'_>, request: &Request<'_>, tell: &mut dyn FnMut(Event)) -> Option<Library> {
        let keys: Option<Vec<Hash>> = wanted.packages.iter().map(|known| known.key).collect();
        let library = self.open_index(&identity(request.tokenizer, &keys?), tell)?;
        wanted.packages.iter().for_each(|known| files::touch(&known.path));
        Some(library)
    }

    fn open_index(&self, identity: &IndexId, tell: &mut dyn FnMut(Event)) -> Option<Library> {
        let path = self.index_path(identity);
        match Index::open(&path, identity) {
            Ok(index) => {
                files::touch(&path);
                Some(Library(vec![Arc::new(index)]))
            }
            Err(IndexError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(broken) => {
                tell(Event::Damaged { path, reason: broken.to_string() });
                None
            }
        }
    }

    fn index_path(&self, identity: &IndexId) -> PathBuf {
        self.folder.join("indexes").join(blake3::Hash::from(identity.set).to_hex().as_str())
    }

    fn stream_path(&self, key: &Hash) -> PathBuf {
        self.folder.join("streams").join(blake3::Hash::from(*key).to_hex().as_str())
    }

    /// Waits for other processes to be done. Encoding at the same time they would do the same work, or slow each other
    /// down. Where the file system has no locks, the file is not locked: each process then does all the work, and files
    /// are still renamed into place whole.
    fn lock(&self, cancel: &Cancel, tell: &mut dyn FnMut(Event)) -> Result<io::Result<File>, Cancelled> {
        let path = self.folder.join("lock");
        let open = || {
            fs::create_dir_all(&self.folder)?;
            File::options().create(true).truncate(false).write(true).open(&path)
        };
        let file = match open() {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let mut is_first = true;
        loop {
            cancel.check()?;
            match file.try_lock() {
                Ok(()) => return Ok(Ok(file)),
                Err(fs::TryLockError::WouldBlock) => {
                    if std::mem::take(&mut is_first) {
                        tell(Event::Waiting);
                    }
                    std::thread::sleep(POLL);
                }
                Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    return Ok(Ok(file));
                }
                Err(fs::TryLockError::Error(error)) => return Ok(Err(error)),
            }
        }
    }

    /// Removes the least recently used files, down to the limit, and abandoned or forgotten ones. Stamps do not count
    /// towards the limit: without them no index is found, and all of them together are smaller than one.
    fn clean(&self) {
        let mut found: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for folder in ["indexes", "streams", "symbols", "stamps"] {
            let entries = fs::read_dir(self.folder.join(folder)).into_iter().flatten().flatten();
            for entry in entries {
                let Ok(metadata) = entry.metadata() else { continue };
                let time = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                // A temporary file may be in the middle of being written: only its age counts.
                let is_temporary = entry.file_name().as_encoded_bytes().starts_with(b".");
                let most_age = match folder {
                    _ if is_temporary => ABANDONED,
                    "stamps" => FORGOTTEN,
                    _ => {
                        found.push((time, metadata.len(), entry.path()));
                        continue;
                    }
                };
                if time.elapsed().is_ok_and(|age| age > most_age) {
                    let _ = fs::remove_file(entry.path()); // Another process may have been faster.
                }
            }
        }
        found.sort();
        let mut n_bytes: u64 = found.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in found {
            if n_bytes <= self.most_bytes {
                break;
            }
            // A server that has it mapped keeps it. Where the system cannot remove a mapped file, it stays until it
            // can.
            if fs::remove_file(path).is_ok() {
                n_bytes -= len;
            }
        }
    }
}

/// The packages to be indexed.
struct Wanted<'a> {
    packages: Vec<KnownPackage<'a>>,
    /// Names and bytes of packages that are left out.
    too_large: Vec<(String, u64)>,
}

/// A package and what the cache knows of it.
struct KnownPackage<'a> {
    package: &'a Package,
    stamp: Hash,
    /// Where its stamp is kept.
    path: PathBuf,
    /// The key of its stream, if that is known.
    key: Option<Hash>,
}

impl Wanted<'_> {
    /// Looks for stamps that still match.
    fn recall(&mut self) {
        for known in self.packages.iter_mut().filter(|known| known.key.is_none()) {
            known.key = files::read_stamp(&known.path, &known.stamp);
        }
    }
}

/// The identity of the index of these streams.
fn identity(tokenizer: &Tokenizer, keys: &[Hash]) -> IndexId {
    let mut hasher = blake3::Hasher::new();
    keys.iter().for_each(|key| {
        hasher.update(key);
    });
    IndexId { tokenizer: tokenizer.hash(), set: *hasher.finalize().as_bytes() }
}

/// The crates of a standard library whose source is in `library`: the folder `lib/rustlib/src/rust/library` of a
/// toolchain. Empty where there is no such folder.
pub fn std_packages(library: &Path) -> Vec<Package> {
    let entries = fs::read_dir(library).into_iter().flatten().flatten();
    let mut packages: Vec<Package> = entries
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (version, edition) = ("std".to_owned(), "2024".to_owned());
            Some(Package { name, version, edition, licence: None, folder: entry.path(), role: Role::Dependency })
        })
        .collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    packages
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A thread that panicked did not hold the lock while it changed anything.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
