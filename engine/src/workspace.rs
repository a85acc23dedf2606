//! Packages and the user's folders: no other module knows them.

pub mod sources;
pub mod store;
pub mod cache;
