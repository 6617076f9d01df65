//! Engines that list more than anybody should have: through a proxy to `volumeviz scan`, which lists as an agent does; each a process of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde_json::{Value, json};

use super::engine::{Engine, Parts, volumes, whole};
use super::*;

/// A limit of memory in the chart's values, in bytes.
fn limit(container: &[&str]) -> u64 {
    let values = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/charts/volumeviz/values.yaml")).unwrap();
    let values: Value = serde_yaml::from_slice(&values).unwrap();
    let container = container.iter().fold(&values, |values, key| &values[key]);
    let memory = container["resources"]["limits"]["memory"].as_str().unwrap();
    memory.strip_suffix("Mi").unwrap().parse::<u64>().unwrap() << 20
}

static TURN: Mutex<()> = Mutex::new(());

/// A process of ours and the most memory it was seen with.
struct Watched {
    child: Child,
    peak: Receiver<u64>,
}

impl Watched {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_volumeviz"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, peak) = channel();
        let status = format!("/proc/{}/status", child.id());
        thread::spawn(move || {
            let mut most = 0;
            while let Some(now) = peak_in(&status) {
                most = now;
                thread::sleep(Duration::from_millis(2));
            }
            _ = sender.send(most);
        });
        Self { child, peak }
    }

    /// Its exit code, output, errors, and peak.
    fn ended(self) -> (Option<i32>, String, String, u64) {
        let output = self.child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let peak = self.peak.recv_timeout(PATIENCE).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr), peak)
    }
}

/// Its peak without what it has mapped of its binary, which is no release's here; while there is a process that has memory.
fn peak_in(status: &str) -> Option<u64> {
    let status = std::fs::read_to_string(status).ok()?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    };
    bytes("VmHWM:")?.checked_sub(bytes("RssFile:")?)
}

/// What `volumeviz scan` says of this engine through a proxy; the peaks of both are held against their limits.
fn listed(what: &str, engine: &Engine) -> (Option<i32>, String, String) {
    // What is measured does not wait for the others.
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("proxy");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (docker, listen) =
        (format!("--docker-socket={}", path(&engine.socket())), format!("--listen={}", path(&socket)));
    let mut proxy = Watched::start(&["--log=warn", "docker-proxy", &docker, &listen]);
    let until = Instant::now() + PATIENCE;
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < until, "nobody listens");
        thread::yield_now();
    }
    let began = Instant::now();
    let agent = Watched::start(&["scan", "--output", "jsonl", "--docker", &path(&socket)]);
    let (code, out, err, of_agent) = agent.ended();
    let took = began.elapsed();
    proxy.child.kill().unwrap();
    let (.., of_proxy) = proxy.ended();
    println!("{what}: agent {} KiB, proxy {} KiB, {took:.1?}", of_agent >> 10, of_proxy >> 10);
    assert!((1 << 20..limit(&["agent"]) * 3 / 4).contains(&of_agent), "an agent takes {of_agent} bytes for {what}");
    assert!(
        (1 << 18..limit(&["agent", "dockerProxy"]) / 2).contains(&of_proxy),
        "a proxy takes {of_proxy} bytes for {what}"
    );
    (code, out, err)
}

fn of_volumes(parts: impl Fn() -> Parts + Send + Sync + 'static) -> Engine {
    Engine::start(move |path| (200, if path == "/volumes" { parts() } else { whole("[]") }))
}

fn labels(count: usize, value: &str) -> Value {
    (0..count).map(|n| (format!("com.example.label-{n}"), json!(value))).collect::<serde_json::Map<_, _>>().into()
}

/// Docker's own fields of a volume, and these labels.
fn volume(labels: &Value) -> Value {
    json!({"CreatedAt": "2026-01-01T00:00:00Z", "Driver": "local", "Labels": labels, "Mountpoint": "/var/lib/docker/volumes/NAME/_data",
           "Name": "NAME", "Options": null, "Scope": "local"})
}

#[test]
fn ten_thousand_volumes_are_read_within_the_limits() {
    for (count, length) in [(10, 50), (20, 100)] {
        let like = volume(&labels(count, &"v".repeat(length)));
        let engine = of_volumes(move || volumes(10_000, &like));
        let (code, out, err) = listed(&format!("10000 volumes with {count} labels of {length} bytes"), &engine);
        assert_eq!((code, err.as_str(), out.lines().count()), (Some(2), "", 10_001), "none of them is on this machine");
    }
}

