//! What every long-running role serves over HTTP: `/livez`, `/readyz` and `/metrics`.
//!
//! Readiness says that the process does its part, not that its surroundings are well: a rollout must not fail because the database is
//! away. `/readyz?verbose` lists what is missing all the same.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum_server::{Address, Server};
use hyper_util::rt::TokioTimer;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

/// How long a request's head may take to come.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// One line of `/readyz?verbose`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is looked at, e.g. `database`.
    pub name: &'static str,
    /// Why it is not well.
    pub problem: Option<String>,
    /// Whether the problem makes the process not ready.
    pub required: bool,
}

/// What a role tells about itself; called at each request.
pub type Checks = Arc<dyn Fn() -> Vec<Check> + Send + Sync>;

/// The endpoints could not be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not this machine's.
    #[error("failed to listen on {address}: {source}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The listener broke.
    #[error("failed to serve HTTP: {0}")]
    Serve(io::Error),
}

#[derive(Clone)]
struct Served {
    checks: Checks,
    registry: Arc<Registry>,
}

/// The three endpoints.
pub fn router(checks: Checks, registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Served { checks, registry })
}

/// Takes the address; separate from [`serve`], so that a wrong one ends the process before it does anything else. `[::]` means every address,
/// also where the kernel has no IPv6.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    let bound = match TcpListener::bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && has_no_ipv6(&error) => TcpListener::bind(any_v4).await,
        bound => bound,
    };
    bound.map_err(|source| Error::Listen { address, source })
}

fn has_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener, router: Router) -> Result<(), Error> {
    let serve = async || {
        let server = axum_server::from_tcp(listener.into_std()?)?;
        http1_only(server, HEAD_TIMEOUT).serve(router.into_make_service()).await
    };
    serve().await.map_err(Error::Serve)
}

/// A server that speaks HTTP/1.1 and nothing else, to whoever says within `head_timeout` what he wants.
pub fn http1_only<A: Address, Acceptor>(server: Server<A, Acceptor>, head_timeout: Duration) -> Server<A, Acceptor> {
    let mut server = server.http1_only();
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(head_timeout);
    server
}

async fn readyz(State(served): State<Served>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let checks = (served.checks)();
    let ready = checks.iter().all(|check| !check.required || check.problem.is_none());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose = !ready || query.is_some_and(|query| query.split('&').any(|part| part == "verbose"));
    let body = if verbose { checks.iter().map(line).collect() } else { "ok\n".to_owned() };
    (status, body)
}

fn line(check: &Check) -> String {
    match (&check.problem, check.required) {
        (None, _) => format!("[+] {} ok\n", check.name),
        (Some(problem), true) => format!("[-] {}: {problem}\n", check.name),
        (Some(problem), false) => format!("[!] {}: {problem} (not required for readiness)\n", check.name),
    }
}

async fn metrics(State(served): State<Served>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &served.registry) {
        Ok(()) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
            text,
        ),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            format!("failed to encode metrics: {error}\n"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::{Instant, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn connect() -> TcpStream {
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let checks: Checks = Arc::new(Vec::new);
        tokio::spawn(serve(listener, router(checks, Arc::new(Registry::default()))));
        TcpStream::connect(address).await.unwrap()
    }

    /// All that comes until the other side hangs up, which may be by a reset.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        drop(timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it hangs up"));
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn who_says_too_slowly_what_he_wants_is_hung_up_on() {
        let begun = Instant::now();
        let silent = async { rest(&mut connect().await).await };
        let slow = async {
            let mut stream = connect().await;
            let (mut reading, mut writing) = stream.split();
            let dribble = async {
                writing.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n").await.unwrap();
                while writing.write_all(b"X: y\r\n").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            };
            let mut answer = Vec::new();
            tokio::select! {
                read = timeout(PATIENCE, reading.read_to_end(&mut answer)) => drop(read.expect("it hangs up")),
                () = dribble => {}
            }
            String::from_utf8_lossy(&answer).into_owned()
        };
        let idle = async {
            let mut stream = connect().await;
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            rest(&mut stream).await
        };
        let (silent, slow, idle) = tokio::join!(silent, slow, idle);
        assert!(begun.elapsed() >= HEAD_TIMEOUT, "{:?}", begun.elapsed());
        assert!([&silent, &slow].iter().all(|answer| !answer.contains("200 OK")), "{silent} {slow}");
        assert!(idle.starts_with("HTTP/1.1 200 OK\r\n") && idle.ends_with("ok\n"), "{idle}");
    }

    /// How many bytes are taken of a request that has no end, and what is answered.
    async fn endless(head: &str) -> (usize, String) {
        let mut stream = connect().await;
        let (mut reading, mut writing) = stream.split();
        let (part, mut taken) = (vec![b'x'; 1 << 16], 0);
        let writing = async {
            writing.write_all(head.as_bytes()).await.unwrap();
            while writing.write_all(&part).await.is_ok() {
                taken += part.len();
            }
        };
        let mut answer = vec![0; 4096];
        let reading = async {
            let read = reading.read(&mut answer).await.unwrap_or(0);
            String::from_utf8_lossy(&answer[..read]).into_owned()
        };
        let ((), answer) = timeout(PATIENCE, async { tokio::join!(writing, reading) }).await.expect("it hangs up");
        (taken, answer)
    }

    /// What is taken is what buffers of the kernel hold.
    #[tokio::test]
    async fn neither_bodies_nor_heads_are_read_to_their_ends() {
        const MOST: usize = 16 << 20;
        for body in ["Content-Length: 1099511627776\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n"] {
            for (request, status) in [("POST /metrics", "405"), ("PUT /api/v1/volumes", "404"), ("GET /livez", "200")] {
                let (taken, answer) = endless(&format!("{request} HTTP/1.1\r\nHost: x\r\n{body}")).await;
                assert!(taken <= MOST, "{taken} bytes of {request}");
                assert!(answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
            }
        }
        for head in ["GET /", "GET / HTTP/1.1\r\nX: "] {
            let (taken, answer) = endless(head).await;
            assert!(taken <= MOST && (answer.is_empty() || answer.starts_with("HTTP/1.1 4")), "{taken}: {answer}");
        }
    }
}
