//! Leaves its session by forking twice, and stays.
unsafe extern "C" {
    fn fork() -> i32;
    fn setsid() -> i32;
}
fn main() {
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
        }
    }
    println!("left");
}
unsafe extern "C" {
    fn close(fd: i32) -> i32;
}
