//! Key–value caches: one session per model, a slot per prompt, branches that share a prefix.

mod branches;
mod slots;
pub mod session;

pub(crate) use branches::{BranchPos, Branches};
