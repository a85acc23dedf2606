//! Calls itself for ever.
fn deeper(n: u64) -> u64 {
    let room = std::hint::black_box([n; 64]);
    deeper(room[0] + 1) + room[63]
}
fn main() {
    println!("{}", deeper(0));
}
