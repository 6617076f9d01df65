//! `volumeviz docker-proxy`: holds Docker's socket, which is as good as root on its node, so that the agent beside it does not have to.
//!
//! It serves a unix socket in a directory that only the two share, and passes on four GETs ([`allowed`]); everything else is answered
//! with 403 and reaches nobody, but for `GET /livez`, by which [`check()`] asks whether it still serves. What is passed on is made anew:
//! neither a header nor a byte of a body of the asker's gets through.

pub mod allowed;
mod check;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub use check::{Unwell, check};

use crate::agent::docker::{Broken, DEFAULT_SOCKET, MAX_ANSWER, NO_SOCKET, PROXY_SOCKET, ask, no_socket};
use crate::http;

/// An agent asks one thing after the other; more at a time would only load dockerd.
const MOST_AT_A_TIME: usize = 4;
/// Beyond what an agent waits for, so that its own error is the one that is told.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// An agent asks at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer: more than an agent reads, so that its own error is the one that is told.
const MAX_PASSED_ON: usize = MAX_ANSWER + (1 << 20);
/// Bytes of a refused path in the log.
const MAX_LOGGED: usize = 200;

/// How the proxy runs.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Docker's socket. Its directory must be mounted, not the file: dockerd makes a new one when it starts.
    #[arg(long, env = "VOLUMEVIZ_DOCKER_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub docker_socket: PathBuf,
    /// The socket to serve; one that an earlier process left is replaced.
    #[arg(
        long,
        env = "VOLUMEVIZ_DOCKER_PROXY_SOCKET",
        default_value = PROXY_SOCKET,
        value_name = "PATH"
    )]
    pub listen: PathBuf,
    /// Ask the proxy that serves this socket whether it still does, instead of being one; exits with 0 when it does.
    #[arg(long)]
    pub check: bool,
}

/// The proxy ended for a reason of its own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be made.
    #[error("failed to listen on {path}: {source}")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The listener broke.
    #[error("failed to serve {path}: {source}")]
    Serve {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

struct Proxy {
    socket: PathBuf,
    turns: Arc<Semaphore>,
    refused: AtomicU64,
}

/// Serves until `stop`.
pub async fn run(Args { docker_socket, listen: path, .. }: Args, stop: CancellationToken) -> Result<(), Error> {
    let listener = listen(&path).map_err(|source| Error::Listen { path: path.clone(), source })?;
    let turns = Arc::new(Semaphore::new(MOST_AT_A_TIME));
    let proxy = Arc::new(Proxy { socket: docker_socket, turns, refused: AtomicU64::new(0) });
    tracing::info!(docker.socket = %proxy.socket.display(), socket = %path.display(), "passing on what agents ask");
    tokio::select! {
        served = serve(listener, proxy) => served.map_err(|source| Error::Serve { path, source }),
        () = stop.cancelled() => Ok(()),
    }
}

async fn serve(listener: UnixListener, proxy: Arc<Proxy>) -> io::Result<()> {
    let server = http::http1_only(axum_server::from_unix(listener)?, HEAD_TIMEOUT);
    server.serve(Router::new().fallback(asked).with_state(proxy).into_make_service()).await
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn asked(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    if request.method() == Method::GET && *request.uri() == check::LIVEZ {
        return StatusCode::OK.into_response();
    }
    let Some(asked) = allowed::passed_on(request.method(), request.uri(), request.headers()) else {
        proxy.note_refusal(&request);
        return refuse(StatusCode::FORBIDDEN, "docker-proxy passes on only what an agent reads");
    };
    let Ok(turn) = Arc::clone(&proxy.turns).try_acquire_owned() else {
        return refuse(StatusCode::TOO_MANY_REQUESTS, "docker-proxy is busy");
    };
    match tokio::time::timeout(ANSWER_TIMEOUT, proxy.pass_on(asked.clone(), turn)).await {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => refuse(StatusCode::GATEWAY_TIMEOUT, &format!("Docker did not answer within {ANSWER_TIMEOUT:?}")),
    }
}

/// In the form of Docker's own errors.
fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"message": message}))).into_response()
}

/// Why there is no answer of Docker's.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{}", no_socket(.0))]
    NoSocket(PathBuf),
    #[error("failed to connect to {0}: {1}")]
    Connect(PathBuf, io::Error),
    #[error("failed to ask Docker at {0}: {1}")]
    Ask(PathBuf, Broken),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NoSocket(_) => NO_SOCKET,
            Self::Connect(..) | Self::Ask(..) => StatusCode::BAD_GATEWAY.as_u16(),
        };
        refuse(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), &self.to_string())
    }
}

impl Proxy {
    /// Asks Docker on a connection of its own: dockerd makes a new socket when it starts. The turn ends with the answer's last byte.
    async fn pass_on(&self, asked: PathAndQuery, turn: OwnedSemaphorePermit) -> Result<Response, Refusal> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Refusal::NoSocket(self.socket.clone()),
            _ => Refusal::Connect(self.socket.clone(), error),
        })?;
        // However slowly the answer is read, Docker waits no longer.
        let answer = ask(stream, asked, 2 * ANSWER_TIMEOUT).await;
        let (parts, body) = answer.map_err(|error| Refusal::Ask(self.socket.clone(), error))?.into_parts();
        let body = Limited::new(body, MAX_PASSED_ON).map_err(cut).map_frame(move |frame| {
            let _until_the_end = &turn;
            frame
        });
        let mut response = Response::new(Body::new(body));
        *response.status_mut() = parts.status;
        if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
        }
        Ok(response)
    }

    /// In the log at the first, second, fourth, eighth, ...: who is refused must not fill it.
    fn note_refusal(&self, request: &Request) {
        let count = self.refused.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if count.is_power_of_two() {
            let path: String = request.uri().to_string().chars().take(MAX_LOGGED).collect();
            tracing::warn!(method = %request.method(), ?path, count, "refused a request");
        }
    }
}

/// The head of the answer is sent by now: only the log can say why the rest does not come.
fn cut(error: axum::BoxError) -> axum::BoxError {
    if error.is::<LengthLimitError>() {
        tracing::warn!("cut an answer of Docker's: it is longer than {MAX_PASSED_ON} bytes");
    } else {
        tracing::warn!("an answer of Docker's ended early: {error}");
    }
    error
}
