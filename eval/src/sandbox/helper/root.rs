//! A root folder put together for one command: what it may read and write at the usual paths, and nothing else.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};

use super::step;
use crate::sandbox::policy::Policy;

const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Makes it the root of this process and all that it starts.
pub(super) fn change(policy: &Policy) -> Result<(), String> {
    let root = &policy.root_at;
    // Mounts made here are not visible outside.
    step("mount propagation", mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC))?;
    memory(root, 1 << 20, "755")?;
    for path in &policy.read {
        show(root, path)?;
    }
    for device in DEVICES {
        let at = placed(root, Path::new(device));
        step(device, prepare(&at, false))?;
        step(device, mount_bind(device, &at))?;
    }
    for path in &policy.write {
        let at = placed(root, path);
        step("scratch folder", prepare(&at, true))?;
        step("scratch folder", mount_bind(path, &at))?;
    }
    if let Some((path, bytes)) = &policy.memory {
        let at = placed(root, path);
        step("temporary folder", prepare(&at, true))?;
        memory(&at, *bytes, "1777")?;
    }
    let proc = placed(root, Path::new("/proc"));
    step("/proc", prepare(&proc, true))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Containers that mask parts of /proc refuse a fresh one. Then there is none; no command needs it.
    if mount("proc", &proc, "proc", flags, Some(c"subset=pid")).is_err() {
        let _ = mount("proc", &proc, "proc", flags, None);
    }
    step(
        "root",
        mount_remount(root, MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV, ""),
    )?;
    step("root", std::env::set_current_dir(root))?;
    // The old root is stacked on the new one; unmount it.
    step("pivot_root", rustix::process::pivot_root(".", "."))?;
    step("old root", unmount(".", UnmountFlags::DETACH))?;
    step("root", std::env::set_current_dir("/"))
}

fn memory(at: &Path, bytes: u64, mode: &str) -> Result<(), String> {
    let options = step("options", CString::new(format!("size={bytes},mode={mode}")))?;
    step("tmpfs", mount("tmpfs", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str())))
}

/// The same path under the new root.
fn placed(root: &Path, path: &Path) -> PathBuf {
    root.join(path.components().filter(|part| matches!(part, Component::Normal(_))).collect::<PathBuf>())
}

/// An empty file or folder to mount on, unless there is one.
fn prepare(at: &Path, is_folder: bool) -> io::Result<()> {
    if at.exists() {
        return Ok(());
    }
    if is_folder {
        return fs::create_dir_all(at);
    }
    at.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::File::create(at).map(drop)
}

/// Mounts a path read-only. Links, as `/bin` often is, are recreated; their targets are mounted if listed too.
fn show(root: &Path, path: &Path) -> Result<(), String> {
    let at = placed(root, path);
    let what = path.display().to_string();
    if let Ok(link) = fs::read_link(path) {
        if at.symlink_metadata().is_err() {
            step(&what, at.parent().map_or(Ok(()), fs::create_dir_all))?;
            step(&what, std::os::unix::fs::symlink(link, &at))?;
        }
        return Ok(());
    }
    if at.exists() && fs::read_dir(&at).map_or(true, |mut entries| entries.next().is_some()) {
        return Ok(()); // inside a folder that is mounted already
    }
    step(&what, prepare(&at, path.is_dir()))?;
    // Without what is mounted below where that is allowed; the kernel refuses to uncover what others mounted over.
    if mount_bind(path, &at).is_err() {
        step(&what, mount_bind_recursive(path, &at))?;
    }
    let mut flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    // A user namespace may add flags to a mount but not remove any.
    let now = step(&what, statvfs(&at))?.f_flag;
    for (is, keep) in [
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        if now.contains(is) {
            flags |= keep;
        }
    }
    step(&what, mount_remount(&at, flags, ""))
}
