//! Calls out over TCP.
use std::io::Write;
fn main() {
    let address = std::env::var("HOSTILE_TCP").unwrap();
    let sent = std::net::TcpStream::connect(&address).and_then(|mut stream| stream.write_all(b"hello"));
    println!("{sent:?}");
}
