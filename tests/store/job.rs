//! A whole agent on a directory of volumes, told of by a Docker Engine that is made up.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::http::Uri;
use axum::{Json, Router};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use volumeviz::agent::walk::Identity;
use volumeviz::agent::{self, Args};
use volumeviz::domain::dispatch::{Offer, PATH};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// Docker's data root, with the volumes `a`, `b` and `c`.
struct Node(TempDir);

impl Node {
    fn new() -> Self {
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

/// Starts an agent on the node; returns where it takes tickets.
fn start(node: &Node, database: &Database, stop: CancellationToken) -> SocketAddr {
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let args = Args {
        listen,
        node_name: "n1".to_owned(),
        pod_uid: "pod".to_owned(),
        docker_socket: node.serve_docker(),
        data_root: node.root().to_owned(),
        database: database::args(database::AGENT, &database.name, &[]),
    };
    tokio::spawn(agent::run(args, stop));
    listen
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

async fn wait(what: &str, probe: impl AsyncFn() -> bool) {
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
    let address = start(&node, &database, stop.clone());
    let offer = Offer {
        v: 1,
        ticket: open.ticket,
        job: open.id,
        node_name: "n1".to_owned(),
        node_uid: "n1-uid".to_owned(),
        pod_uid: "pod".to_owned(),
    };
    let client = reqwest::Client::new();
    let taken = async || client.post(format!("http://{address}{PATH}")).json(&offer).send().await.is_ok();
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
