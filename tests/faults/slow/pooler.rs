//! PgBouncer between the product and its database, on the machine, where pods reach it as they would a server outside of the cluster.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::super::*;
use super::external::{HOST, PASSWORD, external_database, install_over_it, try_external_sql};
use super::slow_network::MACHINE;

/// PgBouncer in transaction mode before the external database; killed when dropped.
struct Bouncer {
    process: Child,
    port: u16,
    folder: TempDir,
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        drop((self.process.kill(), self.process.wait()));
    }
}

impl Bouncer {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = kubectl("get pod -n elsewhere database -o jsonpath={.status.podIP}");
        let port = TcpListener::bind((MACHINE, 0)).unwrap().local_addr().unwrap().port();
        let users = ["controller", "agent"].map(|login| format!("\"external_{login}\" \"{PASSWORD}\"\n")).concat();
        let settings = format!(
            "[databases]\nvolumeviz = host={server} port=5432\n[pgbouncer]\nlisten_addr = {MACHINE}\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n",
            folder.path().join("users").display()
        );
        fs::write(folder.path().join("users"), users).unwrap();
        fs::write(folder.path().join("pgbouncer.ini"), settings).unwrap();
        for file in [folder.path().to_owned(), folder.path().join("users"), folder.path().join("pgbouncer.ini")] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let process = start(&folder);
        Self { process, port, folder }.listening()
    }

    fn listening(self) -> Self {
        wait(20, "PgBouncer to listen", || TcpStream::connect((MACHINE, self.port)).ok());
        self
    }

    /// With `kill -9`.
    fn killed(mut self) -> Self {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        assert!(TcpStream::connect((MACHINE, self.port)).is_err());
        self
    }

    fn started_anew(mut self) -> Self {
        self.process = start(&self.folder);
        self.listening()
    }
}

/// It refuses to run as root.
fn start(folder: &TempDir) -> Child {
    Command::new("setpriv")
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "pgbouncer", "--quiet"])
        .arg(folder.path().join("pgbouncer.ini"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("pgbouncer is installed by `make setup`")
}

#[test]
fn pgbouncer_restarted_in_the_middle() {
    let _bundled = external_database();
    let bouncer = Bouncer::new();
    install_over_it(&format!(
        "database.external.host={MACHINE},database.external.port={},database.external.pooler=transaction,database.external.direct.host={HOST}",
        bouncer.port
    ));
    let mid = MidScan::reach("bouncer-restarted", &json!({}), try_external_sql);
    let since = Instant::now();
    // That anybody notices shows that it is in between.
    let bouncer = bouncer.killed();
    database_loss_is_told(&mid.scan, &["Unreachable"], since);
    let _bouncer = bouncer.started_anew();
    mid.status_is_right();
    mid.ends_well(150, 1, Job::WentOn);
    assert_eq!(restarts("controller"), mid.controllers, "it heals without a restart");
    no_permit_is_lost();
}
