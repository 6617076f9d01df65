//! Certificates and names of receivers are verified.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::webhook::Webhook;
use crate::*;

/// An authority, and a server's certificate by it.
struct Certified {
    authority: String,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn certified(name: &str) -> Certified {
    let folder = tempfile::tempdir().unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(
        folder.path(),
        &format!(
            "req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=authority -addext keyUsage=critical,keyCertSign"
        ),
    );
    openssl(folder.path(), &format!("req {key} -keyout server.key -out server.csr -subj /CN=server"));
    fs::write(folder.path().join("names"), format!("subjectAltName=DNS:{name}")).unwrap();
    openssl(
        folder.path(),
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out server.crt -extfile names",
    );
    let file = |name: &str| folder.path().join(name);
    Certified {
        authority: fs::read_to_string(file("ca.crt")).unwrap(),
        certificate: CertificateDer::from_pem_file(file("server.crt")).unwrap(),
        key: PrivateKeyDer::from_pem_file(file("server.key")).unwrap(),
    }
}

struct TlsListener(TcpListener, TlsAcceptor);

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let Ok((stream, address)) = self.0.accept().await else { continue };
            // A client that trusts nobody here breaks the handshake off.
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A webhook with this certificate, and its port.
async fn secured(Certified { certificate, key, .. }: Certified) -> (Webhook, u16) {
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let listener = TcpListener::bind("11.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (Webhook::default().serve(TlsListener(listener, TlsAcceptor::from(Arc::new(config)))), port)
}

#[tokio::test]
async fn a_receiver_must_show_a_certificate_for_its_name_by_an_authority_that_is_trusted() {
    let operator = Operator::new(&[]).await;
    let _leading = operator.lead();
    let (own, foreign) = (certified("public.test"), certified("public.test"));
    let (own_authority, foreign_authority) = (own.authority.clone(), foreign.authority.clone());
    let (hook, port) = secured(own).await;
    let url = format!("https://public.test:{port}/hook");
    for (name, url, authority, expected) in [
        ("system", &url, None, Some("no authority that is trusted vouches for its certificate")),
        ("foreign", &url, Some(&foreign_authority), Some("no authority that is trusted vouches for its certificate")),
        (
            "other-name",
            &url.replace("public.test", "other.test"),
            Some(&own_authority),
            Some("its certificate is for another name"),
        ),
        ("plain", &url.replace("https", "http"), None, Some("")),
        ("good", &url, Some(&own_authority), None),
    ] {
        let entries = [("url", url.as_str())].into_iter().chain(authority.map(|pem| ("ca.crt", pem.as_str())));
        operator.secret(name, &entries.collect::<Vec<_>>()).await;
        let firing = told("big", Occasion::Firing);
        operator.put(&webhook(name), &firing).await;
        match expected {
            Some(why) => {
                let found = operator.failed(&firing).await;
                assert!(found.ends_with(why), "{name}: {found}");
                assert_eq!(hook.seen().len(), 0, "{name}");
            }
            None => _ = operator.delivered(&firing).await,
        }
    }
    assert_eq!(hook.seen().len(), 1);
}
