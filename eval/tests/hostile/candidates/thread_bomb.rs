//! Threads until there are no more.
fn main() {
    let mut n = 0;
    while n < 20_000 {
        let thread = std::thread::Builder::new().stack_size(16 << 10);
        if thread.spawn(|| std::thread::sleep(std::time::Duration::from_secs(600))).is_err() {
            break;
        }
        n += 1;
    }
    println!("count {n}");
    std::process::exit(0);
}
