//! The proxy as a process of its own: confined, and told what to log while it runs.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::PATIENCE;

/// A running proxy and what it logs.
struct Process {
    folder: TempDir,
    child: Child,
    log: Receiver<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Process {
    /// With this log filter in a file.
    fn start(filter: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("filter"), filter).unwrap();
        let option = |name: &str, file: &str| format!("--{name}={}", folder.path().join(file).display());
        let mut child = Command::new(env!("CARGO_BIN_EXE_volumeviz"))
            .args(["docker-proxy".to_owned(), option("docker-socket", "engine"), option("listen", "proxy")])
            .arg(option("log-filter-file", "filter"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { folder, child, log }
    }

    /// Once it serves, it has read its filter.
    fn wait_until_it_serves(&self) {
        let (until, socket) = (Instant::now() + PATIENCE, self.folder.path().join("proxy"));
        while !socket.exists() {
            assert!(Instant::now() < until, "there is no socket");
            std::thread::yield_now();
        }
    }

    /// Reads the log up to a line that has this in it.
    fn until(&self, part: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let line = self.log.recv_timeout(until.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|error| panic!("no {part:?} in the log: {error}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    fn write_filter(&self, filter: &str) {
        // As a kubelet does: another file in its place.
        let (new, path) = (self.folder.path().join("new"), self.folder.path().join("filter"));
        std::fs::write(&new, filter).unwrap();
        std::fs::rename(new, path).unwrap();
    }
}

#[test]
fn it_is_confined_before_it_serves() {
    let process = Process::start("info");
    assert!(process.until("confined: ").contains("writing is forbidden by Landlock"));
    process.until("passing on what agents ask");
    let mut threads = 0;
    for thread in std::fs::read_dir(format!("/proc/{}/task", process.child.id())).unwrap() {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        assert_eq!((value("Seccomp:"), value("NoNewPrivs:")), (Some("2"), Some("1")), "{status}");
        threads += 1;
    }
    assert!(threads > 1, "the runtime's, and the one that follows the log filter");
}

/// As the kubelet asks it.
#[test]
fn one_that_hangs_is_told_from_one_that_serves() {
    let process = Process::start("info");
    let socket = process.folder.path().join("proxy");
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volumeviz"));
        let output = command.args(["docker-proxy", "--check", "--listen"]).arg(&socket).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    process.until("passing on what agents ask");
    assert_eq!(check(), (Some(0), String::new()));
    let id = Pid::from_child(&process.child);
    kill_process(id, Signal::STOP).unwrap();
    let (code, said) = check();
    let problem = format!("error: failed to ask the docker-proxy at {}: ", socket.display());
    assert!(code == Some(1) && said.starts_with(&problem), "{code:?}: {said}");
    kill_process(id, Signal::CONT).unwrap();
    assert_eq!(check(), (Some(0), String::new()));
}

#[test]
fn what_is_logged_changes_while_it_runs() {
    let process = Process::start("warn");
    process.wait_until_it_serves();
    process.write_filter("info,volumeviz=debug");
    assert!(process.until("logs by another filter").contains("volumeviz=debug"));
    process.write_filter("volumeviz=loudest");
    assert!(process.until("goes on with the log filter").contains("loudest"));
    process.write_filter("info");
    process.until("logs by another filter");
}

#[test]
fn a_filter_that_is_none_is_named_and_keeps_nobody_from_starting() {
    let process = Process::start("volumeviz=loudest");
    let said = process.until("instead: ");
    assert!(said.contains(r#""volumeviz=loudest" is not a log filter"#), "{said}");
    process.until("passing on what agents ask");
}

#[test]
fn an_option_that_is_none_is_refused() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_volumeviz")).args(["--log=volumeviz=loudest", "crds"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with(r#"error: "volumeviz=loudest" is not a log filter"#), "{said}");
}
