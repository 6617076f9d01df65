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

/// Docker's data root, with the volumes `a` and `b`.
struct Node(TempDir);

impl Node {
    fn new() -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        for volume in ["a", "b"] {
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
                Some("volumes") => json!({"Volumes": [volume("a"), volume("b")], "Warnings": []}),
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_made_anew_between_two_attempts_is_measured_and_counted_besides_the_old_one() {
    let (database, node) = (Database::new().await, Node::new());
    let run = plan(&database, "once", &["n1"]).await;
    let first = ticket(&database, run, "n1").await;
    let before = Agent::on(&database, "n1");
    before.claimed(first).await;
    let listed = [node.listed("a"), node.listed("b")];
    assert_eq!(before.inventory(first, &listed, &[]).await, Reply::Ok);
    assert_eq!(before.report(first, &[result("a", 1 << 40)]).await, Reply::Ok);
    assert_eq!(before.fail(first, FailureClass::Retryable, "AgentError").await, Reply::Ok);

    // The old one is there until the new one is: no inode is used again.
    fs::rename(node.root().join("volumes/a"), node.root().join("volumes/old")).unwrap();
    node.make("a");
    fs::write(node.data("a").join("file"), [7; 100_000]).unwrap();

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
    let until = Instant::now() + PATIENCE;
    let client = reqwest::Client::new();
    while client.post(format!("http://{address}{PATH}")).json(&offer).send().await.is_err() {
        assert!(Instant::now() < until, "the agent takes no ticket");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ended = "SELECT count(*) FROM scan_jobs WHERE status NOT IN ('pending', 'running')";
    while database.number(ended).await == 0 && database.number("SELECT max(attempt)::bigint FROM scan_jobs").await == 2
    {
        assert!(Instant::now() < until, "the job does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    assert_eq!(database.number("SELECT count(*) FROM scan_jobs WHERE status = 'succeeded' AND attempt = 2").await, 1);
    let found: Vec<(String, bool, bool)> = sqlx::query_as(
        "SELECT name, volumes.deleted_at IS NOT NULL, allocated_bytes BETWEEN 100000 AND 1000000 FROM scan_results AS result
         JOIN volumes ON volumes.id = result.volume_id WHERE completeness = 'Complete' ORDER BY name, volumes.id",
    )
    .fetch_all(&mut **database.superuser().await)
    .await
    .unwrap();
    let expected = [("a", true, false), ("a", false, true), ("b", false, false)];
    assert_eq!(found, expected.map(|(name, removed, measured)| (name.to_owned(), removed, measured)));
    assert_eq!(database.number("SELECT (progress ->> 'volumes_total')::bigint FROM scan_jobs").await, 3);
}
