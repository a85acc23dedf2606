//! Files that are mapped into memory, so that all processes share their pages.

use std::fs::File;
use std::io;
use std::ops::Deref;

/// A file's bytes as they were when it was mapped.
#[derive(Debug)]
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps a file in this program's own folders whose mapped bytes do not change: one that is renamed into place whole
    /// and is not written to again, or one that is only being appended to after the map. Its bytes must be checked
    /// before they are trusted.
    #[expect(unsafe_code, reason = "tens of megabytes that all servers share must not be on each one's heap")]
    pub fn map(file: &File) -> io::Result<Self> {
        // SAFETY: only this program writes in the folders of such files (the cache's and a workspace's training state),
        // and it never writes to mapped bytes. A file that has its final name is not written to again: a newer one
        // replaces it by a rename, and clean-up unlinks it, and both leave the mapped bytes alone. An index that is
        // being written is mapped under its temporary name, from the header to the last token: meanwhile `write` only
        // appends, and its map ends before it writes the header. Another program with the user's rights could break
        // this: each number is checked where it is used, so that bytes changed from outside would give a wrong answer
        // or a panic, but a file truncated from outside would end the process (SIGBUS).
        unsafe { memmap2::Mmap::map(file) }.map(Self)
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
