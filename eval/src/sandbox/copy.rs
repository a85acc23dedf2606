//! Copies of a workspace: its sources, and nothing that was built.

use std::io;
use std::path::Path;

use super::SandboxError;

/// Beyond this a copy is refused: a workspace's sources are small, what is larger is data.
const MAX_COPY_BYTES: u64 = 512 << 20;

/// As [`super::Sandbox::confined`] says.
pub(super) fn copy_tree(root: &Path, to: &Path, with_ignored: bool) -> Result<(), SandboxError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| SandboxError::Copy { path, source }
    };
    std::fs::create_dir_all(to).map_err(failed(to))?;
    let mut n_bytes = 0u64;
    let mut copy = |from: &Path, relative: &Path| -> Result<(), SandboxError> {
        let metadata = std::fs::metadata(from).map_err(failed(from))?;
        if !metadata.is_file() {
            return Ok(()); // sockets and pipes are not sources
        }
        n_bytes = n_bytes.saturating_add(metadata.len());
        if n_bytes > MAX_COPY_BYTES {
            return Err(SandboxError::TooLarge { root: root.to_path_buf(), limit: MAX_COPY_BYTES >> 20 });
        }
        let to = to.join(relative);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        std::fs::copy(from, &to).map(drop).map_err(failed(from))
    };
    let walk = ignore::WalkBuilder::new(root)
        .standard_filters(!with_ignored)
        .hidden(false)
        .require_git(false)
        .git_global(false) // as `Sources::collect`: what one user ignores everywhere is no part of the workspace
        .follow_links(false)
        .filter_entry(|entry| {
            let path = entry.path();
            let built = path.join("CACHEDIR.TAG").exists()
                || entry.file_name() == "target" && path.with_file_name("Cargo.toml").exists();
            entry.depth() == 0 || !(entry.file_name() == ".git" || built)
        })
        .build();
    for entry in walk {
        let entry = entry.map_err(|error| SandboxError::Copy {
            path: root.to_path_buf(),
            source: error.into_io_error().unwrap_or_else(|| io::Error::other("cannot be walked")),
        })?;
        let Ok(relative) = entry.path().strip_prefix(root) else { continue };
        match entry.file_type() {
            Some(kind) if kind.is_file() => copy(entry.path(), relative)?,
            Some(kind) if kind.is_symlink() => match entry.path().canonicalize() {
                Ok(real) if real.starts_with(root) && real.is_file() => copy(&real, relative)?,
                _ => tracing::debug!("a link that leaves the workspace is not copied"),
            },
            _ => {}
        }
    }
    let lock = root.join("Cargo.lock");
    if lock.is_file() && !to.join("Cargo.lock").exists() {
        copy(&lock, Path::new("Cargo.lock"))?; // libraries often ignore it, yet it says what is built here
    }
    Ok(())
}

/// Makes a folder and everything below it the property of one user.
pub(super) fn hand_over(folder: &Path, user: u32) -> io::Result<()> {
    #[cfg(unix)]
    std::os::unix::fs::lchown(folder, Some(user), Some(user))?;
    let _ = user; // elsewhere a file's owner is no number
    if folder.symlink_metadata()?.is_dir() {
        for entry in std::fs::read_dir(folder)? {
            hand_over(&entry?.path(), user)?;
        }
    }
    Ok(())
}
