//! Asks for the privileges that would undo all of this.
unsafe extern "C" {
    fn unshare(flags: i32) -> i32;
    fn setuid(uid: u32) -> i32;
    fn chroot(path: *const std::ffi::c_char) -> i32;
    fn mount(from: *const std::ffi::c_char, to: *const std::ffi::c_char, kind: *const std::ffi::c_char, flags: u64, data: usize) -> i32;
}
fn main() {
    const NEWNS: i32 = 0x0002_0000;
    const NEWUSER: i32 = 0x1000_0000;
    let world = std::env::var("HOSTILE_WORLD").unwrap();
    let got = unsafe {
        [unshare(NEWUSER), unshare(NEWNS), setuid(0), chroot(c"/proc".as_ptr()), mount(c"none".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, 0)]
    };
    println!("{}", if got[0] == 0 || got[1] == 0 || got[3] == 0 || got[4] == 0 { "regained" } else { "refused" });
    println!("{:?}", std::fs::read_to_string(format!("{world}/outside/secret.txt")));
}
