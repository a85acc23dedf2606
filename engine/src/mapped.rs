//! Files that are read where they lie, by all processes from the same pages.

use std::fs::File;
use std::io;
use std::ops::Deref;

/// A file's bytes as they were when it was mapped.
#[derive(Debug)]
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps a file of this program's own folders of which nobody changes what is mapped: one that gets its name whole, by a
    /// rename, and is not written to again, or of which only what is behind the map is still being written. Its bytes are
    /// to be checked before they are trusted.
    #[expect(unsafe_code, reason = "tens of megabytes that all servers share must not be on each one's heap")]
    pub fn map(file: &File) -> io::Result<Self> {
        // SAFETY: only this program writes in the folders where such files lie (the cache's and a workspace's training
        // state), and it writes to no bytes that are mapped. A file that has its name is not written to again: a newer one
        // replaces it by a rename, and clean-up unlinks it, and both leave what is mapped as it is. An index that is being
        // written is mapped under its temporary name, from the header to the last token: meanwhile `write` only appends,
        // and its map ends before it writes the header. Whatever else runs with the user's rights could break this: each
        // number is checked where it is used, so that bytes changed from outside would give a wrong answer or a panic, but
        // a file cut from outside would end the process (SIGBUS).
        unsafe { memmap2::Mmap::map(file) }.map(Self)
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
