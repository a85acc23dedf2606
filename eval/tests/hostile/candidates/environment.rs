//! The environment of the process that evaluates.
const SECRET: &str = env!("HOSTILE_SECRET");
const _: () = panic!("{}", SECRET);
