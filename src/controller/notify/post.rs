//! One POST to an address that was judged before: no redirect, no proxy, no other address than those, nothing of the answer but its status.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Certificate, Client, StatusCode};
use rustls::CertificateError;

use super::guard::{self, Endpoint, Target};

/// Shared out to the addresses of a name, so that a dead one leaves time for the next.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What is sent, and where to.
pub struct Post {
    /// Where to.
    pub target: Target,
    /// Who may vouch for the receiver instead of the system's authorities.
    pub authorities: Option<Vec<Certificate>>,
    /// With its type.
    pub headers: HeaderMap,
    /// As it is.
    pub body: String,
}

/// Why a POST failed. None of it tells where it went, or what was answered: either may be somebody's secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// It must not, or cannot, go there.
    #[error("the URL {0}")]
    Guard(#[from] guard::Problem),
    /// The certificates of the authorities cannot be used.
    #[error("failed to set up TLS: its authorities cannot be used")]
    Authorities,
    /// Not connected, or cut off.
    #[error("no connection to the receiver: {0}")]
    Connection(io::ErrorKind),
    /// TLS could not be agreed on.
    #[error("no secure connection to the receiver: {0}")]
    Tls(&'static str),
    /// It answered something else.
    #[error("the receiver does not speak HTTP as it should")]
    Protocol,
    /// It refuses, or sends us elsewhere.
    #[error("the receiver answered {0}{note}", note = if .0.is_redirection() { ", and redirects are not followed" } else { "" })]
    Status(StatusCode),
}

/// Posts; 2xx is success.
pub(super) async fn send(post: Post, allowed: &[Endpoint]) -> Result<(), Problem> {
    let addresses = post.target.addresses(allowed).await?;
    send_to(&addresses, post).await
}

/// Posts to one of these addresses, whatever the name has become meanwhile.
async fn send_to(addresses: &[SocketAddr], post: Post) -> Result<(), Problem> {
    let url = post.target.url().clone();
    let authorities = match post.authorities {
        Some(authorities) => Some(authorities),
        // Without TLS nobody vouches, and the system's authorities need not be read.
        None if url.scheme() == "http" => Some(Vec::new()),
        None => None,
    };
    let builder = Client::builder()
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .user_agent(concat!("volumeviz/", env!("CARGO_PKG_VERSION")))
        .resolve_to_addrs(url.host_str().unwrap_or_default(), addresses);
    let builder = match authorities {
        Some(authorities) => builder.tls_certs_only(authorities),
        None => builder,
    };
    let client = builder.build().map_err(|_| Problem::Authorities)?;
    let answer = client.post(url).headers(post.headers).body(post.body).send().await.map_err(|error| told(&error))?;
    // Its body is not read: it is bounded by that, and nobody sees what a receiver sends back.
    if answer.status().is_success() { Ok(()) } else { Err(Problem::Status(answer.status())) }
}

/// What went wrong, by kind: messages of the libraries quote names and addresses.
fn told(error: &reqwest::Error) -> Problem {
    let mut told = Problem::Protocol;
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Problem::Tls(refused(error));
        }
        cause = match error.downcast_ref::<io::Error>() {
            // What it wraps is not its source.
            Some(error) => {
                told = Problem::Connection(error.kind());
                error.get_ref().map(|inner| inner as _)
            }
            None => error.source(),
        };
    }
    told
}

const fn refused(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "no authority that is trusted vouches for its certificate"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet"
            }
            CertificateError::Revoked => "its certificate is revoked",
            _ => "its certificate is not valid",
        },
        rustls::Error::AlertReceived(_) => "it broke the handshake off",
        rustls::Error::InvalidMessage(_) => "it does not speak TLS",
        _ => "the handshake failed",
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn post(url: &str) -> Post {
        Post { target: url.parse().unwrap(), authorities: None, headers: HeaderMap::new(), body: "body".to_owned() }
    }

    /// A name that leads elsewhere by the time of the connection changes nothing.
    #[tokio::test]
    async fn it_goes_to_the_addresses_that_were_judged() {
        drop(rustls::crypto::ring::default_provider().install_default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let judged = post(&format!("http://localhost.invalid.:{}/x", address.port()));
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        };
        let answering = tokio::time::timeout(Duration::from_secs(10), answering);
        let addresses = [address];
        let (sent, request) = tokio::join!(send_to(&addresses, judged), answering);
        assert_eq!(sent, Ok(()));
        let request = request.unwrap();
        assert!(request.starts_with("POST /x HTTP/1.1\r\n"), "{request}");
    }
}
