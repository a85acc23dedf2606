//! Any file of the machine, as bytes.
const BYTES: &[u8] = include_bytes!(concat!(env!("HOSTILE_WORLD"), "/outside/secret.txt"));
const _: () = match core::str::from_utf8(BYTES) {
    Ok(text) => panic!("{}", text),
    Err(_) => panic!("bytes"),
};
