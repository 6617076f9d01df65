//! `docker system df -v` beside `volumeviz scan`, on the volumes of a Docker of our own.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::Value;

use crate::compare::forget;
use crate::process::{self, Took};

/// How long dockerd gets to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);
/// Ticks of `/proc/PID/stat` a second, on every Linux that Docker runs on.
const TICKS: u64 = 100;

/// Who is asked for the sizes of all volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// `docker system df -v`.
    Docker,
    /// `volumeviz scan` of this Docker.
    Volumeviz,
}

/// Both.
pub const ASKED: [Asked; 2] = [Asked::Docker, Asked::Volumeviz];

/// A dockerd of our own: in a network of its own, without a bridge; stopped when dropped.
#[derive(Debug)]
pub struct Docker {
    dockerd: Child,
    folder: tempfile::TempDir,
}

impl Docker {
    /// Starts it on this data root.
    pub fn start(data_root: &Path, scratch: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = fs::File::create(scratch.join("dockerd.log")).unwrap();
        fs::write(folder.path().join("config.json"), "{}").unwrap();
        let place = |option: &str, name: &str| format!("--{option}={}", folder.path().join(name).display());
        let dockerd = Command::new("unshare")
            .args(["--net", "dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false"])
            .arg(format!("--data-root={}", data_root.canonicalize().unwrap().display()))
            .arg(format!("--host=unix://{}", folder.path().join("socket").display()))
            .args([place("exec-root", "exec"), place("pidfile", "pid"), place("config-file", "config.json")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("starting dockerd: {error}"));
        let mut docker = Self { dockerd, folder };
        docker.wait_until("answers", |docker| UnixStream::connect(docker.socket()).is_ok());
        docker
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Asks for the sizes of all volumes; what it took, dockerd's processor time included.
    fn ask(&self, asked: Asked, scratch: &Path) -> Took {
        let before = self.cpu();
        let (_, took) = process::run(&mut self.command(asked), scratch).unwrap();
        Took { cpu: took.cpu + self.cpu().saturating_sub(before), ..took }
    }

    fn command(&self, asked: Asked) -> Command {
        match asked {
            Asked::Docker => {
                let mut command = Command::new("docker");
                command.arg(format!("--host=unix://{}", self.socket().display())).args(["system", "df", "-v"]);
                command
            }
            Asked::Volumeviz => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_volumeviz"));
                command.args(["scan", "--output=json", "--docker"]).arg(self.socket());
                command
            }
        }
    }

    /// Apparent bytes of all volumes, as each of the two tells them.
    fn totals(&self, scratch: &Path) -> [u64; 2] {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.write_all(b"GET /system/df HTTP/1.0\r\nHost: docker\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("dockerd answers: {answer}"));
        let df: Value = serde_json::from_str(body).unwrap();
        let sizes =
            df["Volumes"].as_array().unwrap().iter().map(|volume| volume["UsageData"]["Size"].as_u64().unwrap());
        let (output, _) = process::run(&mut self.command(Asked::Volumeviz), scratch).unwrap();
        let ours: Value = serde_json::from_str(&output).unwrap();
        [sizes.sum(), ours["totals"]["apparent_bytes"].as_u64().unwrap()]
    }

    fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.dockerd.id());
        let stat = fs::read_to_string(path).unwrap();
        // The name of the program, in parentheses, may hold blanks; utime and stime are the 12th and 13th after it.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks = |n: usize| fields[n].parse::<u64>().unwrap();
        Duration::from_millis((ticks(11) + ticks(12)) * 1000 / TICKS)
    }

    fn wait_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "dockerd: waited in vain until it {what}");
            if let Some(status) = self.dockerd.try_wait().unwrap() {
                panic!("dockerd ended: {status}");
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Docker {
    /// Asks it to stop, so that it takes its containerd with it.
    fn drop(&mut self) {
        drop(Command::new("kill").arg(self.dockerd.id().to_string()).status());
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.dockerd.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                drop(self.dockerd.kill());
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// What each took, one a round; both tell the same total, or it panics.
pub fn compare(docker: &Docker, rounds: usize, cold: bool, scratch: &Path, rng: &mut StdRng) -> [Vec<Took>; 2] {
    let [theirs, ours] = docker.totals(scratch);
    assert_eq!(theirs, ours, "apparent bytes as Docker and as we tell them");
    let mut runs = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let mut order = [0, 1];
        order.shuffle(rng);
        for n in order {
            if cold {
                forget();
            }
            runs[n].push(docker.ask(ASKED[n], scratch));
        }
    }
    runs
}
