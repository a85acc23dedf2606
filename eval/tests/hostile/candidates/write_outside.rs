//! Writes wherever files are usually welcome.
fn main() {
    let world = std::env::var("HOSTILE_WORLD").unwrap();
    let name = std::env::var("HOSTILE_MARKER").unwrap();
    for folder in [format!("{world}/outside/writable"), format!("{world}/home"), "/tmp".into(), "/var/tmp".into(), "/dev/shm".into()] {
        println!("{folder}: {:?}", std::fs::write(format!("{folder}/{name}"), "x"));
    }
    println!("{:?}", std::fs::write(format!("{world}/outside/secret.txt"), "changed"));
    println!("{:?}", std::fs::remove_file(format!("{world}/outside/secret.txt")));
}
