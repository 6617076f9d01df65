//! The controller: elects a leader, watches the cluster and the database, reconciles VolumeScans and VolumeAlerts.
//!
//! It never touches Docker. Only the leader plans, dispatches and writes status; losing the lease ends the process, it never pauses.

pub mod alert;
pub mod certificates;
pub mod contents;
pub mod context;
pub mod dispatch;
pub mod fleet;
pub mod health;
pub mod leader;
mod live;
pub mod metrics;
pub mod notify;
mod pass;
mod patch;
pub mod report;
pub mod scan;
pub mod sweep;
mod unreadable;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config as ControllerConfig};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, ResourceExt};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::certificates::Keeper;
use self::contents::VolumeSeries;
use self::context::{Context, Feeds, Outlets};
use self::dispatch::Dispatcher;
use self::fleet::{AgentPods, Fleet};
use self::health::DatabaseHealth;
use self::leader::Elector;
use self::metrics::Metrics;
use self::notify::filler::Filler;
use self::notify::{Identity, Notifier};
use self::report::Reporter;
use crate::api::{self, Access};
use crate::config::database::{DatabaseArgs, Role};
use crate::crd::{VolumeAlert, VolumeScan};
use crate::http::{self, Check};
use crate::store::{self, Store};

const SCANS: &str = "volumescans";
const ALERTS: &str = "volumealerts";
/// Passes over scans at the same time; each needs a database connection for a moment.
const CONCURRENT_PASSES: u16 = 8;
/// The same over alerts, all of which wait for a run's end: each may keep the database busy with every volume, and more at a time would only make
/// each too slow (docs/benchmarks.md).
const CONCURRENT_JUDGEMENTS: u16 = 2;
const CLUSTER_UID_TIMEOUT: Duration = Duration::from_secs(5);
const CLUSTER_UID_RETRY: Duration = Duration::from_secs(2);

