//! One life of a VolumeScan, with a controller that may die once in it.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::LocalBoxFuture;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client, ResourceExt};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;
use volumeviz::controller::fleet::Fleet;
use volumeviz::controller::metrics::Metrics;
use volumeviz::crd::{VolumeAlert, VolumeScan};

use crate::agents::Agents;
use crate::database::{Conn, Database};
use crate::process::{Process, Setup};
use crate::seam::{Seam, Target};
use crate::secrets::Secrets;
use crate::told::{self, Told};
use crate::{end, metrics};

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// What happens in a life.
pub(crate) struct Story {
    /// The scan's spec and first status.
    pub scan: fn() -> (Value, Value),
    /// The spec of an alert beside it.
    pub alert: Option<fn() -> Value>,
    pub sweeps: bool,
    /// What users, nodes and time do; it goes on from what it finds, not from what the controller says.
    pub script: for<'a> fn(&'a World) -> LocalBoxFuture<'a, ()>,
    /// The Events of the scan and then those of the alert when nobody dies, each with a part of its note.
    pub told: &'static [(&'static str, &'static str)],
    /// What of `/metrics` is so in the end when nobody dies.
    pub figures: &'static [(&'static str, f64)],
}

/// What is around the controller.
pub(crate) struct World {
    pub name: String,
    pub agents: Agents,
    pub scans: Api<VolumeScan>,
    pub alerts: Api<VolumeAlert>,
    /// The seam of the controller that lives now.
    seam: Arc<Mutex<Arc<Seam>>>,
    client: Client,
    database: Arc<Database>,
    superuser: tokio::sync::Mutex<Box<Conn>>,
    fleet: watch::Sender<Option<Arc<Fleet>>>,
    secrets: Secrets,
    /// Of the controller that lives now.
    registry: Mutex<Registry>,
}

/// How a life went.
pub(crate) struct Life {
    /// Side effects of the first process, in their order.
    pub effects: Vec<String>,
    /// Whether the first process died.
    pub died: bool,
    /// What is left, without ids and times.
    pub end: Value,
    /// The Events that were written.
    pub told: Vec<Told>,
    /// `/metrics` of the last process.
    pub figures: Vec<(String, f64)>,
}

/// Lives through a story; the first controller dies at the target.
pub(crate) async fn live(client: &Client, story: &Story, target: Option<Target>) -> Life {
    let first = Arc::new(Seam::new(target));
    let (world, uid) = World::of(client, story, &first).await;
    let mut process = Process::start(world.setup(story), Arc::clone(&first));
    let mut lived = pin!(async {
        (story.script)(&world).await;
        let last = Arc::clone(&world.seam.lock().unwrap());
        last.rest().await;
    });
    // The last of all side effects may kill it after its story is over.
    let is_over = tokio::select! {
        () = first.death() => false,
        () = &mut lived => true,
    };
    if first.is_dead() {
        process.kill().await;
        let second = Arc::new(Seam::new(None));
        *world.seam.lock().unwrap() = Arc::clone(&second);
        process = Process::start(world.setup(story), Arc::clone(&second));
        if !is_over {
            lived.await;
        }
        second.rest().await;
    }
    process.kill().await;
    let end = world.end().await;
    let mut told = told::about(client, &format!("regarding.uid={uid}")).await;
    told.extend(told::about(client, &format!("regarding.kind=VolumeAlert,regarding.name={}", world.name)).await);
    let figures = world.figures();
    world.secrets.delete().await;
    drop(world.scans.delete(&world.name, &DeleteParams::default()).await);
    drop(world.alerts.delete(&world.name, &DeleteParams::default()).await);
    Life { effects: first.passed(), died: first.is_dead(), end, told, figures }
}

impl World {
    /// The world of a new scan, and the scan's uid.
    pub(crate) async fn of(client: &Client, story: &Story, seam: &Arc<Seam>) -> (Self, String) {
        let database = Arc::new(Database::new().await);
        let seam = Arc::new(Mutex::new(Arc::clone(seam)));
        let agents = Agents::serve(&database, &seam).await;
        let fleet = watch::channel(Some(Arc::new(Fleet { nodes: agents.nodes(), forbidden: None }))).0;
        let name = format!("life-{}", Uuid::new_v4().simple());
        let world = Self {
            secrets: Secrets::empty(client, &name, agents.tls()).await,
            registry: Mutex::default(),
            name,
            agents,
            seam,
            client: client.clone(),
            scans: Api::all(client.clone()),
            alerts: Api::all(client.clone()),
            superuser: tokio::sync::Mutex::new(database.superuser().await),
            database,
            fleet,
        };
        let uid = world.create(story).await;
        (world, uid)
    }

