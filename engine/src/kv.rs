//! Key–value caches: one session per model, a slot per prompt, branches that share a prefix.

pub mod session;
mod branches;
mod slots;