/// How the controller runs.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Address of /livez, /readyz, /metrics and /api/v1.
    #[arg(long, env = "VOLUMEVIZ_LISTEN", default_value = "[::]:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Name of this pod.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: String,
    /// Namespace of this installation.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: String,
    /// Name of the Lease that the replicas compete for.
    #[arg(long, env = "VOLUMEVIZ_LEASE_NAME", default_value = "volumeviz-controller", value_name = "NAME")]
    pub lease_name: String,
    /// Name of the agents' DaemonSet.
    #[arg(long, env = "VOLUMEVIZ_AGENT_DAEMONSET", default_value = "volumeviz-agent", value_name = "NAME")]
    pub agent_daemonset: String,
    /// Label selector of the agents' pods.
    #[arg(
        long,
        env = "VOLUMEVIZ_AGENT_SELECTOR",
        default_value = "app.kubernetes.io/component=agent",
        value_name = "SELECTOR"
    )]
    pub agent_selector: String,
    /// Port on which agents take tickets.
    #[arg(long, env = "VOLUMEVIZ_AGENT_PORT", default_value_t = 8443, value_name = "PORT")]
    pub agent_port: u16,
    /// Jobs that agents may work on at a time, over all VolumeScans: each needs up to two database connections.
    #[arg(long, env = "VOLUMEVIZ_MAX_RUNNING_JOBS", default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub max_running_jobs: u16,
    /// Where the certificates are, by which controller and agents know each other.
    #[command(flatten)]
    pub certificates: certificates::Names,
    /// Which volumes /metrics tells of one by one.
    #[command(flatten)]
    pub volume_series: VolumeSeries,
    /// Where notifications may go.
    #[command(flatten)]
    pub notify: notify::Settings,
    /// The database, in the name of the controller's role.
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// The controller ended for a reason of its own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No way to the Kubernetes API is configured.
    #[error("failed to set up the Kubernetes client: {0}")]
    Client(#[source] Box<kube::Error>),
    /// The database's settings cannot be used.
    #[error(transparent)]
    Database(#[from] store::Error),
    /// The endpoints could not be served.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// Another process leads.
    #[error(transparent)]
    Lost(#[from] leader::Lost),
    /// A watch ended.
    #[error(transparent)]
    Watch(#[from] fleet::WatchEnded),
    /// The reconciler ended although nobody stopped it.
    #[error("the reconcilers ended")]
    ReconcilerEnded,
}

/// Runs until `stop`, or until something it cannot do without ends.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), Error> {
    let Args {
        listen,
        pod_name,
        namespace,
        lease_name,
        agent_daemonset,
        agent_selector,
        agent_port,
        max_running_jobs,
        certificates,
        volume_series,
        notify,
        database,
    } = args;
    let client = Client::try_default().await.map_err(|error| Error::Client(Box::new(error)))?;
    let store = Store::connect_lazy(&database, Role::Controller)?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    store.register_metrics(&mut registry);
    let (health_sender, health) = watch::channel(DatabaseHealth::unknown(Timestamp::now()));
    let (fleet_sender, fleet) = watch::channel(None);
    let leading = Arc::new(AtomicBool::new(false));

    let listener = http::listen(listen).await?;
    let checks = checks(health.clone(), fleet.clone(), Arc::clone(&leading));
    let api = api::Api::new(store.clone(), Access::new(client.clone()), last_problem(health.clone()));
    let serving = http::serve(listener, http::router(checks, Arc::new(registry)).merge(api.router()));

    let elector = Elector::new(client.clone(), &namespace, &lease_name, format!("{pod_name}_{}", uuid::Uuid::new_v4()));
    let identity = Identity { namespace: namespace.clone(), pod_name: pod_name.clone() };
    let filler = Filler::new(Filler::THIS_PROGRAM);
    let notifier = Notifier::new(client.clone(), identity, notify, filler, metrics.notifications.clone());
    let (channel_sender, channel) = watch::channel(certificates::none_yet());
    let keeper = Keeper::new(client.clone(), &namespace, certificates, metrics.clone(), channel_sender);
    let agents = AgentPods { namespace, selector: agent_selector, daemonset: agent_daemonset };
    let reporter = Reporter::new(client.clone(), &pod_name);
    let dispatcher = Dispatcher::new(channel, agent_port, max_running_jobs.into(), metrics.clone());
    let (outlets, feeds) = (Outlets { dispatcher, reporter, notifier }, Feeds { health, fleet });
    let context = Context::new(client.clone(), store.clone(), outlets, metrics.clone(), feeds);
    let watching = async {
        let cluster_uid = cluster_uid(&client).await;
        let probing = health::watch(store, cluster_uid, metrics.clone(), health_sender);
        tokio::select! {
            never = probing => match never {},
            ended = fleet::watch(client.clone(), agents, fleet_sender) => ended.map_err(Error::from),
        }
    };
    let leading = lead(elector, Arc::new(context), (volume_series, keeper), leading, stop.clone());
    // Whatever ends first ends the process: no part is missed by a pod that still looks well.
    tokio::select! {
        served = serving => served.map_err(Error::from),
        watched = watching => watched,
        led = leading => led,
    }
}

/// Waits for the lease, reconciles while it is kept, and gives it up on `stop` once the last pass is over.
async fn lead(
    mut elector: Elector,
    context: Arc<Context>,
    (volume_series, keeper): (VolumeSeries, Keeper),
    leading: Arc<AtomicBool>,
    stop: CancellationToken,
) -> Result<(), Error> {
    tracing::info!("waiting for the lease");
    if !elector.acquire(&stop).await {
        return Ok(());
    }
    tracing::info!("leading");
    leading.store(true, Ordering::Relaxed);
    context.metrics.set_leading(true);
    let passes_over = CancellationToken::new();
    let reconciling = async {
        let ended = reconcile(Arc::clone(&context), stop.clone()).await;
        passes_over.cancel();
        // An end that nobody asked for must not look like an orderly one.
        Ok(if stop.is_cancelled() { ended } else { Err(Error::ReconcilerEnded) })
    };
    tokio::select! {
        // A lost lease ends it at once, whatever pass is under way: another process may lead by now.
        led = async { tokio::try_join!(reconciling, elector.keep(&passes_over)) } => led.map_err(Error::from).and_then(|(ended, ())| ended),
        never = keeper.run() => match never {},
        never = sweep::run(Arc::clone(&context)) => match never {},
        never = contents::watch(Arc::clone(&context), volume_series) => match never {},
        never = context.notifier.run(context.store.clone(), context.health_changes()) => match never {},
    }
}

/// Reconciles every VolumeScan and every VolumeAlert, once the fleet is known and the database was looked at, until `stop`; the caller leads.
pub async fn reconcile(context: Arc<Context>, stop: CancellationToken) -> Result<(), Error> {
    let (mut fleet, mut health) = (context.fleet_changes(), context.health_changes());
    let known = async {
        fleet.wait_for(Option::is_some).await.is_ok() && health.wait_for(|health| health.is_known).await.is_ok()
    };
    tokio::select! {
        known = known => if !known { return Err(Error::ReconcilerEnded) },
        () = stop.cancelled() => return Ok(()),
    }
    let config = |passes| ControllerConfig::default().concurrency(passes);
    let scans: Api<DeserializeGuard<VolumeScan>> = Api::all(context.client.clone());
    let scans = Controller::new(scans, watcher::Config::default()).with_config(config(CONCURRENT_PASSES));
    context.metrics.contents().follow(scans.store());
    let shared = Arc::new(alert::Shared { context: Arc::clone(&context), scans: scans.store() });
    let scanning = scans
        .reconcile_all_on(health::changes(context.health_changes()))
        .reconcile_all_on(changes(context.fleet_changes()))
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(scan_pass, |scan, _, context| context.reporter.failed(SCANS, &scan.name_any()), Arc::clone(&context))
        .for_each(async |outcome| context.reporter.outcome(SCANS, outcome));
    tokio::join!(scanning, reconcile_alerts(shared, config(CONCURRENT_JUDGEMENTS), stop));
    Ok(())
}

/// Judges only once every scan is known: what no scan looks at any more is over.
async fn reconcile_alerts(shared: Arc<alert::Shared>, config: ControllerConfig, stop: CancellationToken) {
    tokio::select! {
        // An error is said of a watch that has ended, which ends the process.
        _ = shared.scans.wait_until_ready() => {}
        () = stop.cancelled() => return,
    }
    let context = Arc::clone(&shared.context);
    let alerts: Api<DeserializeGuard<VolumeAlert>> = Api::all(context.client.clone());
    let alerts = Controller::new(alerts, watcher::Config::default()).with_config(config);
    context.metrics.contents().follow_alerts(alerts.store());
    alerts
        .reconcile_all_on(health::changes(context.health_changes()))
        .reconcile_all_on(changes(context.fleet_changes()))
        .reconcile_all_on(changes(context.ends_of_runs()))
        .reconcile_on(context.notifier.changes().map(|name| ObjectRef::new(&name)))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(alert_pass, |alert, _, shared| shared.context.reporter.failed(ALERTS, &alert.name_any()), shared)
        .for_each(async |outcome| context.reporter.outcome(ALERTS, outcome))
        .await;
}

/// An item for each new value.
fn changes<T: Send + Sync>(receiver: watch::Receiver<T>) -> impl Stream<Item = ()> + Send {
    futures::stream::unfold(receiver, async |mut receiver| {
        receiver.changed().await.ok()?;
        Some(((), receiver))
    })
}

async fn scan_pass(scan: Arc<DeserializeGuard<VolumeScan>>, context: Arc<Context>) -> Result<Action, scan::Error> {
    pass::timed(SCANS, &context.metrics, scan::reconcile_any(scan, Arc::clone(&context))).await
}

async fn alert_pass(
    alert: Arc<DeserializeGuard<VolumeAlert>>,
    shared: Arc<alert::Shared>,
) -> Result<Action, alert::Error> {
    pass::timed(ALERTS, &shared.context.metrics, alert::reconcile_any(alert, Arc::clone(&shared))).await
}

/// The uid of kube-system names the cluster; without it nothing can be written to a database, so there is nothing else to do but ask again.
async fn cluster_uid(client: &Client) -> String {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    loop {
        match tokio::time::timeout(CLUSTER_UID_TIMEOUT, namespaces.get_metadata("kube-system")).await {
            Ok(Ok(system)) if system.metadata.uid.is_some() => return system.metadata.uid.unwrap_or_default(),
            Ok(Ok(_)) => tracing::warn!("namespace kube-system has no uid, asking again"),
            Err(_) => {
                tracing::warn!("no answer about namespace kube-system within {CLUSTER_UID_TIMEOUT:?}, asking again");
            }
            Ok(Err(error)) => {
                tracing::warn!("unable to read namespace kube-system, whose uid names the cluster: {error}");
            }
        }
        tokio::time::sleep(CLUSTER_UID_RETRY).await;
    }
}

fn last_problem(health: watch::Receiver<DatabaseHealth>) -> api::DatabaseProblem {
    Arc::new(move || health.borrow().problem.as_ref().map(|problem| (problem.reason, problem.message.clone())))
}

fn checks(
    health: watch::Receiver<DatabaseHealth>,
    fleet: watch::Receiver<Option<Arc<Fleet>>>,
    leading: Arc<AtomicBool>,
) -> http::Checks {
    Arc::new(move || {
        let database =
            health.borrow().problem.as_ref().map(|problem| format!("{}: {}", problem.reason, problem.message));
        let fleet = fleet.borrow().is_none().then(|| "nodes and agent pods are not listed yet".to_owned());
        let standby = (!leading.load(Ordering::Relaxed)).then(|| "another replica leads".to_owned());
        vec![
            Check { name: "database", problem: database, required: false },
            Check { name: "fleet", problem: fleet, required: false },
            Check { name: "leader", problem: standby, required: false },
        ]
    })
}
