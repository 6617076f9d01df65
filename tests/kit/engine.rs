//! A Docker Engine on a unix socket that answers what a test wants it to.

#![allow(dead_code, unreachable_pub, reason = "a module of several test programs, each of which uses a part")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

/// An answer, part by part.
pub type Parts = Box<dyn Iterator<Item = Vec<u8>> + Send>;

/// The status and the body that answer a path, which is without a version.
type Answers = dyn Fn(&str) -> (u16, Parts) + Send + Sync;

/// A running engine.
pub struct Engine {
    folder: TempDir,
}

impl Engine {
    /// It answers `/version` and `/info` by itself.
    pub fn start(answers: impl Fn(&str) -> (u16, Parts) + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("engine")).unwrap();
        let data_root = folder.path().join("data").display().to_string();
        let answers: std::sync::Arc<Answers> = std::sync::Arc::new(answers);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (answers, data_root) = (std::sync::Arc::clone(&answers), data_root.clone());
                // Who asks may hang up at any time.
                thread::spawn(move || drop(answer(stream.unwrap(), &data_root, &*answers)));
            }
        });
        Self { folder }
    }

    /// With these volumes and containers, as Docker lists them.
    pub fn with(volumes: &[Value], containers: &[Value]) -> Self {
        let (volumes, containers) = (json!({"Volumes": volumes}).to_string(), json!(containers).to_string());
        Self::start(move |path| (200, whole(if path == "/volumes" { &volumes } else { &containers })))
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("engine")
    }
}

/// An answer in one part.
pub fn whole(text: &str) -> Parts {
    Box::new(std::iter::once(text.as_bytes().to_vec()))
}

/// A list of so many volumes like this one, made while it is sent; `NAME` in it is a name of each one's own.
pub fn volumes(count: usize, like: &Value) -> Parts {
    let like = like.to_string();
    let volume = move |n| like.replace("NAME", &format!("volume-{n:06}"));
    let listed = (0..count).map(move |n| format!("{}{}", if n == 0 { "" } else { "," }, volume(n)).into_bytes());
    Box::new(std::iter::once(b"{\"Volumes\":[".to_vec()).chain(listed).chain([b"],\"Warnings\":null}".to_vec()]))
}

fn answer(mut stream: UnixStream, data_root: &str, answers: &Answers) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let path = path.strip_prefix("/v1.47").unwrap_or(path);
    let (status, parts) = match path {
        "/version" => (200, whole(&json!({"Version": "28.2.2", "ApiVersion": "1.47"}).to_string())),
        "/info" => {
            let info = json!({"ID": "engine", "ServerVersion": "28.2.2", "DockerRootDir": data_root});
            (200, whole(&info.to_string()))
        }
        path => answers(path),
    };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut stream = std::io::BufWriter::with_capacity(1 << 18, stream);
    stream.write_all(head.as_bytes())?;
    for part in parts.filter(|part| !part.is_empty()) {
        write!(stream, "{:x}\r\n", part.len())?;
        stream.write_all(&part)?;
        stream.write_all(b"\r\n")?;
    }
    stream.write_all(b"0\r\n\r\n")?;
    stream.flush()
}
