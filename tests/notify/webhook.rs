//! A webhook that remembers what it was told, and answers as it is told to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::serve::Listener;
use futures::StreamExt;
use serde_json::Value;
use tokio::net::TcpListener;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Request {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// What it answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Status(u16),
    /// 302 to there.
    Redirect(String),
    /// Nothing, ever.
    Nothing,
    /// A gigabyte; counts what was sent of it.
    Gigabyte(Arc<Mutex<usize>>),
}

#[derive(Clone, Default)]
pub(crate) struct Webhook {
    pub address: Option<SocketAddr>,
    seen: Arc<Mutex<Vec<Request>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    hangs: bool,
}

impl Webhook {
    /// On a free port of this address.
    pub(crate) async fn on(address: &str) -> Self {
        Self::with(address, false).await
    }

    /// One that takes connections and requests, and never answers.
    pub(crate) async fn hanging(address: &str) -> Self {
        Self::with(address, true).await
    }

    async fn with(address: &str, hangs: bool) -> Self {
        let listener = TcpListener::bind((address, 0))
            .await
            .unwrap_or_else(|error| panic!("{address}: {error}: run by tests/with-network"));
        let address = listener.local_addr().unwrap();
        Self { address: Some(address), hangs, ..Self::default() }.serve(listener)
    }

    pub(crate) fn serve<L: Listener<Addr: std::fmt::Debug>>(self, listener: L) -> Self {
        let router = Router::new().fallback(handle).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        self
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.unwrap().port()
    }

    /// Its URL under this name.
    pub(crate) fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/hook", self.port())
    }

    /// The next answers; then 200.
    pub(crate) fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.answers.lock().unwrap().extend(answers);
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits for so many requests.
    pub(crate) async fn told(&self, count: usize) -> Vec<Request> {
        crate::wait(&format!("{count} requests"), async || Some(self.seen()).filter(|seen| seen.len() >= count)).await
    }
}

async fn handle(State(webhook): State<Webhook>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let body = String::from_utf8(body.to_vec()).unwrap();
    webhook.seen.lock().unwrap().push(Request { path: uri.path().to_owned(), headers, body });
    let next = webhook.answers.lock().unwrap().pop_front();
    let answer = next.unwrap_or(if webhook.hangs { Answer::Nothing } else { Answer::Status(200) });
    let status = |code: u16| Response::builder().status(code);
    match answer {
        Answer::Status(code) => status(code).body(Body::from("canary-of-the-answer")).unwrap(),
        Answer::Redirect(to) => status(302).header("location", to).body(Body::empty()).unwrap(),
        Answer::Nothing => std::future::pending().await,
        Answer::Gigabyte(sent) => {
            let chunk = Bytes::from(vec![b'x'; 1 << 16]);
            let chunks = futures::stream::iter(0..1 << 14).map(move |_| {
                *sent.lock().unwrap() += chunk.len();
                Ok::<_, std::io::Error>(chunk.clone())
            });
            status(200).body(Body::from_stream(chunks)).unwrap()
        }
    }
}
