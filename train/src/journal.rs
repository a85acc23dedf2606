//! Log of a run's steps, a line of JSON each, in the state folder: it survives an interruption, and the loss curve is
//! drawn from it.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::state_dir::StateError;

/// Name of the log in the state folder.
pub const FILE_NAME: &str = "steps.jsonl";

/// One line: a step and its figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepEntry {
    /// Number of steps done.
    pub step: usize,
    /// Number of tokens seen so far.
    pub tokens: usize,
    /// Mean loss of the step, nats per token.
    pub loss: f64,
    /// Held-out bits per byte of the model alone, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<f64>,
}

/// The log, as it grows.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    entries: Vec<StepEntry>,
    file: Option<BufWriter<File>>,
}

impl Journal {
    /// The log of the run whose state is in `folder`. Nothing is read or written yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), entries: Vec::new(), file: None }
    }

    /// Drops all entries after `step`, from which the run continues. Lines that cannot be read are dropped too: a
    /// killed run leaves half of one.
    pub fn start_at(&mut self, step: usize) -> Result<(), StateError> {
        self.file = None; // what is left to be written is
        let path = self.folder.join(FILE_NAME);
        self.entries = match File::open(&path) {
            Ok(file) => BufReader::new(file)
                .lines()
                .map_while(Result::ok)
                .filter_map(|line| serde_json::from_str(&line).ok())
                .filter(|entry: &StepEntry| entry.step <= step)
                .collect(),
            Err(_) => Vec::new(),
        };
        let rewrite = || {
            let mut file = BufWriter::new(tempfile::NamedTempFile::new_in(&self.folder)?);
            for entry in &self.entries {
                line(&mut file, entry)?;
            }
            let file = file.into_inner().map_err(|e| e.into_error())?;
            file.persist(&path).map_err(|e| e.error)
        };
        let file = rewrite().map_err(|source| StateError::Io { path: path.clone(), source })?;
        self.file = Some(BufWriter::new(file));
        Ok(())
    }

    /// Appends a step to the log.
    pub fn push(&mut self, entry: &StepEntry) -> Result<(), StateError> {
        self.entries.push(entry.clone());
        let Some(file) = &mut self.file else { return Ok(()) };
        let written = line(file, entry).and_then(|()| file.flush());
        written.map_err(|source| StateError::Io { path: self.folder.join(FILE_NAME), source })
    }

    /// All steps so far.
    pub fn entries(&self) -> &[StepEntry] {
        &self.entries
    }
}

fn line(out: &mut impl Write, entry: &StepEntry) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, entry)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(step: usize) -> StepEntry {
        StepEntry {
            step,
            tokens: 10 * step,
            loss: 9.0 / step as f64,
            bits_per_byte: step.is_multiple_of(2).then_some(1.5),
        }
    }

    #[test]
    fn a_journal_continues_from_a_step_and_survives_half_a_line() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut journal = Journal::new(folder.path());
        journal.start_at(0).expect("writable");
        (1..=5).for_each(|step| journal.push(&entry(step)).expect("writable"));
        let path = folder.path().join(FILE_NAME);
        let text = std::fs::read_to_string(&path).expect("it was written");
        std::fs::write(&path, &text[..text.len() - 5]).expect("writable");

        let mut journal = Journal::new(folder.path());
        journal.start_at(3).expect("writable");
        journal.push(&entry(4)).expect("writable");
        let text = std::fs::read_to_string(&path).expect("it was written");
        let read: Vec<StepEntry> = text.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect();
        assert_eq!(read, [1, 2, 3, 4].map(entry));
        let drawn = std::fs::read_to_string(crate::curve::save(folder.path(), journal.entries()).expect("writable"))
            .expect("it was written");
        assert!(drawn.contains("<svg") && drawn.contains("held out"), "{drawn}");
    }
}
