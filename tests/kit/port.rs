//! Ports for servers that must be told theirs.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Where this process looks next; others begin elsewhere.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(0..RANGE)));
const RANGE: u16 = 10_000;

/// An address that nobody listens on, with a port outside the range that clients get theirs from: it is free until it is used.
pub(crate) fn free(ip: &str) -> SocketAddr {
    let ip: IpAddr = ip.parse().unwrap();
    loop {
        let address = SocketAddr::new(ip, 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % RANGE);
        match TcpListener::bind(address) {
            Ok(_) => return address,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{address}: {error}"),
        }
    }
}
