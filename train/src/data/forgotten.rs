//! Paths that the user wants forgotten, in the state folder.
//!
//! No later run trains on them; the run that forgets one restarts without it, and ends with the weights of a run that
//! never saw it.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::state_dir::{self, StateError};

const FILE_NAME: &str = "forgotten.json";

/// Paths that no run learns from, relative to the workspace's root: files, or folders with all that is in them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Forgotten(BTreeSet<String>);

impl Forgotten {
    /// Reads the forgotten paths of the state folder `folder`.
    pub fn load(folder: &Path) -> Result<Self, StateError> {
        Ok(state_dir::read_json(&folder.join(FILE_NAME))?.unwrap_or_default())
    }

    /// Writes them for the next run.
    pub fn save(&self, folder: &Path) -> Result<(), StateError> {
        state_dir::write_json(&folder.join(FILE_NAME), self)
    }

    /// Adds a path, which may be absolute; false if it is outside `root`.
    pub fn add(&mut self, root: &Path, path: &Path) -> bool {
        name_of(root, path).map(|name| self.0.insert(name)).is_some()
    }

    /// Removes a path; false if it was not forgotten.
    pub fn remove(&mut self, root: &Path, path: &Path) -> bool {
        name_of(root, path).is_some_and(|name| self.0.remove(&name))
    }

    /// Whether a file is forgotten, itself or with its folder.
    pub fn contains(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|path| name.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    /// All forgotten paths, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// As [`SourceFile::name`](nanochat_engine::workspace::sources::SourceFile::name) is written.
fn name_of(root: &Path, path: &Path) -> Option<String> {
    let inside = if path.is_absolute() { path.strip_prefix(root).ok()? } else { path };
    let mut parts: Vec<&str> = Vec::new();
    for part in inside.components() {
        match part {
            std::path::Component::Normal(part) => parts.push(part.to_str()?),
            std::path::Component::CurDir => {}
            _ => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_a_file_or_a_folder_and_nothing_else_that_starts_with_its_name() {
        let (mut forgotten, root) = (Forgotten::default(), Path::new("/w"));
        assert!(forgotten.add(root, Path::new("/w/src/keys")));
        assert!(forgotten.add(root, Path::new("./src/a.rs")));
        assert!(!forgotten.add(root, Path::new("/elsewhere/a.rs")) && !forgotten.add(root, Path::new("../a.rs")));
        assert!(!forgotten.add(root, Path::new("/w")), "a whole workspace is not forgotten");
        assert!(forgotten.contains("src/keys/one.rs") && forgotten.contains("src/a.rs"));
        assert!(!forgotten.contains("src/keys_of_others.rs") && !forgotten.contains("src/a.rs.rs"));
        assert!(forgotten.remove(root, Path::new("src/a.rs")) && !forgotten.contains("src/a.rs"));
    }
}
