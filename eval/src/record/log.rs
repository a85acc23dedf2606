//! Append-only files of records, one JSON object per line. A last line that a killed run left incomplete is dropped
//! when the file is opened again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Beyond this a file of records is refused rather than read.
const MAX_BYTES: u64 = 4 << 30;

/// A file of records, open for appending.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
}

/// Why records cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The file system reports an error.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A line cannot be read as a record of the expected kind.
    #[error("{path}, line {line}, is not a valid record: {reason}; remove the file to have it written again")]
    Record {
        /// The file of records.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What does not fit.
        reason: String,
    },
    /// Another process is writing to the same folder.
    #[error("another evaluation writes its records to {path}; wait for it, or name another folder")]
    Busy {
        /// The run's folder.
        path: PathBuf,
    },
    /// The folder has the records of another plan.
    #[error("{path} holds the records of another run ({what} differ); name another folder, or remove this one")]
    Foreign {
        /// The run's folder, or the file that does not fit.
        path: PathBuf,
        /// Which part of the plan.
        what: &'static str,
    },
    /// Shards that do not add up to one run.
    #[error("these folders are not the shards of one run: {why}")]
    Shards {
        /// What is missing or occurs twice.
        why: String,
    },
}

impl Log {
    /// Opens or creates the file and reads what it holds.
    pub(crate) fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>), RecordError> {
        let failed = |source| RecordError::Io { path: path.to_path_buf(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        (&mut file).take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(failed(io::Error::other("larger than any run's records")));
        }
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let records = parse(path, &bytes[..whole])?;
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(failed)?;
        }
        file.seek(SeekFrom::Start(whole as u64)).map_err(failed)?;
        Ok((Self { path: path.to_path_buf(), file }, records))
    }

    /// Appends one record as a line.
    pub(crate) fn append(&mut self, record: &impl Serialize) -> Result<(), RecordError> {
        self.append_all(std::slice::from_ref(record))
    }

    /// Appends records in one write.
    pub(crate) fn append_all<T: Serialize>(&mut self, records: &[T]) -> Result<(), RecordError> {
        let failed = |source| RecordError::Io { path: self.path.clone(), source };
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record).map_err(|error| failed(error.into()))?;
            lines.push(b'\n');
        }
        self.file.write_all(&lines).map_err(failed)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads a finished file of records; one that is missing has none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, RecordError> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            parse(path, &bytes[..whole])
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(RecordError::Io { path: path.to_path_buf(), source }),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<Vec<T>, RecordError> {
    let lines = bytes.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(at, line)| {
            serde_json::from_slice(line).map_err(|error| RecordError::Record {
                path: path.to_path_buf(),
                line: at + 1,
                reason: error.to_string(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_dropped_and_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "1\n2\n3").expect("a file");
        let (mut log, records) = Log::open::<u32>(&path).expect("it opens");
        assert_eq!(records, [1, 2]);
        log.append(&33).expect("there is room");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "1\n2\n33\n");
        assert_eq!(read::<u32>(&path).expect("numbers"), [1, 2, 33]);
    }

    #[test]
    fn a_line_that_is_no_record_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "1\nx\n").expect("a file");
        let error = Log::open::<u32>(&path).expect_err("x is no number");
        assert!(matches!(error, RecordError::Record { line: 2, .. }), "{error}");
    }
}
