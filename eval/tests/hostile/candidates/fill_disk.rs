//! Writes until every place is full.
use std::io::Write;
fn main() {
    let chunk = vec![7u8; 1 << 20];
    let mut mebibytes = 0;
    for folder in [std::env::temp_dir(), ".".into(), std::env::var("HOSTILE_SCRATCH").unwrap().into()] {
        'folder: for file_idx in 0..64 {
            let Ok(mut file) = std::fs::File::create(folder.join(format!("fill-{file_idx}"))) else { break };
            for _ in 0..256 {
                if file.write_all(&chunk).is_err() {
                    break 'folder;
                }
                mebibytes += 1;
            }
        }
    }
    println!("count {mebibytes}");
}
