//! The command's namespaces, user, limits and privileges.

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use rustix::process::{
    DumpableBehavior, Gid, Resource, Rlimit, Uid, getegid, geteuid, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::step;
use crate::sandbox::policy::{Bounds, Policy, UNPRIVILEGED};

/// Closes descriptors inherited from the parent: a lock, a job server, a socket. Standard streams stay open.
pub(super) fn close_inherited() -> io::Result<()> {
    let mut inherited = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        inherited.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()).filter(|fd| *fd > 2));
    }
    for fd in inherited {
        // The descriptor of the listed folder is among them, and closed by now.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

/// Creates namespaces; the next child is their first process. Root needs no user namespace for that; other users
/// get one, and are root in it until the privileges are dropped. The user's own builds keep files and network.
pub(super) fn new_namespaces(is_open: bool) -> Result<(), String> {
    let mut wanted = CloneFlags::CLONE_NEWPID;
    if !is_open {
        wanted |=
            CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    }
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    if uid == 0 && unshare(wanted).is_ok() {
        return Ok(());
    }
    step("unshare", unshare(wanted | CloneFlags::CLONE_NEWUSER))?;
    let inside = if is_open { (uid, gid) } else { (0, 0) };
    map(inside.0, uid, inside.1, gid)
}

fn map(uid: u32, outer_uid: u32, gid: u32, outer_gid: u32) -> Result<(), String> {
    step("setgroups", fs::write("/proc/self/setgroups", "deny"))?;
    step("uid_map", fs::write("/proc/self/uid_map", format!("{uid} {outer_uid} 1")))?;
    step("gid_map", fs::write("/proc/self/gid_map", format!("{gid} {outer_gid} 1")))
}

/// Limits the number of processes. The kernel does not count root's, also not under another id of a user namespace,
/// so root switches to another user first.
pub(super) fn bound_processes(policy: &Policy) -> Result<(), String> {
    let Some(limit) = policy.bounds.n_processes else { return Ok(()) };
    let has_namespaces = policy.layers.contains(&crate::sandbox::Layer::Namespaces);
    let limit = if policy.is_root {
        become_unprivileged(policy, has_namespaces)?;
        limit
    } else if has_namespaces {
        counts_by_namespace()?;
        limit
    } else {
        limit + n_threads_of(geteuid())
    };
    set(Resource::Nproc, limit)
}

fn become_unprivileged(policy: &Policy, has_namespaces: bool) -> Result<(), String> {
    let (uid, gid) = (Uid::from_raw(UNPRIVILEGED), Gid::from_raw(UNPRIVILEGED));
    step("setgroups", rustix::thread::set_thread_groups(&[]))?;
    step("setresgid", rustix::thread::set_thread_res_gid(gid, gid, gid))?;
    step("setresuid", rustix::thread::set_thread_res_uid(uid, uid, uid))?;
    for path in policy.read.iter().chain(&policy.write) {
        let readable = rustix::fs::access(path, rustix::fs::Access::READ_OK);
        step(&format!("{} as an unprivileged user", path.display()), readable)?;
    }
    if has_namespaces {
        // In a user namespace of its own each command has its own count. Where that is refused, the commands of all
        // workers share one, which is as safe, and large enough.
        let _ = set_dumpable_behavior(DumpableBehavior::Dumpable)
            .map_err(|error| error.to_string())
            .and_then(|()| step("unshare", unshare(CloneFlags::CLONE_NEWUSER)))
            .and_then(|()| map(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED));
    }
    Ok(())
}

/// Before Linux 5.14 the limit applied to all processes of the user, which may exceed it already.
fn counts_by_namespace() -> Result<(), String> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|word| word.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 14) { Ok(()) } else { Err(format!("Linux {release} counts processes by user only")) }
}

fn n_threads_of(uid: Uid) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = entries.filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() == uid.as_raw()));
    own.filter_map(|entry| fs::read_dir(entry.path().join("task")).ok()).map(|tasks| tasks.count() as u64).sum()
}

pub(super) fn limit(bounds: &Bounds) -> Result<(), String> {
    set(Resource::As, bounds.address_space)?;
    set(Resource::Fsize, bounds.file)?;
    set(Resource::Core, 0)?;
    for (resource, bound) in [(Resource::Cpu, bounds.cpu), (Resource::Nofile, bounds.open_files)] {
        if let Some(bound) = bound {
            set(resource, bound)?;
        }
    }
    Ok(())
}

/// Sets a limit, unless it is lower already.
fn set(resource: Resource, bound: u64) -> Result<(), String> {
    let bound = rustix::process::getrlimit(resource).maximum.map_or(bound, |maximum| maximum.min(bound));
    let limit = Rlimit { current: Some(bound), maximum: Some(bound) };
    step(&format!("limit of {resource:?}"), setrlimit(resource, limit))
}

/// Drops all capabilities, and the ability to gain any by starting a program.
pub(super) fn give_up_privileges() -> Result<(), String> {
    step("no new privileges", rustix::thread::set_no_new_privs(true))?;
    let _ = rustix::thread::clear_ambient_capability_set(); // refused only by kernels that have none
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    step("capabilities", rustix::thread::set_capabilities(None, sets))
}
