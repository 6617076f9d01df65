//! What an address is to us, in whatever form it is written: on the internet, in somebody's network, or never a receiver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// On the internet.
    Public,
    /// In somebody's network: allowed by host and port.
    Private,
    /// Never a receiver.
    Refused(&'static str),
}

/// What an address is to us, whatever form it is written in.
pub(super) fn classify(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    }
}

const METADATA: &str = "a cloud's metadata service";

fn classify_v4(address: Ipv4Addr) -> Class {
    match address.octets() {
        [0, ..] => Class::Refused("an unspecified address"),
        [127, ..] => Class::Refused("a loopback address"),
        [169, 254, ..] => Class::Refused("a link-local address"),
        // Of Alibaba, Azure and Oracle; the others' are link-local.
        [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192] => Class::Refused(METADATA),
        [224..=239, ..] => Class::Refused("a multicast address"),
        [192, 0, 0, _] | [240..=255, ..] => Class::Refused("a reserved address"),
        // RFC 1918, carrier-grade NAT, benchmarks, documentation.
        [10, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [100, 64..=127, ..]
        | [198, 18..=19, ..]
        | [192, 0, 2, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Class::Private,
        _ => Class::Public,
    }
}

fn classify_v6(address: Ipv6Addr) -> Class {
    if let Some(inner) = inner_v4(address) {
        return classify_v4(inner);
    }
    match address.segments() {
        // ISATAP: any network's address, and an IPv4 address behind it.
        [a, b, c, d, 0 | 0x200, 0x5efe, high, low] => {
            let outer = classify_v6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 2));
            outer.max(classify_v4(v4(high, low)))
        }
        // Of AWS, Google and Scaleway.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
        | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42] => Class::Refused(METADATA),
        [0xfe80..=0xfebf, ..] => Class::Refused("a link-local address"),
        [0xff00..=0xffff, ..] => Class::Refused("a multicast address"),
        // A tunnel's inner address cannot be told from these.
        [0x2001, 0, ..] | [0x64, 0xff9b, 1, ..] => Class::Refused("a tunnel's address"),
        [0xfc00..=0xfdff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Class::Private,
        [0x2000..=0x3fff, ..] => Class::Public,
        _ => Class::Refused("a reserved address"),
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

/// The IPv4 address that is reached through an IPv6 one: mapped, compatible, translated, NAT64, 6to4.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Ipv4Addr::LOCALHOST),
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(address: &str) -> Class {
        classify(address.parse().unwrap_or_else(|error| panic!("{address}: {error}")))
    }

    #[test]
    fn public_addresses_are_public() {
        for address in [
            "8.8.8.8",
            "1.1.1.1",
            "172.15.255.255",
            "172.32.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "11.0.0.1",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "2a00::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "2a00::5efe:8.8.8.8",
        ] {
            assert_eq!(class(address), Class::Public, "{address}");
        }
    }

    #[test]
    fn private_addresses_are_private_in_every_form() {
        for address in [
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "198.18.0.1",
            "192.0.2.1",
            "fc00::1",
            "fdff::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:a00:1::1",
            "fd00::5efe:8.8.8.8",
            "2a00::5efe:10.0.0.1",
        ] {
            assert_eq!(class(address), Class::Private, "{address}");
        }
    }

    #[test]
    fn what_is_never_a_receiver_is_refused_in_every_form() {
        let v4 =
            ["127.0.0.1", "127.255.0.3", "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "100.100.100.200"]
                .into_iter()
                .chain([
                    "168.63.129.16",
                    "192.0.0.192",
                    "224.0.0.1",
                    "239.255.255.255",
                    "255.255.255.255",
                    "240.0.0.1",
                ]);
        for address in v4 {
            let [a, b, c, d] = address.parse::<Ipv4Addr>().unwrap().octets();
            let forms = [
                address.to_owned(),
                format!("::ffff:{address}"),
                format!("::{address}"),
                format!("::ffff:0:{address}"),
                format!("64:ff9b::{address}"),
                format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1"),
                format!("2001:db8::5efe:{address}"),
                format!("fe80::200:5efe:{address}"),
            ];
            for form in forms {
                assert!(matches!(class(&form), Class::Refused(_)), "{form}");
            }
        }
        for address in [
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "fe80::5efe:8.8.8.8",
            "fe80::200:5efe:8.8.8.8",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:42::42",
            "2001::1",
            "64:ff9b:1::a00:1",
            "100::1",
            "4000::1",
            "5f00::1",
        ] {
            assert!(matches!(class(address), Class::Refused(_)), "{address}");
        }
    }
}
