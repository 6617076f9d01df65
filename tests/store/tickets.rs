//! Who may speak to an agent, and what it makes of what it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use volumeviz::controller::certificates::plan::{Certificates, Data};
use volumeviz::domain::dispatch::{MAX_BODY_BYTES, PATH};
use volumeviz::tls::{self, Credentials};

use super::job::{Node, PATIENCE, start, wait};
use super::*;

fn issued() -> Certificates {
    Certificates::of(&Data::new(), &Data::new()).renewed(Utc::now()).unwrap()
}

/// The status of the answer to this body, from an agent that is asked with these credentials.
async fn ask(address: SocketAddr, credentials: &Credentials, body: &str) -> Result<u16, reqwest::Error> {
    let client = credentials.client(PATIENCE, PATIENCE).unwrap();
    let url = format!("https://{}:{}{PATH}", tls::host(address.ip()), address.port());
    Ok(client.post(url).body(body.to_owned()).send().await?.status().as_u16())
}

async fn answers(address: SocketAddr, credentials: &Credentials) {
    wait("the agent to answer", async || ask(address, credentials, "{}").await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_controller_is_heard_and_only_over_tls() {
    let (database, node, ours) = (Database::new().await, Node::new(), issued());
    let address = start(&node, &ours, &database, CancellationToken::new());
    answers(address, &ours.controller).await;
    // One who knows the agents' authority, with a certificate of another.
    let stranger = Credentials { authorities: ours.controller.authorities.clone(), ..issued().controller };
    ask(address, &stranger, "{}").await.unwrap_err();
    ask(address, &ours.agent, "{}").await.unwrap_err();
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    drop(plain.read_to_end(&mut answer).await);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_used_without_a_restart() {
    let (database, node) = (Database::new().await, Node::new());
    let old = Certificates::of(&Data::new(), &Data::new()).renewed(Utc::now() - TimeDelta::days(1)).unwrap();
    let address = start(&node, &old, &database, CancellationToken::new());
    answers(address, &old.controller).await;
    let new = issued();
    ask(address, &new.controller, "{}").await.unwrap_err();
    // Longer than between two looks.
    std::fs::write(node.tickets().join("tls.key"), "half written").unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(6);
    while std::time::Instant::now() < until {
        ask(address, &old.controller, "{}").await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    node.hand(&new);
    answers(address, &new.controller).await;
    ask(address, &old.controller, "{}").await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_offer_is_refused_before_the_database_is_asked() {
    let (database, node, ours) = (Database::new().await, Node::new(), issued());
    let address = start(&node, &ours, &database, CancellationToken::new());
    answers(address, &ours.controller).await;
    let offer = |v: u32, node: &str, pod: &str| {
        json!({"v": v, "job": 1, "ticket": Uuid::new_v4(), "nodeName": node, "nodeUID": "u", "podUID": pod}).to_string()
    };
    let long = format!("{{\"v\": 1, \"padding\": \"{}\"}}", "x".repeat(MAX_BODY_BYTES));
    for (body, status) in [
        (String::new(), 400),
        ("null".to_owned(), 400),
        ("[".repeat(MAX_BODY_BYTES), 400),
        (offer(2, "n1", "pod"), 400),
        (offer(1, "n2", "pod"), 421),
        (offer(1, "n1", "other"), 421),
        (long, 413),
        (offer(1, "n1", "pod"), 409),
    ] {
        assert_eq!(ask(address, &ours.controller, &body).await.unwrap(), status, "{body:.100}");
    }
}

/// A TLS connection of the controller's.
async fn connect(address: SocketAddr, credentials: &Credentials) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(credentials.authorities.as_bytes()).unwrap()).unwrap();
    let certificate = CertificateDer::from_pem_slice(credentials.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    let config = config.with_client_auth_cert(vec![certificate], key).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = tls::host(address.ip()).try_into().unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// Who has proved that he is the controller may still not send what he likes, and who has not is not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_not_read_beyond_their_bound_and_nobody_is_waited_for() {
    let (database, node, ours) = (Database::new().await, Node::new(), issued());
    let address = start(&node, &ours, &database, CancellationToken::new());
    answers(address, &ours.controller).await;
    for body in ["Content-Length: 1099511627776\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n"] {
        let mut stream = connect(address, &ours.controller).await;
        stream.write_all(format!("POST {PATH} HTTP/1.1\r\nHost: x\r\n{body}").as_bytes()).await.unwrap();
        let (mut reading, mut writing) = tokio::io::split(stream);
        let mut taken = 0;
        let write = async {
            while writing.write_all(&[b'x'; 1 << 14]).await.is_ok() {
                taken += 1 << 14;
            }
        };
        let mut head = [0; 12];
        let read = async { reading.read_exact(&mut head).await.map(|_| ()) };
        let ((), answered) =
            tokio::time::timeout(PATIENCE, async { tokio::join!(write, read) }).await.expect("it hangs up");
        assert!(answered.is_err() || &head == b"HTTP/1.1 413", "{}", String::from_utf8_lossy(&head));
        // What buffers of the kernel hold.
        assert!(taken <= 16 << 20, "{taken} bytes");
    }
    let hung_up = async |what: &str, stream: &mut (dyn AsyncRead + Unpin + Send)| {
        let mut answer = Vec::new();
        drop(tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect(what));
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{what}: {}", String::from_utf8_lossy(&answer));
    };
    let (mut silent, mut slow) = (TcpStream::connect(address).await.unwrap(), connect(address, &ours.controller).await);
    slow.write_all(format!("POST {PATH} HTTP/1.1\r\nHost: x\r\n").as_bytes()).await.unwrap();
    let mut unsent = connect(address, &ours.controller).await;
    unsent
        .write_all(format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{").as_bytes())
        .await
        .unwrap();
    tokio::join!(
        hung_up("no handshake", &mut silent),
        hung_up("half a head", &mut slow),
        hung_up("half a body", &mut unsent)
    );
}

/// A flood of tickets that are none: each is refused, and the agent takes the one that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_tickets_keeps_nobody_from_the_true_one() {
    let (database, node, ours) = (Database::new().await, Node::new(), issued());
    let address = start(&node, &ours, &database, CancellationToken::new());
    answers(address, &ours.controller).await;
    let client = ours.controller.client(PATIENCE, PATIENCE).unwrap();
    let url = format!("https://{}:{}{PATH}", tls::host(address.ip()), address.port());
    let offer = |ticket: Uuid| json!({"v": 1, "job": 1, "ticket": ticket, "nodeName": "n1", "nodeUID": "n1-uid", "podUID": "pod"});
    let post = async |ticket| client.post(&url).json(&offer(ticket)).send().await.unwrap().status().as_u16();
    let run = plan(&database, "once", &["n1"]).await;
    let ticket = ticket(&database, run, "n1").await;
    let flood = futures::future::join_all((0..500).map(|_| post(Uuid::new_v4())));
    let taken = async {
        // As a controller does: again when the agent is busy.
        loop {
            match post(ticket).await {
                200 => break,
                429 => tokio::time::sleep(Duration::from_millis(20)).await,
                other => panic!("{other}"),
            }
        }
    };
    let (flood, taken) = tokio::join!(flood, tokio::time::timeout(PATIENCE, taken));
    taken.expect("the true ticket to be taken in time");
    assert!(flood.iter().all(|status| matches!(status, 409 | 429)), "{flood:?}");
}
