//! The only module that knows packages and the user's folders.

pub mod sources;
pub mod store;
pub mod cache;
