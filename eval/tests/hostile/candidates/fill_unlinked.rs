//! The same with files that have no name, which no look at a folder finds.
use std::io::Write;
fn main() {
    let chunk = vec![7u8; 1 << 20];
    let mut open = Vec::new();
    let mut mebibytes = 0;
    for folder in [std::env::temp_dir(), ".".into(), std::env::var("HOSTILE_SCRATCH").unwrap().into()] {
        'folder: for file_idx in 0..64 {
            let path = folder.join(format!("gone-{file_idx}"));
            let Ok(mut file) = std::fs::File::create(&path) else { break };
            let _ = std::fs::remove_file(&path);
            for _ in 0..256 {
                if file.write_all(&chunk).is_err() {
                    break 'folder;
                }
                mebibytes += 1;
            }
            open.push(file);
        }
    }
    println!("count {mebibytes}");
}
