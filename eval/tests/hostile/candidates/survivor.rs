//! Leaves its session by forking twice, and stays.
use std::io::Read;

unsafe extern "C" {
    fn fork() -> i32;
    fn setsid() -> i32;
    fn close(fd: i32) -> i32;
}

fn main() {
    let (mut gone, going) = std::io::pipe().expect("a pipe");
    unsafe {
        if fork() == 0 {
            setsid();
            if fork() == 0 {
                setsid();
                // The pipes are closed, so that nobody waits for them.
                for fd in 0..64 {
                    close(fd);
                }
                loop {
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
            }
            return;
        }
    }
    // Whoever ends before the other has left takes it along. The pipe's other end is closed once it has.
    drop(going);
    let _ = gone.read(&mut [0]);
    println!("left");
}