    pub(crate) fn setup(&self, story: &Story) -> Setup {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        *self.registry.lock().unwrap() = registry;
        Setup {
            metrics,
            certificates: self.secrets.names.clone(),
            scan: self.name.clone(),
            database: self.database.name.clone(),
            agent_port: self.agents.port,
            fleet: self.fleet.subscribe(),
            sweeps: story.sweeps,
        }
    }

    async fn create(&self, story: &Story) -> String {
        let (spec, status) = (story.scan)();
        let manifest = json!({"apiVersion": "volumeviz.io/v1alpha1", "kind": "VolumeScan", "metadata": {"name": self.name}, "spec": spec});
        let scan: VolumeScan = serde_json::from_value(manifest).unwrap();
        let made = self.scans.create(&PostParams::default(), &scan).await.unwrap();
        if status != Value::Null {
            let patch = Patch::Merge(json!({"status": status}));
            self.scans.patch_status(&self.name, &PatchParams::default(), &patch).await.unwrap();
        }
        if let Some(spec) = story.alert {
            let manifest = json!({"apiVersion": "volumeviz.io/v1alpha1", "kind": "VolumeAlert", "metadata": {"name": self.name}, "spec": spec()});
            self.alerts.create(&PostParams::default(), &serde_json::from_value(manifest).unwrap()).await.unwrap();
        }
        made.uid().unwrap()
    }

    /// A user's edit of the alert.
    pub(crate) async fn edit_alert(&self, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.alerts.patch(&self.name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// A user's edit.
    pub(crate) async fn edit(&self, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.scans.patch(&self.name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub(crate) async fn delete(&self) {
        self.scans.delete(&self.name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) fn edit_fleet(&self, edit: impl FnOnce(&mut Fleet)) {
        self.fleet.send_modify(|fleet| edit(Arc::make_mut(fleet.as_mut().unwrap())));
    }

    /// Writes into the status, as nobody should.
    pub(crate) async fn overwrite(&self, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.objects().patch_status(&self.name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// The scan as it is now, whether it fits its type or not.
    pub(crate) async fn scan(&self) -> Option<Value> {
        self.objects().get_opt(&self.name).await.unwrap().map(|scan| json!(scan))
    }

    fn objects(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &ApiResource::erase::<VolumeScan>(&()))
    }

    /// One value from the database.
    pub(crate) async fn value(&self, sql: &'static str) -> Value {
        sqlx::query_scalar(sql).fetch_one(&mut ***self.superuser.lock().await).await.unwrap()
    }

    pub(crate) async fn execute(&self, sql: &'static str) {
        sqlx::query(sql).execute(&mut ***self.superuser.lock().await).await.unwrap();
    }

    /// Waits until the database answers `true`.
    pub(crate) async fn until(&self, sql: &'static str) {
        self.wait(sql, async || self.value(sql).await == json!(true)).await;
    }

    /// Waits until the status says so.
    pub(crate) async fn told(&self, what: &str, holds: fn(&Value) -> bool) {
        self.wait(what, async || {
            let scan = self.scan().await.unwrap_or_default();
            let current = scan["status"]["observedGeneration"] == scan["metadata"]["generation"];
            current && holds(&scan["status"])
        })
        .await;
    }

    pub(crate) async fn wait(&self, what: &str, probe: impl AsyncFn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !probe().await {
            if Instant::now() > until {
                let (rows, scan) = (self.value(end::ROWS).await, self.scan().await);
                panic!("waited {PATIENCE:?} in vain for {what}: {rows:#}\n{:#}", scan.unwrap_or_default());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What `/metrics` of the controller that lives now tells.
    pub(crate) fn figures(&self) -> Vec<(String, f64)> {
        metrics::read(&self.registry.lock().unwrap())
    }

    /// One of these; absent when it is not told.
    pub(crate) fn figure(&self, series: &str) -> Option<f64> {
        self.figures().into_iter().find(|(name, _)| name == series).map(|(_, value)| value)
    }

    async fn end(&self) -> Value {
        let scan = self.scan().await.map(|scan| json!({"spec": scan["spec"], "status": scan["status"]}));
        let settled = self.secrets.are_settled().await;
        end::normalised(json!({"rows": self.value(end::ROWS).await, "scan": scan, "certificatesSettled": settled}))
    }
}
