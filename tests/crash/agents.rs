//! Agents that keep their contract: real HTTP over TLS, the database's own functions, volumes that need no measuring.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use axum_server::tls_rustls::RustlsConfig;
use chrono::Utc;
use tokio::net::TcpListener;
use uuid::Uuid;
use volumeviz::controller::certificates::plan::{Certificates, Data};
use volumeviz::controller::dispatch::{CONNECT_TIMEOUT, POST_TIMEOUT};
use volumeviz::controller::fleet::{Agent as AgentPod, Node};
use volumeviz::domain::contract::{
    ClaimBody, ClaimReply, CompleteBody, Engine, HeartbeatBody, InventoryBody, InventoryTotals, InventoryVolume,
    Progress, Reply, ReportBody,
};
use volumeviz::domain::dispatch::{Answer, Offer, PATH};
use volumeviz::domain::measurement::{Completeness, Figures, Method, VolumeResult};
use volumeviz::domain::selector::VolumeKind;
use volumeviz::store;

use crate::database::Database;
use crate::seam::Seam;

const BEAT_EVERY: Duration = Duration::from_millis(300);
const VOLUMES: [(&str, u64); 2] = [("data", 4096), ("logs", 8192)];

/// What an agent does with a job it has claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// Measures and completes it.
    Finish,
    /// Keeps its lease and nothing else, until it is to finish.
    Hold,
    /// Dies once; the process after it finishes.
    Die,
}

/// The agent of one node.
struct Agent {
    node: String,
    database: Arc<Database>,
    /// The seam of the controller that lives now.
    seam: Arc<Mutex<Arc<Seam>>>,
    conduct: Mutex<Conduct>,
    /// The process, and the ticket it works on.
    process: tokio::sync::Mutex<(Uuid, Option<Uuid>)>,
}

/// The agents of a life, all on one port.
pub(crate) struct Agents {
    pub port: u16,
    each: Vec<Arc<Agent>>,
    tls: RustlsConfig,
    serving: Vec<tokio::task::JoinHandle<()>>,
}

impl Agents {
    pub(crate) async fn serve(database: &Arc<Database>, seam: &Arc<Mutex<Arc<Seam>>>) -> Self {
        let (port, listeners) = listeners().await;
        let agents: Vec<_> = ["node-1", "node-2"]
            .map(|node| {
                Arc::new(Agent {
                    node: node.to_owned(),
                    database: Arc::clone(database),
                    seam: Arc::clone(seam),
                    conduct: Mutex::new(Conduct::Finish),
                    process: tokio::sync::Mutex::new((Uuid::new_v4(), None)),
                })
            })
            .into();
        let tls = RustlsConfig::from_config(Arc::new(certificates().agent.server().unwrap()));
        let serving = agents.iter().zip(listeners).map(|(agent, listener)| {
            let router = Router::new().route(PATH, post(offered)).with_state(Arc::clone(agent));
            let server = axum_server::from_tcp_rustls(listener.into_std().unwrap(), tls.clone()).unwrap();
            tokio::spawn(async move { server.serve(router.into_make_service()).await.unwrap() })
        });
        Self { port, serving: serving.collect(), each: agents, tls }
    }

    /// By which all of them serve.
    pub(crate) fn tls(&self) -> RustlsConfig {
        self.tls.clone()
    }

    pub(crate) fn conduct(&self, node: &str, conduct: Conduct) {
        let agent = self.each.iter().find(|agent| agent.node == node).unwrap();
        *agent.conduct.lock().unwrap() = conduct;
    }

    /// The nodes as the controller sees them.
    pub(crate) fn nodes(&self) -> BTreeMap<String, Node> {
        let node = |(number, agent): (usize, &Arc<Agent>)| {
            let pod = AgentPod { pod_uid: agent.pod_uid(), address: Some(address(number)), ready: true };
            let node = Node { uid: format!("{}-uid", agent.node), labels: BTreeMap::new(), agent: Some(pod) };
            (agent.node.clone(), node)
        };
        self.each.iter().enumerate().map(node).collect()
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        for serving in &self.serving {
            serving.abort();
        }
    }
}

/// Of all agents and controllers of this program.
fn certificates() -> &'static Certificates {
    static ISSUED: OnceLock<Certificates> = OnceLock::new();
    ISSUED.get_or_init(|| Certificates::of(&Data::new(), &Data::new()).renewed(Utc::now()).unwrap())
}

/// What a controller reaches them by.
pub(crate) fn client() -> reqwest::Client {
    certificates().controller.client(CONNECT_TIMEOUT, POST_TIMEOUT).unwrap()
}

fn address(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(number).unwrap()))
}

/// Each agent listens at its own address, all at the same port: so does the controller find them.
async fn listeners() -> (u16, [TcpListener; 2]) {
    loop {
        let first = TcpListener::bind((address(0), 0)).await.unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind(SocketAddr::new(address(1), port)).await {
            return (port, [first, second]);
        }
    }
}

