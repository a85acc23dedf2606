//! The same by a relative path that climbs out of the tree.
const TEXT: &str = include_str!(concat!("../../../../../../../../../..", env!("HOSTILE_WORLD"), "/outside/secret.txt"));
const _: () = panic!("{}", TEXT);
