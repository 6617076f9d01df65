//! The database on a real PostgreSQL: fencing, uniqueness, counts, grants, migrations, errors.
//!
//! Run by `tests/with-postgres`. Each test has a database of its own, and acts as the role it is about: the grants are part of the test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_stack_arrays,
    reason = "a test fails by panicking"
)]

mod alerts;
mod alone;
mod audit;
mod backup;
#[path = "../kit/bouncer.rs"]
mod bouncer;
mod clock;
mod command_line;
mod concurrency;
mod connection;
mod contents;
mod controller;
mod database;
mod fencing;
mod floods;
mod grants;
mod history;
mod history_check;
mod hostile;
#[path = "../kit/hostile.rs"]
mod hostile_texts;
mod inventory;
mod job;
mod life;
mod lists;
mod migrations;
mod notifications;
mod operations;
mod pooler;
#[path = "../kit/port.rs"]
mod port;
mod results;
mod retention;
mod samples;
mod session;
mod tickets;
mod volumes;

use std::collections::BTreeMap;

use database::Database;
use serde_json::json;
use uuid::Uuid;
use volumeviz::domain::contract::{
    Claim, ClaimBody, ClaimReply, CompleteBody, Engine, FailBody, FailureClass, HeartbeatBody, InventoryBody,
    InventoryContainer, InventoryMount, InventoryReply, InventoryTotals, InventoryVolume, Progress, Reply, ReportBody,
};
use volumeviz::domain::measurement::{Completeness, Entry, Figures, Filesystem, Method, VolumeResult};
use volumeviz::domain::selector::VolumeKind;
use volumeviz::domain::work::WorkOrder;
use volumeviz::store;
use volumeviz::store::runs::NewRun;

/// One agent process.
struct Agent<'a> {
    database: &'a Database,
    instance: Uuid,
    node: String,
}

impl<'a> Agent<'a> {
    fn on(database: &'a Database, node: &str) -> Self {
        Self { database, instance: Uuid::new_v4(), node: node.to_owned() }
    }

    fn claim_body(&self) -> ClaimBody {
        ClaimBody {
            instance: self.instance,
            agent_version: "test".to_owned(),
            node_name: self.node.clone(),
            node_uid: format!("{}-uid", self.node),
        }
    }

    async fn claim(&self, ticket: Uuid) -> ClaimReply {
        store::agent::claim(&mut *self.database.agent().await, ticket, &self.claim_body()).await.unwrap()
    }

    async fn claimed(&self, ticket: Uuid) -> Claim {
        match self.claim(ticket).await {
            ClaimReply::Claimed(claim) => *claim,
            ClaimReply::Fenced => panic!("fenced"),
        }
    }

    async fn heartbeat(&self, ticket: Uuid) -> Reply {
        let body = HeartbeatBody { instance: self.instance, progress: progress(0) };
        store::agent::heartbeat(&mut *self.database.agent().await, ticket, &body).await.unwrap()
    }

    async fn inventory(&self, ticket: Uuid, volumes: &[InventoryVolume], containers: &[InventoryContainer]) -> Reply {
        let totals = InventoryTotals { volumes: count(volumes.len()), containers: count(containers.len()) };
        self.chunk(ticket, volumes, containers, Some(totals)).await
    }

    fn inventory_body(
        &self,
        volumes: &[InventoryVolume],
        containers: &[InventoryContainer],
        totals: Option<InventoryTotals>,
    ) -> InventoryBody {
        InventoryBody {
            instance: self.instance,
            engine: Engine {
                id: "engine".to_owned(),
                version: "28".to_owned(),
                data_root: "/var/lib/docker".to_owned(),
            },
            volumes: volumes.to_vec(),
            containers: containers.to_vec(),
            totals,
        }
    }

    async fn chunk(
        &self,
        ticket: Uuid,
        volumes: &[InventoryVolume],
        containers: &[InventoryContainer],
        totals: Option<InventoryTotals>,
    ) -> Reply {
        self.list(ticket, &self.inventory_body(volumes, containers, totals)).await.reply
    }

    async fn list(&self, ticket: Uuid, body: &InventoryBody) -> InventoryReply {
        store::agent::inventory(&mut *self.database.agent().await, ticket, body).await.unwrap()
    }

    async fn report(&self, ticket: Uuid, results: &[VolumeResult]) -> Reply {
        self.try_report(ticket, results).await.unwrap()
    }

    async fn try_report(&self, ticket: Uuid, results: &[VolumeResult]) -> sqlx::Result<Reply> {
        store::agent::report(&mut *self.database.agent().await, ticket, &self.report_body(results)).await
    }

    fn report_body(&self, results: &[VolumeResult]) -> ReportBody {
        ReportBody { instance: self.instance, results: results.to_vec(), progress: progress(results.len()) }
    }

    async fn complete(&self, ticket: Uuid, results: usize) -> Reply {
        store::agent::complete(&mut *self.database.agent().await, ticket, &self.complete_body(results)).await.unwrap()
    }