#[test]
fn a_label_of_a_megabyte_is_read_within_the_limits() {
    let like = volume(&json!({"big": "v".repeat(1 << 20), "k".repeat(1 << 20): "v"}));
    let engine = of_volumes(move || volumes(25, &like));
    let (code, out, err) = listed("25 volumes with labels of 1 MiB", &engine);
    assert_eq!((code, err.as_str(), out.lines().count()), (Some(2), "", 26));
}

#[test]
fn an_answer_that_is_too_long_is_refused_by_call_and_bound() {
    let big = volume(&json!({"big": "v".repeat(1 << 20)}));
    for (what, engine) in [
        ("10000 volumes with a label of 1 MiB", of_volumes(move || volumes(10_000, &big))),
        ("a label without an end", of_volumes(|| endless("{\"Volumes\":[{\"Name\":\"v\",\"Labels\":{\"big\":\""))),
        ("a field that nobody asked for", of_volumes(|| endless("{\"Other\":\""))),
    ] {
        is_too_long(what, &engine, "list volumes");
    }
}

/// Where one list has been kept and the other comes in one piece.
#[test]
fn the_worst_of_both_lists_stays_within_the_limits() {
    let like = volume(&labels(20, &"v".repeat(100)));
    let engine = Engine::start(move |path| {
        let listed = volumes(10_000, &like);
        (200, if path == "/volumes" { listed } else { endless("[{\"Id\":\"c\",\"Labels\":{\"big\":\"") })
    });
    is_too_long("10000 volumes, and a container with a label without an end", &engine, "list containers");
}

/// A text that begins like this.
fn endless(begin: &str) -> Parts {
    Box::new(std::iter::once(begin.as_bytes().to_vec()).chain(std::iter::repeat_n(vec![b'v'; 1 << 20], 1000)))
}

fn is_too_long(what: &str, engine: &Engine, call: &str) {
    let (code, _, err) = listed(what, engine);
    let (call, bound) =
        (format!("failed to {call} from Docker at "), format!("its answer is longer than {} bytes", 64 << 20));
    assert!(code == Some(2) && err.contains(&call) && err.contains(&bound), "{what}: {err}");
}

/// What is short on the wire and long in memory.
#[test]
fn an_answer_that_takes_too_much_memory_is_refused_by_call_and_bound() {
    let tiny: Value = (0..256).map(|n| (format!("{n}"), json!(""))).collect::<serde_json::Map<_, _>>().into();
    let (labelled, bare) = (volume(&tiny), volume(&Value::Null));
    let labelled = of_volumes(move || volumes(20_000, &labelled));
    let bare = of_volumes(move || volumes(300_000, &bare));
    let container = json!({"Id": "c", "Mounts": vec![json!({"Name": "v"}); 4000]}).to_string();
    let containers = Engine::start(move |path| {
        let listed = std::iter::once(format!("[{container}").into_bytes());
        let listed = listed.chain(std::iter::repeat_n(format!(",{container}").into_bytes(), 1000));
        (200, if path == "/volumes" { whole("{}") } else { Box::new(listed) })
    });
    for (what, engine, call) in [
        ("20000 volumes with 256 tiny labels", labelled, "list volumes"),
        ("300000 bare volumes", bare, "list volumes"),
        ("1000 containers with 4000 mounts", containers, "list containers"),
    ] {
        let (code, _, err) = listed(what, &engine);
        let bound = format!("take {} bytes of memory, and no more is kept", 48 << 20);
        assert!(
            code == Some(2) && err.contains(&format!("failed to {call} from Docker at ")) && err.contains(&bound),
            "{what}: {err}"
        );
    }
}

/// Who may ask does not get to hold a connection, or to have a body read.
#[test]
fn heads_must_come_in_time_and_bodies_are_not_read() {
    let proxied = Proxied::start();
    for body in ["Content-Length: 1099511627776\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n"] {
        let mut stream = UnixStream::connect(proxied.proxy()).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("GET /info HTTP/1.1\r\nHost: x\r\n{body}").as_bytes()).unwrap();
        let (part, mut taken) = (vec![b'x'; 1 << 16], 0);
        let refused = loop {
            match stream.write_all(&part) {
                Ok(()) => taken += part.len(),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(refused.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset),
            "{refused}"
        );
        assert!(taken <= 16 << 20, "{taken} bytes");
    }
    for begun in ["", "GET /info HTTP/1.1\r\nHost: x\r\n"] {
        let mut stream = UnixStream::connect(proxied.proxy()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(begun.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it hangs up");
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    assert_eq!(proxied.got_through(), [""; 0]);
}
