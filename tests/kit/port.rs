//! Ports for servers that must be told theirs.

use std::net::{IpAddr, SocketAddr, TcpListener};

/// An address that nobody listens on, with a port outside the range that clients get theirs from: it is free until it is used.
pub(crate) fn free(ip: &str) -> SocketAddr {
    let ip: IpAddr = ip.parse().unwrap();
    loop {
        let address = SocketAddr::new(ip, rand::random_range(20_000..30_000));
        match TcpListener::bind(address) {
            Ok(_) => return address,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{address}: {error}"),
        }
    }
}
