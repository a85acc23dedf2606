//! What computes and where its data is: worker threads, memory nodes and aligned buffers.

pub mod numa;
pub(crate) mod memory;
pub mod pool;
