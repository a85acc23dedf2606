//! Talks without end.
use std::io::Write;
fn main() {
    let line = [b'x'; 1 << 16];
    let mut out = std::io::stdout().lock();
    while out.write_all(&line).is_ok() {}
}
