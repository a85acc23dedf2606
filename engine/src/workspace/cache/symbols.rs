//! The symbols of packages, one file per package folder: stamp, hash of the rest, records.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::files::{self, HASH, Hash};
use super::stream::read_files;
use super::{Cache, Event, MOST_PACKAGE_BYTES, Request, lock};
use crate::symbols::{Records, Symbols, extract_each};
use crate::workspace::sources::Package;
use crate::{Cancel, Cancelled};

/// Changes with the records.
const VERSION: &[u8] = b"symbols 1";

impl Cache {
    /// The public symbols of some packages: from the cache, or read now. Whatever goes wrong on the disk is an event.
    /// The tokenizer is not used.
    pub fn symbols(&self, request: &Request<'_>, tell: &mut dyn FnMut(Event)) -> Result<Symbols, Cancelled> {
        let found = Mutex::new(Vec::with_capacity(request.packages.len()));
        let failures = Mutex::new(Vec::new());
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..request.n_threads.clamp(1, request.packages.len().max(1)) {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(package) = request.packages.get(i).filter(|_| !request.cancel.is_cancelled()) else {
                            break;
                        };
                        let (records, failure) = self.symbols_of(package, request.cancel);
                        lock(&found).push((i, records));
                        lock(&failures).extend(failure);
                    }
                });
            }
        });
        request.cancel.check()?;
        if let Some(reason) = failures.into_inner().unwrap_or_default().pop() {
            tell(Event::NotKept { reason });
        }
        let mut found = found.into_inner().unwrap_or_default();
        found.sort_by_key(|(i, _)| *i);
        Ok(Symbols::of(found.into_iter().map(|(_, records)| (String::new(), records))))
    }

    fn symbols_of(&self, package: &Package, cancel: &Cancel) -> (Records, Option<String>) {
        let stamp = package.stamp();
        if stamp.n_bytes > MOST_PACKAGE_BYTES {
            return Default::default();
        }
        let path = self.symbols_path(package);
        let kept = fs::read(&path).ok().and_then(|bytes| from_bytes(&bytes, &stamp.hash));
        if let Some(records) = kept {
            files::touch(&path);
            return (records, None);
        }
        let (texts, _) = read_files(package);
        if cancel.is_cancelled() {
            return Default::default();
        }
        let records = Records::all(extract_each(&texts, true));
        // A package that changed while it was read is read again the next time.
        if package.stamp().hash != stamp.hash {
            return (records, None);
        }
        let failure = files::write(&path, &to_bytes(&records, &stamp.hash)).err();
        (records, failure.map(|error| error.to_string()))
    }

    fn symbols_path(&self, package: &Package) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        hasher.update(VERSION).update(package.folder.as_os_str().as_encoded_bytes());
        self.folder.join("symbols").join(hasher.finalize().to_hex().as_str())
    }
}

fn to_bytes(records: &Records, stamp: &Hash) -> Vec<u8> {
    let hash = blake3::hash(records.as_str().as_bytes());
    [stamp, &hash.as_bytes()[..], records.as_str().as_bytes()].concat()
}

/// The records in `bytes`, if they are those of a package with this stamp, and intact.
fn from_bytes(bytes: &[u8], stamp: &Hash) -> Option<Records> {
    let (head, body) = bytes.split_at_checked(2 * HASH)?;
    let is_whole = head.strip_prefix(stamp)? == blake3::hash(body).as_bytes();
    String::from_utf8(body.to_vec()).ok().filter(|_| is_whole).map(Records::from_text)
}
