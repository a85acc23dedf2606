//! Landlock: which files may be opened at all, regardless of their owner.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
    path_beneath_rules,
};

use super::step;
use crate::sandbox::Layer;
use crate::sandbox::policy::Policy;

/// The newest version that the library knows; older kernels enforce the part that they support.
const NEWEST: ABI = ABI::V10;

/// Restricts this process and all that it starts. No rule allows a network access, a signal or an abstract socket.
pub(super) fn restrict(policy: &Policy) -> Result<(), String> {
    let mut read = policy.read.clone();
    // Without a root folder of its own, /proc shows the machine's processes.
    if policy.layers.contains(&Layer::Root) {
        read.push(PathBuf::from("/proc"));
    }
    let devices = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"].map(Path::new);
    let mut write = policy.write.clone();
    write.extend(policy.memory.iter().map(|(path, _)| path.clone()));
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(&read, AccessFs::from_read(NEWEST))))
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(&write, AccessFs::from_all(NEWEST))))
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(devices, AccessFs::ReadFile | AccessFs::WriteFile)));
    let status = step("rules", ruleset.and_then(|ruleset| ruleset.restrict_self()))?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("the kernel has no Landlock".to_owned()),
        _ => Ok(()),
    }
}
