//! Ends a process that is none of its business.
unsafe extern "C" {
    fn kill(pid: i32, signal: i32) -> i32;
}
fn main() {
    let victim: i32 = std::env::var("HOSTILE_VICTIM").unwrap().parse().unwrap();
    for pid in [victim, -victim] {
        println!("{}", unsafe { kill(pid, 9) });
    }
}
