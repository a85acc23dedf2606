//! The system call filter, a second line of defence: calls that no compiler and no test needs fail, whatever the
//! namespaces allow.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::step;

/// The refused calls: sockets (a connected pair is allowed), tracing, other processes' memory, mounts, namespaces,
/// kernel programs and modules, keys, and io_uring, whose operations bypass filters.
const REFUSED: [i64; 38] = [
    libc::SYS_socket,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_fsconfig,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_io_uring_setup,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
];

pub(super) fn refuse() -> Result<(), String> {
    let arch = step("architecture", TargetArch::try_from(std::env::consts::ARCH))?;
    let rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    install(rules, libc::EPERM, arch)?;
    // The arguments of clone3 are in memory, which filters cannot read; if clone3 is missing, libc uses clone.
    install(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS, arch)?;
    let flags = [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWPID, libc::CLONE_NEWNET, libc::CLONE_NEWIPC];
    let mut namespaces = Vec::new();
    for flag in flags {
        let flag = u64::from(flag.unsigned_abs());
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag);
        let rule = condition.and_then(|condition| SeccompRule::new(vec![condition]));
        namespaces.push(step("rule", rule)?);
    }
    install(BTreeMap::from([(libc::SYS_clone, namespaces)]), libc::EPERM, arch)
}

fn install(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32, arch: TargetArch) -> Result<(), String> {
    let refusal = SeccompAction::Errno(errno.unsigned_abs());
    let filter = step("filter", SeccompFilter::new(rules, SeccompAction::Allow, refusal, arch))?;
    let program: BpfProgram = step("filter", filter.try_into())?;
    step("filter", seccompiler::apply_filter(&program))
}
