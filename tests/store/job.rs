//! A whole agent on a directory of volumes, told of by a Docker Engine that is made up.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::http::Uri;
use axum::{Json, Router};
use chrono::Utc;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use volumeviz::agent::walk::Identity;
use volumeviz::agent::{self, Args};
use volumeviz::controller::certificates::plan::{Certificates, Data};
use volumeviz::domain::dispatch::{Offer, PATH};
use volumeviz::tls;

use super::*;

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Docker's data root, with the volumes `a`, `b` and `c`.
pub(super) struct Node(TempDir);

impl Node {
    pub(super) fn new() -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        for volume in ["a", "b", "c"] {
            node.make(volume);
        }
        node
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn data(&self, volume: &str) -> PathBuf {
        self.root().join("volumes").join(volume).join("_data")
    }

    fn make(&self, volume: &str) {
        fs::create_dir_all(self.data(volume)).unwrap();
    }

    pub(super) fn tickets(&self) -> PathBuf {
        self.root().join("tickets")
    }

    /// Puts the agents' certificates where the kubelet would.
    pub(super) fn hand(&self, certificates: &Certificates) {
        fs::create_dir_all(self.tickets()).unwrap();
        for (name, bytes) in certificates.agent_data() {
            fs::write(self.tickets().join(name), bytes).unwrap();
        }
    }

    /// Another volume under the name of one that is there until then: no inode is used again.
    fn make_anew(&self, volume: &str) {
        let volumes = self.root().join("volumes");
        fs::rename(volumes.join(volume), volumes.join(format!("old-{volume}"))).unwrap();
        self.make(volume);
        fs::write(self.data(volume).join("file"), [7; 100_000]).unwrap();
    }

    /// What the inventory says of a volume, as an agent makes it.
    fn listed(&self, name: &str) -> InventoryVolume {
        let identity = Identity::of(&self.data(name)).unwrap();
        InventoryVolume {
            mountpoint: self.data(name).to_str().unwrap().to_owned(),
            inode: i64::try_from(identity.inode).ok(),
            birth_time_ns: identity.birth_time_ns,
            ..volume(name)
        }
    }

    /// Serves what Docker would say of this directory; returns its socket.
    fn serve_docker(&self) -> PathBuf {
        let root = self.root().to_owned();
        let socket = root.join("docker.sock");
        let volume = move |name: &str| {
            let mountpoint = root.join("volumes").join(name).join("_data");
            json!({"Name": name, "Driver": "local", "Mountpoint": mountpoint, "Labels": {}, "Scope": "local", "Options": {}})
        };
        let root = self.root().to_owned();
        let answer = move |uri: Uri| {
            let answer: Value = match uri.path().rsplit('/').next() {
                Some("version") => json!({"Version": "28.0.0", "ApiVersion": "1.48", "MinAPIVersion": "1.24"}),
                Some("info") => json!({"ID": "engine", "ServerVersion": "28.0.0", "DockerRootDir": root}),
                Some("volumes") => json!({"Volumes": [volume("a"), volume("b"), volume("c")], "Warnings": []}),
                _ => json!([]),
            };
            async move { Json(answer) }
        };
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
        socket
    }
}

/// Starts an agent with these certificates on the node; returns where it takes tickets.
pub(super) fn start(
    node: &Node,
    certificates: &Certificates,
    database: &Database,
    stop: CancellationToken,
) -> SocketAddr {
    let (listen, tickets_listen) = (port::free("127.0.0.1"), port::free("127.0.0.1"));
    node.hand(certificates);
    let args = Args {
        listen,
        tickets_listen,
        tickets_tls_directory: node.tickets(),
        node_name: "n1".to_owned(),
        pod_uid: "pod".to_owned(),
        docker_socket: node.serve_docker(),
        data_root: node.root().to_owned(),
        database: database::args(database::AGENT, &database.name, &[]),
    };
    tokio::spawn(agent::run(args, stop));
    tickets_listen
}

/// An attempt that reports so much and fails.
async fn attempt(node: &Node, database: &Database, run: i64, results: &[VolumeResult]) {
    let ticket = ticket(database, run, "n1").await;
    let agent = Agent::on(database, "n1");
    agent.claimed(ticket).await;
    let listed = ["a", "b", "c"].map(|name| node.listed(name));
    assert_eq!(agent.inventory(ticket, &listed, &[]).await, Reply::Ok);
    assert_eq!(agent.report(ticket, results).await, Reply::Ok);
    assert_eq!(agent.fail(ticket, FailureClass::Retryable, "AgentError").await, Reply::Ok);
}

pub(super) async fn wait(what: &str, probe: impl AsyncFn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !probe().await {
        assert!(Instant::now() < until, "waited {PATIENCE:?} in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_made_anew_between_attempts_are_measured_and_counted_besides_the_old_ones() {
    let (database, node) = (Database::new().await, Node::new());
    let run = plan(&database, "once", &["n1"]).await;
    attempt(&node, &database, run, &[result("a", 1 << 40), result("c", 1 << 40)]).await;
    node.make_anew("a");
    node.make_anew("c");
    attempt(&node, &database, run, &[result("c", 1 << 41)]).await;

    let open = store::jobs::open(&mut *database.controller().await, run).await.unwrap().remove(0);
    let stop = CancellationToken::new();
    let certificates = Certificates::of(&Data::new(), &Data::new()).renewed(Utc::now()).unwrap();
    let address = start(&node, &certificates, &database, stop.clone());
    let offer = Offer {
        v: 1,
        ticket: open.ticket,
        job: open.id,
        node_name: "n1".to_owned(),
        node_uid: "n1-uid".to_owned(),
        pod_uid: "pod".to_owned(),
    };
    let client = certificates.controller.client(PATIENCE, PATIENCE).unwrap();
    let url = format!("https://{}:{}{PATH}", tls::host(address.ip()), address.port());
    let taken = async || client.post(&url).json(&offer).send().await.is_ok();
    wait("the agent to take the ticket", taken).await;
    let ended = "SELECT count(*) FROM scan_jobs WHERE status NOT IN ('pending', 'running')";
    wait("the job to end", async || database.number(ended).await > 0).await;
    stop.cancel();
    assert_eq!(database.number("SELECT count(*) FROM scan_jobs WHERE status = 'succeeded' AND attempt = 3").await, 1);
    let found: Vec<(String, bool, i64)> = sqlx::query_as(
        "SELECT name, volumes.deleted_at IS NOT NULL, allocated_bytes FROM scan_results AS result
         JOIN volumes ON volumes.id = result.volume_id WHERE completeness = 'Complete' ORDER BY name, volumes.id",
    )
    .fetch_all(&mut **database.superuser().await)
    .await
    .unwrap();
    let shown: Vec<_> = found.iter().map(|(name, removed, _)| (name.as_str(), *removed)).collect();
    assert_eq!(shown, [("a", true), ("a", false), ("b", false), ("c", true), ("c", false)]);
    assert!((100_000..1_000_000).contains(&found[1].2), "measured by its own files: {found:?}");
    assert_eq!([found[0].2, found[3].2, found[4].2], [1 << 40, 1 << 40, 1 << 41], "final stays final");
    assert_eq!(database.number("SELECT (progress ->> 'volumes_total')::bigint FROM scan_jobs").await, 5);
}
