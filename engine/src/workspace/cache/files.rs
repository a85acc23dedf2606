//! Files of the cache: written under a temporary name and renamed; small ones with their hash.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::SystemTime;

use tempfile::{Builder, NamedTempFile};

pub(super) const HASH: usize = 32;
pub(super) type Hash = [u8; HASH];

/// A temporary file in the folder of `path`, removed unless it is persisted.
pub(super) fn temporary_for(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().expect("the cache's files are in folders");
    fs::create_dir_all(folder)?;
    Builder::new().prefix(".nanochat-").suffix(".tmp").tempfile_in(folder)
}

/// Writes a file whole or not at all; unsynced, so that it may be lost or damaged by a power cut.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = temporary_for(path)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The key of the stream of a package with this stamp, if it is known.
pub(super) fn read_stamp(path: &Path, stamp: &Hash) -> Option<Hash> {
    let bytes = fs::read(path).ok()?;
    let (content, hash) = bytes.split_at_checked(2 * HASH)?;
    let key = content.strip_prefix(stamp)?;
    (blake3::hash(content).as_bytes() == hash).then(|| key.try_into().expect("a hash is left"))
}

/// Remembers the key of the stream of a package with this stamp.
pub(super) fn write_stamp(path: &Path, stamp: &Hash, key: &Hash) -> io::Result<()> {
    let content = [*stamp, *key].concat();
    let hash = blake3::hash(&content);
    write(path, &[&content[..], hash.as_bytes()].concat())
}

/// Marks a file as used now. One that cannot be marked is removed earlier than it should be.
pub(super) fn touch(path: &Path) {
    let _ = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
}
