//! The state folder of a workspace: one trainer at a time, and small files that are written whole or not at all.

use std::path::{Path, PathBuf};

use nanochat_engine::workspace::store::write_durably;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a file of the state folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file system refused.
    #[error("training state {path}: {source}")]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The bytes are not what this version writes.
    #[error("training state {path} is damaged ({reason}); pass --restart to start over")]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with the bytes.
        reason: &'static str,
    },
    /// Another process is training in the folder.
    #[error("this workspace is being trained by another process ({folder}); wait for it, or stop it with Ctrl-C")]
    Busy {
        /// Path of the state folder.
        folder: PathBuf,
    },
    /// The state belongs to another run.
    #[error("training state {path} is of another {what}; pass --restart to start over")]
    Foreign {
        /// Path of the file.
        path: PathBuf,
        /// What differs: `recipe`, `corpus` or `base`.
        what: &'static str,
    },
}

/// Keeps other trainers away from a folder while it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock ends with the file")] std::fs::File);

impl Lock {
    /// Locks the folder, which is created if there is none. The system frees it when the process ends, however it ends.
    pub fn take(folder: &Path) -> Result<Self, StateError> {
        let path = folder.join("lock");
        let open = || {
            std::fs::create_dir_all(folder)?;
            std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path)
        };
        let file = open().map_err(|source| StateError::Io { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(std::fs::TryLockError::WouldBlock) => Err(StateError::Busy { folder: folder.to_owned() }),
            Err(std::fs::TryLockError::Error(source)) => Err(StateError::Io { path, source }),
        }
    }
}

/// Reads a JSON file; `None` if there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|_| StateError::Damaged { path: path.to_owned(), reason: "not what this version writes" }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Io { path: path.to_owned(), source }),
    }
}

/// Writes a JSON file, synced and then renamed.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    write_durably(path, |out| serde_json::to_writer(out, value).map_err(std::io::Error::from))
        .map_err(|source| StateError::Io { path: path.to_owned(), source })
}
