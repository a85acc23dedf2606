//! The user's key, by every name it has.
fn main() {
    let world = std::env::var("HOSTILE_WORLD").unwrap();
    let home = std::env::var("HOME").unwrap();
    for path in [
        format!("{world}/home/.ssh/id_ed25519"),
        format!("{home}/.ssh/id_ed25519"),
        format!("/proc/self/root{world}/home/.ssh/id_ed25519"),
        format!("/proc/1/root{world}/home/.ssh/id_ed25519"),
        format!("{world}/outside/secret.txt"),
        format!("{world}/cargo/credentials.toml"),
    ] {
        println!("{path}: {:?}", std::fs::read_to_string(&path));
    }
}
