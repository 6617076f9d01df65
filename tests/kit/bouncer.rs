//! A PgBouncer of a test's own, in transaction mode.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::port;

/// Killed when dropped.
pub(crate) struct Bouncer {
    process: Child,
    folder: TempDir,
    pub(crate) address: SocketAddr,
}

impl Bouncer {
    /// Starts one that listens at `ip`: by `databases` and further `settings`, as its file has them, for these users and passwords.
    pub(crate) fn start(ip: &str, databases: &str, users: &[(&str, &str)], settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = port::free(ip);
        let path = |name: &str| folder.path().join(name);
        let users: Vec<String> = users.iter().map(|(name, password)| format!("\"{name}\" \"{password}\"\n")).collect();
        let settings = format!(
            "[databases]\n{databases}\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nunix_socket_dir =\nauth_type = scram-sha-256\n\
             auth_file = {}\npool_mode = transaction\n{settings}",
            address.ip(),
            address.port(),
            path("users").display()
        );
        fs::write(path("users"), users.concat()).unwrap();
        fs::write(path("pgbouncer.ini"), settings).unwrap();
        for file in [folder.path().to_owned(), path("users"), path("pgbouncer.ini")] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { process: run(&folder), folder, address }
    }

    pub(crate) fn is_listening(&self) -> bool {
        TcpStream::connect(self.address).is_ok()
    }

    /// With `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Once it was killed.
    pub(crate) fn start_anew(&mut self) {
        self.process = run(&self.folder);
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        drop((self.process.kill(), self.process.wait()));
    }
}

/// It refuses to run as root.
fn run(folder: &TempDir) -> Child {
    Command::new("setpriv")
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "pgbouncer", "--quiet"])
        .arg(folder.path().join("pgbouncer.ini"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("pgbouncer is installed by `make setup`")
}
