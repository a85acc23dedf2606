//! The engine of one workspace on this machine, and what the editor shows of its completions.

pub(crate) mod source; // finds and loads what the engine needs
pub(crate) mod engine; // query → prompt → completion
mod names; // paths to the names that files have in the memory
pub(crate) mod ghost; // completion → ghost text, and what is left of it as the user types
