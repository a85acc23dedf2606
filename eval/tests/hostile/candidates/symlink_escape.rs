//! Links that lead out of every folder that can be written.
use std::os::unix::fs::symlink;
fn main() {
    let world = std::env::var("HOSTILE_WORLD").unwrap();
    let secret = format!("{world}/outside/secret.txt");
    for folder in [std::env::temp_dir(), ".".into(), std::env::var("HOSTILE_SCRATCH").unwrap().into()] {
        println!("{:?}", symlink(&secret, folder.join("link")));
        println!("{:?}", std::fs::read_to_string(folder.join("link")));
        println!("{:?}", std::fs::hard_link(&secret, folder.join("hard")));
        println!("{:?}", std::fs::read_to_string(folder.join("hard")));
        println!("{:?}", symlink(format!("{world}/outside/writable"), folder.join("out")));
        println!("{:?}", std::fs::write(folder.join("out/planted"), "x"));
    }
}
