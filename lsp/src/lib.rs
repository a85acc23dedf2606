//! Keystroke to ghost text.
//!
//! ```text
//! keystroke → documents → context → worker (its own thread, latest wins) → local (Prompt → Completion) → ghost
//!    startup: settings → loader (its own thread) → workspace → Sources → local → worker
//! ```
//!
//! Only this crate knows LSP, tokio and `cargo_metadata`. It knows no candle and never runs cargo before the
//! user trusts the workspace: until then it reads `Cargo.lock` and the registry folders itself.

pub mod settings;
pub mod workspace;

mod context;
mod documents;
mod ghost;
mod loader;
mod local;
mod serve;
mod server;
mod shelf;
mod tuner;
mod uri;
mod worker;

pub use serve::{ServeOptions, log_to_stderr, serve};
