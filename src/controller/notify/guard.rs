//! Where notifications may go: what a Secret's author writes must not make the controller reach what only the controller can.
//!
//! A host's addresses are looked up once, each of them is judged, and the connection goes to these addresses only. Some are always refused;
//! private ones unless this installation allows their host and port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use reqwest::Url;
use tokio::net::lookup_host;

use super::address::{Class, classify};

/// URLs are no longer than this, in bytes.
const MAX_URL: usize = 2048;

/// Why a URL is not used. None of it tells what the URL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No URL at all.
    #[error("is not a URL")]
    NotUrl,
    /// Too long.
    #[error("is longer than {MAX_URL} bytes")]
    TooLong,
    /// Another scheme.
    #[error("is neither http:// nor https://")]
    Scheme,
    /// A user or password in it.
    #[error("has a user or password in it, which belong in the headers")]
    UserInfo,
    /// The name is not known now.
    #[error("has a host whose address cannot be found")]
    Unresolved,
    /// An address that is always refused.
    #[error("leads to {0}, which is always refused")]
    Refused(&'static str),
    /// An address that this installation does not allow.
    #[error("leads to a private address, which this installation does not allow: see alerts.allow of the chart")]
    NotAllowed,
}

/// A URL that could be posted to.
#[derive(Clone)]
pub struct Target {
    url: Url,
    endpoint: Endpoint,
}

impl fmt::Debug for Target {
    /// Without the URL, which may be as good as a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Target")
    }
}

impl FromStr for Target {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        if text.len() > MAX_URL {
            return Err(Problem::TooLong);
        }
        let url = Url::parse(text).map_err(|_| Problem::NotUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Problem::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Problem::UserInfo);
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(Problem::NotUrl);
        };
        let endpoint = Endpoint { host: normal(host), port };
        Ok(Self { url, endpoint })
    }
}

impl Target {
    /// As it is.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Its host and port.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The same with more of a path: `http://host/prefix` and `api/v2/alerts` make `http://host/prefix/api/v2/alerts`.
    pub fn join(&self, path: &str) -> Self {
        let mut url = self.url.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}/{path}"));
        Self { url, endpoint: self.endpoint.clone() }
    }

    /// Looks its addresses up, once; all of them must be allowed.
    pub async fn addresses(&self, allowed: &[Endpoint]) -> Result<Vec<SocketAddr>, Problem> {
        let Endpoint { host, port } = &self.endpoint;
        let found: Vec<SocketAddr> = if let Ok(address) = host.parse::<IpAddr>() {
            vec![SocketAddr::new(address, *port)]
        } else {
            // As the URL has it: a dot at its end keeps search domains out.
            let name = self.url.host_str().unwrap_or(host);
            lookup_host((name, *port)).await.map_err(|_| Problem::Unresolved)?.collect()
        };
        let worst = found.iter().map(|address| classify(address.ip())).max();
        match worst.ok_or(Problem::Unresolved)? {
            Class::Refused(why) => Err(Problem::Refused(why)),
            Class::Private if !allowed.contains(&self.endpoint) => Err(Problem::NotAllowed),
            Class::Private | Class::Public => Ok(found),
        }
    }
}

/// A host and port, as in the list of what is allowed: `alertmanager.monitoring.svc:9093`, `10.0.0.5:8080`, `[fd00::5]:8080`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A name in lower case without a dot at its end, or an address without brackets.
    host: String,
    port: u16,
}

/// Text that is no host and port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not HOST:PORT")]
pub struct NotEndpoint(String);

impl FromStr for Endpoint {
    type Err = NotEndpoint;

    fn from_str(text: &str) -> Result<Self, NotEndpoint> {
        let wrong = || NotEndpoint(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let address = bracketed.then(|| normal(host).parse::<Ipv6Addr>().map_err(|_| wrong())).transpose()?;
        let host = match address {
            Some(address) => address.to_string(),
            None => normal(host),
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.is_empty() || (address.is_none() && !host.chars().all(is_host)) {
            return Err(wrong());
        }
        Ok(Self { host, port })
    }
}

fn normal(host: &str) -> String {
    host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_http_without_a_user() {
        let problem = |text: &str| text.parse::<Target>().err();
        assert_eq!(problem("https://hooks.example.com/T/B?x=1"), None);
        assert_eq!(problem("hooks.example.com"), Some(Problem::NotUrl));
        assert_eq!(problem("file:///etc/passwd"), Some(Problem::Scheme));
        assert_eq!(problem("gopher://example.com"), Some(Problem::Scheme));
        assert_eq!(problem("https://user@example.com"), Some(Problem::UserInfo));
        assert_eq!(problem("https://:secret@example.com"), Some(Problem::UserInfo));
        assert_eq!(problem(&format!("https://example.com/{}", "x".repeat(MAX_URL))), Some(Problem::TooLong));
    }

    #[tokio::test]
    async fn an_address_is_judged_however_the_url_writes_it() {
        for url in [
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://[::ffff:7f00:1]/",
            "http://127.0.0.1./",
            "http://[::]/",
            "http://①②⑦.0.0.1/",
        ] {
            let judged = url.parse::<Target>().unwrap().addresses(&[]).await;
            assert!(matches!(judged, Err(Problem::Refused(_))), "{url}: {judged:?}");
        }
    }

    #[tokio::test]
    async fn private_addresses_are_allowed_by_host_and_port() {
        let target: Target = "http://10.0.0.5:8080/x".parse().unwrap();
        assert_eq!(target.addresses(&[]).await, Err(Problem::NotAllowed));
        for other in ["10.0.0.5:80", "10.0.0.6:8080", "example.com:8080"] {
            assert_eq!(target.addresses(&[other.parse().unwrap()]).await, Err(Problem::NotAllowed), "{other}");
        }
        let allowed = target.addresses(&["10.0.0.5:8080".parse().unwrap()]).await;
        assert_eq!(allowed, Ok(vec!["10.0.0.5:8080".parse().unwrap()]));
        let loopback: Target = "http://127.0.0.1:8080".parse().unwrap();
        let judged = loopback.addresses(&["127.0.0.1:8080".parse().unwrap()]).await;
        assert_eq!(judged, Err(Problem::Refused("a loopback address")), "whatever is allowed");
    }

    #[test]
    fn allowed_hosts_are_the_same_in_every_spelling() {
        let same = [
            ("Alertmanager.Monitoring.svc.:9093", "http://alertmanager.monitoring.svc:9093/prefix"),
            ("[FD00:0::5]:80", "http://[fd00::5]"),
        ];
        for (text, url) in same {
            assert_eq!(&text.parse::<Endpoint>().unwrap(), url.parse::<Target>().unwrap().endpoint(), "{text}");
        }
        for wrong in [
            "",
            "host",
            "host:",
            ":80",
            "host:0",
            "host:70000",
            "http://host:80",
            "fd00::5:x",
            "[fd00::5",
            "[x]:80",
            "a b:80",
            "fd00::5:80",
        ] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_is_added_to_the_prefix() {
        for (url, expected) in [
            ("http://h:9093", "http://h:9093/api/v2/alerts"),
            ("http://h:9093/", "http://h:9093/api/v2/alerts"),
            ("http://h/prefix/", "http://h/prefix/api/v2/alerts"),
        ] {
            assert_eq!(url.parse::<Target>().unwrap().join("api/v2/alerts").url().as_str(), expected);
        }
    }
}
