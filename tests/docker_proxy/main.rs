//! `volumeviz docker-proxy` in front of a server that notes every byte it is sent.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../kit/engine.rs"]
mod engine;
mod floods;
mod process;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use volumeviz::agent::docker::Docker;
use volumeviz::docker_proxy::{self, Args};

const PATIENCE: Duration = Duration::from_secs(10);
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT"];
/// What agents ask.
const ALLOWED: [&str; 4] = ["/version", "/info", "/volumes", "/containers/json?all=true&size=false"];
const API: &str = include_str!("api.txt");

/// The proxy, and the server behind it.
struct Proxied {
    folder: TempDir,
    /// Heads of the requests that got through.
    heads: Arc<Mutex<Vec<String>>>,
    _runtime: Runtime,
}

impl Proxied {
    fn start() -> Self {
        let proxied = Self::without_engine();
        let engine = UnixListener::bind(proxied.engine()).unwrap();
        let heads = Arc::clone(&proxied.heads);
        thread::spawn(move || {
            for stream in engine.incoming() {
                let mut stream = stream.unwrap();
                let head = head(&mut stream);
                heads.lock().unwrap().push(head);
                let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nApi-Version: 1.47\r\nContent-Length: 2\r\n\r\n{}";
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        proxied
    }

    fn without_engine() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let [docker_socket, listen] = ["engine", "proxy"].map(|name| folder.path().join(name));
        let args = Args { docker_socket, listen, check: false };
        // What an earlier process left.
        drop(UnixListener::bind(&args.listen).unwrap());
        let listen = args.listen.clone();
        runtime.spawn(async { docker_proxy::run(args, CancellationToken::new()).await.unwrap() });
        let deadline = std::time::Instant::now() + PATIENCE;
        while UnixStream::connect(&listen).is_err() {
            assert!(std::time::Instant::now() < deadline, "nobody listens");
            thread::yield_now();
        }
        Self { folder, heads: Arc::default(), _runtime: runtime }
    }

    fn engine(&self) -> PathBuf {
        self.folder.path().join("engine")
    }

    fn proxy(&self) -> PathBuf {
        self.folder.path().join("proxy")
    }

    /// The status of the answer to these bytes.
    fn send(&self, request: &str) -> u16 {
        let mut stream = UnixStream::connect(self.proxy()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let head = head(&mut stream);
        let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        status.unwrap_or_else(|| panic!("{request:?} was answered with {head:?}"))
    }

    fn ask(&self, method: &str, path: &str) -> u16 {
        self.send(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    fn got_through(&self) -> Vec<String> {
        std::mem::take(&mut *self.heads.lock().unwrap())
    }
}

fn head(stream: &mut UnixStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The paths of Docker's API as they are documented.
fn paths() -> impl Iterator<Item = &'static str> {
    API.lines().filter(|line| line.starts_with('/'))
}

#[test]
fn of_all_of_dockers_api_four_calls_get_through() {
    let proxied = Proxied::start();
    assert!(paths().count() > 90, "the whole API");
    for prefix in ["", "/v1.24", "/v1.56"] {
        for method in METHODS {
            for path in
                paths().chain(["/containers/json?all=true&size=false", "/", "/metrics", "/grpc", "/debug/pprof/"])
            {
                let allowed = method == "GET" && ALLOWED.contains(&path);
                let asked = format!("{prefix}{path}");
                assert_eq!(proxied.ask(method, &asked), if allowed { 200 } else { 403 }, "{method} {asked}");
                let expected =
                    if allowed { vec![format!("GET {asked} HTTP/1.1\r\nhost: docker\r\n\r\n")] } else { Vec::new() };
                assert_eq!(proxied.got_through(), expected, "{method} {asked}");
            }
        }
    }
}

#[test]
fn disguises_do_not_get_through() {
    let proxied = Proxied::start();
    let disguised = [
        "//info",
        "/info/",
        "/./info",
        "/v1.47/../info",
        "/v1.47//info",
        "/%69nfo",
        "/v1.47%2Finfo",
        "/info%00",
        "/info;x",
        "/info?",
        "/INFO",
        "/containers/json?all=true&size=true",
        "/containers/json?size=false&all=true",
        "/containers/json?all=true&size=false&filters={}",
        "/volumes?filters={}",
        "/v1.47/containers/x/attach/ws",
        "/containers/../info",
        "/containers/x%2F..%2F..%2Finfo",
        "/libpod/info",
        "/v5.0.0/libpod/info",
    ];
    for path in disguised {
        for method in METHODS {
            assert_eq!(proxied.ask(method, path), 403, "{method} {path}");
        }
    }
    assert_eq!(proxied.got_through(), [""; 0]);
}

#[test]
fn neither_bodies_nor_upgrades_nor_odd_requests_get_through() {
    let proxied = Proxied::start();
    let create = "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let odd = [
        format!("GET /info HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{create}", create.len()),
        format!(
            "GET /info HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{create}\r\n0\r\n\r\n",
            create.len()
        ),
        format!(
            "GET /info HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{create}"
        ),
        "GET /info HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".to_owned(),
        "GET /info HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "GET http://docker/info HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /info\tHTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /info HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n".to_owned(),
    ];
    for request in odd {
        let status = proxied.send(&request);
        assert!(matches!(status, 400 | 403), "{status}: {request:?}");
        assert_eq!(proxied.got_through(), [""; 0], "{request:?}");
    }
}

#[test]
fn headers_stay_behind_and_a_second_request_is_judged_as_the_first() {
    let proxied = Proxied::start();
    let mut stream = UnixStream::connect(proxied.proxy()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let first = "GET /info HTTP/1.1\r\nHost: evil\r\nX-Registry-Auth: x\r\nCookie: y\r\nConnection: keep-alive\r\n\r\n";
    let second = "DELETE /volumes/web HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{first}{second}").as_bytes()).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "403"], "{answers}");
    assert_eq!(proxied.got_through(), ["GET /info HTTP/1.1\r\nhost: docker\r\n\r\n"]);
}

#[test]
fn http_of_version_two_is_not_spoken() {
    let proxied = Proxied::start();
    let mut stream = UnixStream::connect(proxied.proxy()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The preface, and an empty frame of settings.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
}

/// Who asks and does not read holds a turn, and no more than that.
#[test]
fn only_so_many_answers_are_under_way_at_a_time() {
    let proxied = Proxied::without_engine();
    let engine = UnixListener::bind(proxied.engine()).unwrap();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in engine.incoming() {
            let mut stream = stream.unwrap();
            head(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").unwrap();
            kept.push(stream);
        }
    });
    let ask = || {
        let mut stream = UnixStream::connect(proxied.proxy()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let head = head(&mut stream);
        (stream, head)
    };
    let unread: Vec<_> = (0..4).map(|_| ask()).collect();
    assert!(unread.iter().all(|(_, head)| head.starts_with("HTTP/1.1 200")));
    assert!(ask().1.starts_with("HTTP/1.1 429"));
    drop(unread);
    let until = std::time::Instant::now() + PATIENCE;
    while !ask().1.starts_with("HTTP/1.1 200") {
        assert!(std::time::Instant::now() < until, "turns do not come back");
    }
}

/// Also while all turns wait for a Docker that hangs: another proxy would do no better.
#[test]
fn whether_it_serves_is_told_without_docker() {
    let proxied = Proxied::without_engine();
    docker_proxy::check(&proxied.proxy()).unwrap();
    let engine = UnixListener::bind(proxied.engine()).unwrap();
    let (sender, asked) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for stream in engine.incoming() {
            let mut stream = stream.unwrap();
            sender.send((head(&mut stream), stream)).unwrap();
        }
    });
    let ask = || {
        let mut stream = UnixStream::connect(proxied.proxy()).unwrap();
        stream.write_all(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream
    };
    let _waiting: Vec<_> = (0..4).map(|_| ask()).collect();
    let _hanging: Vec<_> = (0..4).map(|_| asked.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(proxied.ask("GET", "/info"), 429);
    docker_proxy::check(&proxied.proxy()).unwrap();
    assert!(asked.try_recv().is_err(), "Docker was asked");
}

#[test]
fn the_socket_is_its_owners_alone() {
    let proxied = Proxied::start();
    let mode = proxied.proxy().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// An agent behind a proxy tells an engine that was never there from one that is stopped, as one that has the socket itself does.
#[test]
fn an_absent_engine_is_told_from_a_stopped_one() {
    let proxied = Proxied::without_engine();
    let docker = Docker::new(proxied.proxy(), proxied.folder.path().join("data"));
    let connect = || Runtime::new().unwrap().block_on(docker.connect()).unwrap_err().to_string();
    let problem = format!("its socket {} does not exist", proxied.engine().display());
    let data = proxied.folder.path().join("data");
    assert_eq!(connect(), format!("there is no Docker Engine: {problem}, and no volumes are below {}", data.display()));
    std::fs::create_dir_all(data.join("volumes")).unwrap();
    assert_eq!(connect(), format!("the Docker Engine is stopped: {problem}"));
    drop(UnixListener::bind(proxied.engine()).unwrap());
    assert!(connect().contains("502") || connect().contains("failed to connect to"), "{}", connect());
}
