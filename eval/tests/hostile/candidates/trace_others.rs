//! Attaches to a process of the same user, and reads its memory.
unsafe extern "C" {
    fn ptrace(request: i64, pid: i32, address: usize, data: usize) -> i64;
    fn getppid() -> i32;
}
fn main() {
    let victim: i32 = std::env::var("HOSTILE_VICTIM").unwrap().parse().unwrap();
    for pid in [victim, unsafe { getppid() }] {
        const ATTACH: i64 = 16;
        let refused = unsafe { ptrace(ATTACH, pid, 0, 0) } != 0;
        println!("{}", if refused { "refused" } else { "attached" });
        println!("{:?}", std::fs::File::open(format!("/proc/{pid}/mem")).map(drop));
    }
    // Attached, it would have to be let go before it can be seen to run.
}
