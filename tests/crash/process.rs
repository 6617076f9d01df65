//! A controller in a runtime of its own: all it remembers goes with it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use volumeviz::config::database::Role;
use volumeviz::controller::certificates::{Channel, Keeper, Names, none_yet};
use volumeviz::controller::context::{Context, Feeds, Outlets};
use volumeviz::controller::dispatch::Dispatcher;
use volumeviz::controller::fleet::Fleet;
use volumeviz::controller::health::DatabaseHealth;
use volumeviz::controller::metrics::Metrics;
use volumeviz::controller::notify::filler::Filler;
use volumeviz::controller::notify::{Identity, Notifier, Settings};
use volumeviz::controller::report::Reporter;
use volumeviz::controller::{health, reconcile, sweep};
use volumeviz::store::Store;

use crate::seam::Seam;
use crate::{agents, database, kubernetes, postgres};

/// Long enough in contact with the database to judge leases and deadlines.
const IN_CONTACT: Duration = Duration::from_secs(60);

/// What a process is started with.
#[derive(Clone)]
pub(crate) struct Setup {
    pub scan: String,
    pub database: String,
    pub agent_port: u16,
    pub fleet: watch::Receiver<Option<Arc<Fleet>>>,
    pub metrics: Metrics,
    pub certificates: Names,
    /// Whether it looks for runs of deleted scans.
    pub sweeps: bool,
}

pub(crate) struct Process {
    kill: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Process {
    pub(crate) fn start(setup: Setup, seam: Arc<Seam>) -> Self {
        let kill = CancellationToken::new();
        let killed = kill.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = killed.cancelled() => {}
                    () = lead(setup, seam) => panic!("the controller ended"),
                }
            });
        });
        Self { kill, thread: Some(thread) }
    }

    /// Kills it; returns once nothing of it is left.
    pub(crate) async fn kill(mut self) {
        self.kill.cancel();
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(|| thread.join()).await.unwrap().unwrap();
    }
}

/// When the test fails first.
impl Drop for Process {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

/// What the leading controller does, but for the election, whose one write is a compare-and-set of the Lease.
async fn lead(setup: Setup, seam: Arc<Seam>) {
    let (sweeps, names) = (setup.sweeps, setup.certificates.clone());
    let (sender, channel) = watch::channel(none_yet());
    let (context, health) = reaching(channel, setup, seam).await;
    let keeper = Keeper::new(context.client.clone(), kubernetes::NAMESPACE, names, context.metrics.clone(), sender);
    let sweeping = async {
        if sweeps {
            match sweep::run(Arc::clone(&context)).await {}
        }
        std::future::pending::<()>().await;
    };
    let (store, metrics) = (context.store.clone(), context.metrics.clone());
    let notifying = context.notifier.run(store.clone(), context.health_changes());
    tokio::select! {
        ended = reconcile(Arc::clone(&context), CancellationToken::new()) => ended.unwrap(),
        never = health::watch(store, "cluster".to_owned(), metrics, health) => match never {},
        () = sweeping => {}
        never = keeper.run() => match never {},
        never = notifying => match never {},
    }
}

/// What the controller's passes share, when certificates were issued before; every side effect passes the seam.
pub(crate) async fn context(setup: Setup, seam: Arc<Seam>) -> (Arc<Context>, watch::Sender<DatabaseHealth>) {
    reaching(watch::channel(Ok(agents::client())).1, setup, seam).await
}

/// The same when agents are reached by this channel.
async fn reaching(
    channel: watch::Receiver<Channel>,
    setup: Setup,
    seam: Arc<Seam>,
) -> (Arc<Context>, watch::Sender<DatabaseHealth>) {
    let Setup { scan, database, agent_port, fleet, metrics, certificates: _, sweeps: _ } = setup;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut args = database::args(database::CONTROLLER, &database, &["--db-sslmode=disable", "--db-max-open-conns=5"]);
    args.port = listener.local_addr().unwrap().port();
    tokio::spawn(postgres::relay(listener, database::port(), Arc::clone(&seam)));
    let client = kubernetes::seamed(seam, scan).await;
    let store = Store::connect_lazy(&args, Role::Controller).unwrap();
    let (sender, health) = watch::channel(DatabaseHealth::reached_for(IN_CONTACT, Timestamp::now()));
    let dispatcher = Dispatcher::new(channel, agent_port, 50, metrics.clone());
    let reporter = Reporter::new(client.clone(), "controller");
    let feeds = Feeds { health, fleet };
    let identity = Identity { namespace: kubernetes::NAMESPACE.to_owned(), pod_name: "pod".to_owned() };
    let filler = Filler::new(env!("CARGO_BIN_EXE_volumeviz"));
    let notifier = Notifier::new(client.clone(), identity, Settings::default(), filler, metrics.notifications.clone());
    let outlets = Outlets { dispatcher, reporter, notifier };
    (Arc::new(Context::new(client, store, outlets, metrics, feeds)), sender)
}
