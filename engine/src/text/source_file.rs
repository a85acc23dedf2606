//! A file of source code that was read.

use std::path::PathBuf;

/// One `.rs` file of a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Relative to the workspace's root, with `/`; for a dependency, `name-version/…`.
    pub name: String,
    /// Where it is on the disk.
    pub path: PathBuf,
    /// Its text, with `\n` line ends.
    pub text: String,
}
