//! Calls out over UDP.
fn main() {
    let address = std::env::var("HOSTILE_UDP").unwrap();
    let sent = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"hello", &address));
    println!("{sent:?}");
}
