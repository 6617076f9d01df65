//! One GET of Docker's API over its unix socket. The answer is decoded while it comes; of it no more is in memory than
//! its longest text.

use std::error::Error as _;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::{InvalidUri, PathAndQuery};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::domain::text::bounded;

/// Bytes of an answer: 20,000 containers with 3 kB each.
pub const MAX_ANSWER: usize = 64 << 20;
/// Bytes of an answer that is an error, and of what is told of it.
const MAX_ERROR: usize = 64 << 10;
const MAX_MESSAGE: usize = 1024;
/// Parts of an answer that wait to be decoded.
const MAX_WAITING: usize = 4;

/// A connection broke, or what came on it is no HTTP.
#[derive(Debug, thiserror::Error)]
#[error("{source}{}", cause(.source))]
pub struct Broken {
    #[from]
    source: hyper::Error,
}

/// What the error's own words leave out.
fn cause(error: &hyper::Error) -> String {
    error.source().map(|cause| format!(": {cause}")).unwrap_or_default()
}

/// Asks Docker, or who stands for it, on a connection for this alone. It ends with the answer's last byte, when nobody reads that any more, or after
/// `at_most`.
pub async fn ask(stream: UnixStream, path: PathAndQuery, at_most: Duration) -> Result<Response<Incoming>, Broken> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(tokio::time::timeout(at_most, connection));
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path.into();
    request.headers_mut().insert(HOST, HeaderValue::from_static("docker"));
    Ok(sender.send_request(request).await?)
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Nobody listens.
    #[error("{0}")]
    Connect(io::Error),
    /// It does not speak to the end.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// It cannot be asked for.
    #[error("it has no such path: {0}")]
    Path(#[from] InvalidUri),
    /// It refuses.
    #[error("it answered {status}: {message}")]
    Status {
        /// Of HTTP.
        status: u16,
        /// Why, in its words.
        message: String,
    },
    /// More than is read.
    #[error("its answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
    /// Not what was asked for, or more than is kept.
    #[error("its answer cannot be used: {0}")]
    Answer(#[from] serde_json::Error),
    /// It speaks no version that is known.
    #[error("its API version {0:?} is not known")]
    Version(String),
    /// The process ends.
    #[error("decoding its answer was given up")]
    GivenUp,
}

/// An error as Docker words it.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// The answer to `GET path`.
pub(super) async fn get<T>(socket: &Path, path: &str, at_most: Duration) -> Result<T, Problem>
where
    T: DeserializeOwned + Send + 'static,
{
    let stream = UnixStream::connect(socket).await.map_err(Problem::Connect)?;
    let answer = ask(stream, path.try_into()?, at_most).await?;
    match answer.status() {
        StatusCode::OK => decode(answer.into_body()).await,
        status => Err(refused(status, answer.into_body()).await),
    }
}

async fn refused(status: StatusCode, body: Incoming) -> Problem {
    let body = Limited::new(body, MAX_ERROR).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let message = match serde_json::from_slice(&body) {
        Ok(Refusal { message }) => message,
        Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
    };
    Problem::Status { status: status.as_u16(), message: bounded(message.into(), MAX_MESSAGE).into_owned() }
}

/// On a thread that may wait, since decoding does; it ends with the answer, or with whoever waits for it.
async fn decode<T>(mut body: impl Body<Data = Bytes, Error = hyper::Error> + Unpin) -> Result<T, Problem>
where
    T: DeserializeOwned + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    let reader = BufReader::new(Parts { receiver, part: Bytes::new() });
    let decoding = tokio::task::spawn_blocking(|| serde_json::from_reader(reader));
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame.map_err(Broken::from)?.into_data() else { continue };
        length = length.saturating_add(part.len());
        if length > MAX_ANSWER {
            return Err(Problem::TooLong);
        }
        if sender.send(part).await.is_err() {
            // It was decoded as far as it could be.
            break;
        }
    }
    drop(sender);
    Ok(decoding.await.map_err(|_| Problem::GivenUp)??)
}

/// The parts of a body, one after the other.
struct Parts {
    receiver: mpsc::Receiver<Bytes>,
    part: Bytes,
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.receiver.blocking_recv() {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
        let part = self.part.split_to(buffer.len().min(self.part.len()));
        buffer[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }
}
