//! The environment and the command line of every process that there is.
fn main() {
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        for file in ["environ", "cmdline"] {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            println!("{}", String::from_utf8_lossy(&bytes));
        }
    }
    for pid in 1..100_000 {
        if let Ok(bytes) = std::fs::read(format!("/proc/{pid}/environ")) {
            println!("{}", String::from_utf8_lossy(&bytes));
        }
    }
}