async fn offered(State(agent): State<Arc<Agent>>, Json(offer): Json<Offer>) -> (StatusCode, Json<Answer>) {
    let seam = Arc::clone(&agent.seam.lock().unwrap());
    let lost = seam.before("POST offer".to_owned()).await;
    // A claim is not dropped halfway when the controller hangs up.
    let answer = tokio::spawn(agent.take(offer)).await.unwrap();
    seam.after(lost).await;
    answer
}

impl Agent {
    fn pod_uid(&self) -> String {
        format!("{}-pod", self.node)
    }

    async fn take(self: Arc<Self>, offer: Offer) -> (StatusCode, Json<Answer>) {
        let answer =
            |status, reason: &str| (status, Json(Answer { reason: reason.to_owned(), message: String::new() }));
        if offer.pod_uid != self.pod_uid() || offer.node_name != self.node {
            return answer(StatusCode::MISDIRECTED_REQUEST, "WrongPod");
        }
        let mut process = self.process.lock().await;
        match process.1 {
            Some(held) if held == offer.ticket => return answer(StatusCode::OK, "Claimed"),
            // It may have been fenced since its last beat.
            Some(held) if self.beat(process.0, held).await == Reply::Ok => {
                return answer(StatusCode::TOO_MANY_REQUESTS, "Busy");
            }
            _ => process.1 = None,
        }
        let body = ClaimBody {
            instance: process.0,
            agent_version: "test".to_owned(),
            node_name: self.node.clone(),
            node_uid: offer.node_uid,
        };
        let claim = store::agent::claim(&mut *self.database.agent().await, offer.ticket, &body).await.unwrap();
        if claim == ClaimReply::Fenced {
            return answer(StatusCode::CONFLICT, "Fenced");
        }
        let conduct = std::mem::replace(&mut *self.conduct.lock().unwrap(), Conduct::Finish);
        match conduct {
            Conduct::Die => *process = (Uuid::new_v4(), None),
            Conduct::Hold | Conduct::Finish => {
                *self.conduct.lock().unwrap() = conduct;
                process.1 = Some(offer.ticket);
                tokio::spawn(Arc::clone(&self).work(process.0, offer.ticket, conduct));
            }
        }
        answer(StatusCode::OK, "Claimed")
    }

    /// Works until the job is done, or its ticket was replaced.
    async fn work(self: Arc<Self>, instance: Uuid, ticket: Uuid, conduct: Conduct) {
        let mut conduct = conduct;
        let mut holds = true;
        while holds && conduct == Conduct::Hold {
            tokio::time::sleep(BEAT_EVERY).await;
            conduct = *self.conduct.lock().unwrap();
            holds = self.beat(instance, ticket).await == Reply::Ok;
        }
        if holds && conduct == Conduct::Finish {
            self.measure(instance, ticket).await;
        }
        let mut process = self.process.lock().await;
        if *process == (instance, Some(ticket)) {
            process.1 = None;
        }
    }

    async fn beat(&self, instance: Uuid, ticket: Uuid) -> Reply {
        let body = HeartbeatBody { instance, progress: progress(0) };
        store::agent::heartbeat(&mut *self.database.agent().await, ticket, &body).await.unwrap()
    }

    async fn measure(&self, instance: Uuid, ticket: Uuid) {
        let conn = &mut *self.database.agent().await;
        let inventory = InventoryBody {
            instance,
            engine: Engine { id: "engine".to_owned(), version: "28".to_owned(), data_root: "/".to_owned() },
            volumes: VOLUMES.map(|(name, _)| volume(name)).into(),
            containers: Vec::new(),
            totals: Some(InventoryTotals { volumes: 2, containers: 0 }),
        };
        let mut replies = vec![store::agent::inventory(conn, ticket, &inventory).await.unwrap().reply];
        // No two volumes are of one size: lists have one order.
        let number = u64::from(*self.node.as_bytes().last().unwrap());
        for (done, (name, bytes)) in (1..).zip(VOLUMES) {
            let bytes = bytes * number;
            let body = ReportBody { instance, results: vec![result(name, bytes)], progress: progress(done) };
            replies.push(store::agent::report(conn, ticket, &body).await.unwrap());
        }
        let body = CompleteBody { instance, results: 2, progress: progress(2) };
        replies.push(store::agent::complete(conn, ticket, &body).await.unwrap());
        assert!(replies.iter().all(|reply| *reply == Reply::Ok), "{}: {replies:?}", self.node);
    }
}

fn progress(volumes: i64) -> Progress {
    Progress { volumes_total: 2, volumes_done: volumes, entries: volumes, bytes: volumes * 4096 }
}

fn volume(name: &str) -> InventoryVolume {
    InventoryVolume {
        name: name.to_owned(),
        driver: "local".to_owned(),
        mountpoint: format!("/var/lib/docker/volumes/{name}/_data"),
        scope: "local".to_owned(),
        labels: BTreeMap::default(),
        options: BTreeMap::default(),
        kind: VolumeKind::Named,
        selected: true,
        created_at: None,
        inode: None,
        birth_time_ns: None,
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
        filesystem: None,
        errors: Vec::new(),
        skipped_mounts: Vec::new(),
        top_files: None,
        top_directories: None,
        duration_ms: 5,
        age_ms: 0,
    }
}
