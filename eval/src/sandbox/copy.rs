//! Copies of a workspace: its sources, and nothing that was built.

use std::io;
use std::path::{Path, PathBuf};

use super::SandboxError;

/// Beyond this a copy is refused: a workspace's sources are small, what is larger is data.
const MAX_COPY_BYTES: u64 = 512 << 20;

/// See [`super::Sandbox::confined`] for what is copied.
pub(super) fn copy_tree(root: &Path, to: &Path, with_ignored: bool) -> Result<(), SandboxError> {
    std::fs::create_dir_all(to).map_err(failed(to))?;
    for (from, relative) in files(root, with_ignored)? {
        let to = to.join(relative);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        std::fs::copy(&from, &to).map_err(failed(&from))?;
    }
    Ok(())
}

/// A hash of the names and bytes of what [`copy_tree`] copies, independent of the location of `root`.
pub(super) fn hash_tree(root: &Path, with_ignored: bool) -> Result<String, SandboxError> {
    let mut files = files(root, with_ignored)?;
    files.sort_by(|(_, a), (_, b)| a.cmp(b));
    let mut hasher = blake3::Hasher::new();
    for (from, relative) in files {
        let bytes = std::fs::read(&from).map_err(failed(&from))?;
        for part in [relative.as_os_str().as_encoded_bytes(), bytes.as_slice()] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The files that are copied: path of each, and its path in the copy.
fn files(root: &Path, with_ignored: bool) -> Result<Vec<(PathBuf, PathBuf)>, SandboxError> {
    let mut files = Vec::new();
    let mut n_bytes = 0u64;
    let mut add = |from: &Path, relative: &Path| -> Result<(), SandboxError> {
        let metadata = std::fs::metadata(from).map_err(failed(from))?;
        if !metadata.is_file() {
            return Ok(()); // sockets and pipes are not sources
        }
        n_bytes = n_bytes.saturating_add(metadata.len());
        if n_bytes > MAX_COPY_BYTES {
            return Err(SandboxError::TooLarge { root: root.to_path_buf(), limit: MAX_COPY_BYTES >> 20 });
        }
        files.push((from.to_path_buf(), relative.to_path_buf()));
        Ok(())
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
            Some(kind) if kind.is_file() => add(entry.path(), relative)?,
            Some(kind) if kind.is_symlink() => match entry.path().canonicalize() {
                Ok(real) if real.starts_with(root) && real.is_file() => add(&real, relative)?,
                _ => tracing::debug!("a link that leaves the workspace is not copied"),
            },
            _ => {}
        }
    }
    let lock = root.join("Cargo.lock");
    if lock.is_file() && !files.iter().any(|(_, relative)| relative.as_os_str() == "Cargo.lock") {
        files.push((lock, "Cargo.lock".into())); // libraries often ignore it, yet it determines what is built
    }
    Ok(files)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SandboxError {
    let path = path.to_path_buf();
    move |source| SandboxError::Copy { path, source }
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
