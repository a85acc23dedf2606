//! Keystroke to ghost text.
//!
//! ```text
//! keystroke → documents → context → worker (its own thread, the latest request wins) → completion → ghost text
//!    startup: settings → loader (its own thread) → workspace → Sources → engine → worker
//! ```
//!
//! Only this crate knows LSP, tokio and `cargo_metadata`. It does not know candle, and it never runs cargo before
//! the user trusts the workspace: until then it reads `Cargo.lock` and the registry folders itself.

// What other crates use.
pub mod settings; // what an editor may set, and its JSON schema
pub mod workspace; // a cargo workspace to `Sources`, with or without running cargo
pub use serve::{ServeOptions, log_to_stderr, serve};

// The server, from the outside in.
mod serve; // stdin and stdout, until the editor goes away
mod server; // tower-lsp's trait; each method delegates to one of the next two
mod lifecycle; // `initialize`, `shutdown`, and the watch on the editor's process
mod request; // the other requests and notifications, one file each
mod state; // what all of them share

// What the state consists of.
mod context; // documents and a cursor to the engine's query
mod documents; // the open documents, kept equal to the editor's
mod uri; // `file:` URIs to paths

// The threads, and what runs on them.
mod completion; // the engine of one workspace, and what it shows
mod index; // open files, dependencies and std, indexed in the background
mod loader; // loads engines while the server already answers
mod tuner; // measures the machine while nobody types
mod worker; // runs the engine
