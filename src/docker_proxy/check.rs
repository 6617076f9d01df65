//! `volumeviz docker-proxy --check`: does the proxy that serves a socket still answer?
//!
//! It is asked for what it answers by itself: with a Docker that hangs, another proxy would do no better.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// What a proxy answers itself, to `GET` only.
pub(super) const LIVEZ: &str = "/livez";
/// Less than a kubelet waits (`timeoutSeconds` of the probe), so that it is told the reason.
const PATIENCE: Duration = Duration::from_secs(4);
const WELL: &[u8] = b"HTTP/1.1 200";

/// The proxy does not serve as it should.
#[derive(Debug, thiserror::Error)]
pub enum Unwell {
    /// There is none, or it does not answer.
    #[error("failed to ask the docker-proxy at {path}: {source}")]
    Ask {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It answers something else.
    #[error("the docker-proxy at {path} answers {answer:?}")]
    Answer {
        /// The socket.
        path: PathBuf,
        /// How its answer begins.
        answer: String,
    },
}

/// Asks the proxy that serves this socket.
pub fn check(path: &Path) -> Result<(), Unwell> {
    let begun = in_time(path).map_err(|source| Unwell::Ask { path: path.to_owned(), source })?;
    if begun == WELL {
        return Ok(());
    }
    Err(Unwell::Answer { path: path.to_owned(), answer: String::from_utf8_lossy(&begun).into_owned() })
}

/// On a thread: by itself neither connecting to a full queue nor writing ends.
fn in_time(path: &Path) -> io::Result<[u8; WELL.len()]> {
    let (sender, receiver) = mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || drop(sender.send(ask(&path))));
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// How the answer begins.
fn ask(path: &Path) -> io::Result<[u8; WELL.len()]> {
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(format!("GET {LIVEZ} HTTP/1.1\r\nHost: docker-proxy\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut begun = [0; WELL.len()];
    stream.read_exact(&mut begun)?;
    Ok(begun)
}