    fn complete_body(&self, results: usize) -> CompleteBody {
        CompleteBody { instance: self.instance, results: count(results), progress: progress(results) }
    }

    async fn fail(&self, ticket: Uuid, class: FailureClass, reason: &str) -> Reply {
        store::agent::fail(&mut *self.database.agent().await, ticket, &self.fail_body(class, reason)).await.unwrap()
    }

    fn fail_body(&self, class: FailureClass, reason: &str) -> FailBody {
        FailBody { instance: self.instance, class, reason: reason.to_owned(), message: "why".to_owned() }
    }

    /// A whole job over these volumes.
    async fn measure(&self, ticket: Uuid, volumes: &[(&str, u64)]) {
        self.claimed(ticket).await;
        let listed: Vec<_> = volumes.iter().map(|(name, _)| volume(name)).collect();
        assert_eq!(self.inventory(ticket, &listed, &[]).await, Reply::Ok);
        let results: Vec<_> = volumes.iter().map(|(name, bytes)| result(name, *bytes)).collect();
        assert_eq!(self.report(ticket, &results).await, Reply::Ok);
        assert_eq!(self.complete(ticket, volumes.len()).await, Reply::Ok);
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap()
}

fn progress(volumes: usize) -> Progress {
    Progress { volumes_total: count(volumes), volumes_done: count(volumes), entries: 10, bytes: 100 }
}

fn volume(name: &str) -> InventoryVolume {
    InventoryVolume {
        name: name.to_owned(),
        driver: "local".to_owned(),
        mountpoint: format!("/var/lib/docker/volumes/{name}/_data"),
        scope: "local".to_owned(),
        labels: [("app".to_owned(), "db".to_owned())].into(),
        options: BTreeMap::default(),
        kind: VolumeKind::Named,
        selected: true,
        created_at: None,
        inode: None,
        birth_time_ns: None,
    }
}

fn container(id: &str, state: &str, volumes: &[&str]) -> InventoryContainer {
    let mount = |volume: &&str| InventoryMount {
        volume: (*volume).to_owned(),
        destination: "/data".to_owned(),
        read_write: true,
    };
    InventoryContainer {
        container_id: id.to_owned(),
        name: format!("{id}-name"),
        image: "busybox".to_owned(),
        state: state.to_owned(),
        labels: BTreeMap::default(),
        mounts: volumes.iter().map(mount).collect(),
    }
}

fn result(name: &str, bytes: u64) -> VolumeResult {
    VolumeResult {
        volume: name.to_owned(),
        completeness: Completeness::Complete,
        reason: None,
        method: Some(Method::Walk),
        figures: Some(Figures {
            allocated_bytes: bytes,
            apparent_bytes: Some(bytes / 2),
            files: 3,
            directories: Some(1),
        }),
        filesystem: Some(Filesystem { capacity_bytes: 1 << 40, available_bytes: 1 << 30 }),
        errors: Vec::new(),
        skipped_mounts: Vec::new(),
        top_files: None,
        top_directories: None,
        duration_ms: 5,
        age_ms: 0,
    }
}

/// Files or directories of a volume.
fn entries(list: &[(&str, u64)]) -> Vec<Entry> {
    let entry = |&(path, allocated_bytes): &(&str, u64)| Entry { path: path.to_owned(), allocated_bytes };
    list.iter().map(entry).collect()
}

/// As whoever may do everything.
async fn execute(database: &Database, sql: &'static str) {
    sqlx::query(sql).execute(&mut **database.superuser().await).await.unwrap();
}

/// Plans a run of scan `scan-uid` and returns its id.
async fn plan(database: &Database, key: &str, nodes: &[&str]) -> i64 {
    plan_work(database, key, nodes, json!({})).await
}

/// The same for this snapshot of a spec.
async fn plan_work(database: &Database, key: &str, nodes: &[&str], work: serde_json::Value) -> i64 {
    let run = NewRun {
        scan_uid: "scan-uid".to_owned(),
        scan_name: "scan".to_owned(),
        key: key.to_owned(),
        work: serde_json::from_value::<WorkOrder>(work).unwrap(),
        nodes: nodes.iter().map(|node| ((*node).to_owned(), format!("{node}-uid"))).collect(),
    };
    store::runs::plan(&mut *database.controller().await, &run).await.unwrap().id
}

/// The ticket of a node's open job.
async fn ticket(database: &Database, run: i64, node: &str) -> Uuid {
    let open = store::jobs::open(&mut *database.controller().await, run).await.unwrap();
    open.into_iter().find(|job| job.node == node).expect("an open job").ticket
}

/// A run over one node, claimed by a fresh agent.
async fn claimed(database: &Database) -> (i64, Uuid, Agent<'_>) {
    let run = plan(database, "once", &["n1"]).await;
    let ticket = ticket(database, run, "n1").await;
    let agent = Agent::on(database, "n1");
    agent.claimed(ticket).await;
    (run, ticket, agent)
}
