//! Calls a service of the machine by its path, and one by its abstract name.
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
fn main() {
    let world = std::env::var("HOSTILE_WORLD").unwrap();
    let sent = UnixStream::connect(format!("{world}/outside/socket")).and_then(|mut stream| stream.write_all(b"hello"));
    println!("{sent:?}");
    let name = SocketAddr::from_abstract_name(std::env::var("HOSTILE_ABSTRACT").unwrap()).unwrap();
    let sent = UnixStream::connect_addr(&name).and_then(|mut stream| stream.write_all(b"hello"));
    println!("{sent:?}");
}
