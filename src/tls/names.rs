//! Names of agents, made of their addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::DOMAIN;

/// The name under which the agent at this address is asked: `10.244.1.5` → `10-244-1-5.agent.volumeviz.internal`.
pub fn host(address: IpAddr) -> String {
    let label = match address {
        IpAddr::V4(address) => address.octets().map(|octet| octet.to_string()).join("-"),
        // Written out: a name must not begin with the dash that `::1` would have.
        IpAddr::V6(address) => address.segments().map(|segment| format!("{segment:x}")).join("-"),
    };
    format!("{label}.agent.{DOMAIN}")
}

/// The address in such a name.
fn address(host: &str) -> Option<IpAddr> {
    let label = host.strip_suffix(DOMAIN)?.strip_suffix(".agent.")?;
    let parts: Vec<_> = label.split('-').collect();
    if let Ok(parts) = <[&str; 4]>::try_from(parts.as_slice()) {
        let octets: Vec<u8> = parts.iter().map_while(|part| part.parse().ok()).collect();
        return <[u8; 4]>::try_from(octets).ok().map(|octets| Ipv4Addr::from(octets).into());
    }
    let segments: Vec<u16> = parts.iter().map_while(|part| u16::from_str_radix(part, 16).ok()).collect();
    let segments = <[u16; 8]>::try_from(segments).ok().filter(|_| parts.len() == 8)?;
    Some(Ipv6Addr::from(segments).into())
}

/// Resolves these names, and no others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let found = address(name.as_str());
        Box::pin(async move {
            let address = found.ok_or("is no name of an agent")?;
            let addresses: Addrs = Box::new(std::iter::once(SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_as_documented() {
        assert_eq!(host(Ipv4Addr::new(10, 244, 1, 5).into()), "10-244-1-5.agent.volumeviz.internal");
        assert_eq!(host(Ipv6Addr::LOCALHOST.into()), "0-0-0-0-0-0-0-1.agent.volumeviz.internal");
    }

    #[test]
    fn other_names_have_no_address() {
        for other in [
            "example.com",
            "10-0-0.agent.volumeviz.internal",
            "10-0-0-300.agent.volumeviz.internal",
            "1-2-3-4-5-6-7-8-9.agent.volumeviz.internal",
        ] {
            assert_eq!(address(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_name_has_the_address_it_was_made_of(bits in any::<u128>(), is_v4 in any::<bool>()) {
            let made_of = if is_v4 { Ipv4Addr::from((bits >> 96) as u32).into() } else { IpAddr::from(Ipv6Addr::from(bits)) };
            prop_assert_eq!(address(&host(made_of)), Some(made_of));
            prop_assert!(rustls::pki_types::DnsName::try_from(host(made_of)).is_ok());
        }
    }
}
