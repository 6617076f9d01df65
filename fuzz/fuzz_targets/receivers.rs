//! Where notifications may go: a line of a receiver's URL, then lines of what the installation allows.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use libfuzzer_sys::fuzz_target;
use url::{Host, Url};
use volumeviz::controller::notify::guard::{Endpoint, Target};

fuzz_target!(|text: &str| {
    let (url, allowed) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(target) = url.parse::<Target>() else { return };
    let allowed: Vec<Endpoint> = allowed.split('\n').filter_map(|line| line.parse().ok()).collect();
    let asked = target.url();
    assert!(matches!(asked.scheme(), "http" | "https") && asked.username().is_empty() && asked.password().is_none());
    joined(&target);
    let port = asked.port_or_known_default().unwrap();
    match asked.host().unwrap() {
        Host::Domain(name) => {
            let last = name.strip_suffix('.').unwrap_or(name).rsplit('.').next().unwrap();
            let decimal = !last.is_empty() && last.bytes().all(|digit| digit.is_ascii_digit());
            let hexadecimal =
                last.strip_prefix("0x").is_some_and(|last| last.bytes().all(|digit| digit.is_ascii_hexdigit()));
            assert!(!decimal && !hexadecimal, "{name} may be taken for an address");
        }
        Host::Ipv4(address) => reached(&target, address.into(), port, &allowed),
        Host::Ipv6(address) => reached(&target, address.into(), port, &allowed),
    }
});

/// More of a path leads nowhere else.
fn joined(target: &Target) {
    let joined = target.join("api/v2/alerts");
    let origin = |url: &Url| (url.host_str().map(str::to_owned), url.port_or_known_default(), url.scheme().to_owned());
    assert_eq!(origin(joined.url()), origin(target.url()));
    assert_eq!(joined.endpoint(), target.endpoint());
    assert!(joined.url().path().ends_with("/api/v2/alerts"));
    let again: Target = joined.url().as_str().parse().unwrap_or_else(|_| target.clone());
    assert_eq!(again.endpoint(), target.endpoint());
}

/// An address is judged as it is connected to, and by no other spelling.
fn reached(target: &Target, address: IpAddr, port: u16, allowed: &[Endpoint]) {
    let judged = pin!(target.addresses(allowed)).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(judged) = judged else { panic!("an address is looked up: {address}") };
    let Ok(addresses) = judged else { return };
    assert!(addresses.iter().all(|found| (found.ip(), found.port()) == (address, port)), "{addresses:?}");
    assert!(!is_never_a_receiver(address), "{address}");
    if is_private(address) {
        let spelled = match address {
            IpAddr::V4(address) => format!("{address}:{port}"),
            IpAddr::V6(address) => format!("[{address}]:{port}"),
        };
        let spelled: Endpoint = spelled.parse().unwrap();
        assert!(allowed.contains(&spelled), "{address} was not allowed");
    }
}

/// Loopback, link-local, metadata, unspecified, multicast: by what the standard library says, in every form of IPv6 that carries IPv4.
fn is_never_a_receiver(address: IpAddr) -> bool {
    const METADATA: [Ipv4Addr; 3] =
        [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
    match address {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_broadcast()
                || METADATA.contains(&address)
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unicast_link_local()
                || carried(address).is_some_and(|inner| is_never_a_receiver(inner.into()))
        }
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.is_unique_local() || carried(address).is_some_and(|inner| inner.is_private()),
    }
}

/// The IPv4 address in an IPv6 one: mapped, compatible, NAT64, 6to4, ISATAP.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.octets();
    let last = Ipv4Addr::new(m, n, o, p);
    match [a, b, c, d, e, f, g, h, i, j, k, l] {
        [0x20, 0x02, ..] => Some(Ipv4Addr::new(c, d, e, f)),
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0] => Some(last),
        [.., 0 | 2, 0, 0x5e, 0xfe] => Some(last),
        _ => address.to_ipv4(),
    }
}
