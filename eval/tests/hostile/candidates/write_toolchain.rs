//! What the next build runs.
fn main() {
    let world = std::env::var("HOSTILE_WORLD").unwrap();
    for path in ["cargo/bin/rustc", "cargo/registry/planted", "cargo/config.toml", "rustup/planted", "rustup/toolchains/planted"] {
        println!("{path}: {:?}", std::fs::write(format!("{world}/{path}"), "planted"));
    }
    let tree = std::env::var("HOSTILE_TREE").unwrap();
    println!("tree: {:?}", std::fs::write(format!("{tree}/src/lib.rs"), "planted"));
    println!("tree: {:?}", std::fs::write(format!("{tree}/build.rs"), "planted"));
}
