//! Open files until there are no more.
fn main() {
    let mut open = Vec::new();
    while open.len() < 100_000 {
        match std::fs::File::open("/dev/null") {
            Ok(file) => open.push(file),
            Err(_) => break,
        }
    }
    println!("count {}", open.len());
}
