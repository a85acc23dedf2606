//! Memory until there is no more; it is not touched, so that a machine without limits lives on.
fn main() {
    let mut held: Vec<Vec<u8>> = Vec::new();
    while held.len() < 4096 {
        let mut gibibyte = Vec::new();
        if gibibyte.try_reserve_exact(1 << 30).is_err() {
            break;
        }
        held.push(gibibyte);
    }
    println!("count {}", held.len());
}
