//! Notifications on their way to real receivers: webhooks over HTTP and TLS, Alertmanager, Events of a real kube-apiserver, with the outbox in
//! a real PostgreSQL.
//!
//! Run by `tests/with-network tests/with-postgres tests/with-apiserver`: what may be reached depends on addresses, and these are there only in
//! a network of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_stack_arrays,
    reason = "a test fails by panicking"
)]

mod alertmanager;
#[allow(dead_code, reason = "the store's tests use all of it")]
#[path = "../store/database.rs"]
mod database;
mod delivery;
mod logs;
mod memory;
#[path = "../kit/port.rs"]
mod port;
mod refusals;
mod secrets;
mod templates;
mod tls;
#[path = "../kit/tool.rs"]
mod tool;
mod webhook;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Parser;
use database::Database;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;
use volumeviz::config::database::Role;
use volumeviz::controller::health::{DatabaseHealth, DatabaseProblem};
use volumeviz::controller::notify::filler::Filler;
use volumeviz::controller::notify::{Identity, Metrics, Notifier, Settings, secret};
use volumeviz::domain::alert::notification::{Channel, Notification, Occasion, Receiver, Subject};
use volumeviz::domain::alert::{Scope, Severity};
use volumeviz::store::Store;
use volumeviz::store::notifications::{self, Queued};

/// An operator with its namespace and its database.
struct Operator {
    database: Database,
    client: Client,
    namespace: String,
    store: Store,
    notifier: Notifier,
    health: watch::Sender<DatabaseHealth>,
    registry: Registry,
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    notify: Settings,
}

/// How a notification in the outbox stands.
#[derive(Debug, sqlx::FromRow)]
struct Row {
    attempts: i32,
    delivered: bool,
    given_up: bool,
    last_error: Option<String>,
}

impl Operator {
    /// With these options of the command line.
    async fn new(options: &[&str]) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::try_default().await.expect("KUBECONFIG: run by tests/with-apiserver");
        let namespace = format!("operator-{}", Uuid::new_v4());
        let metadata = ObjectMeta { name: Some(namespace.clone()), ..ObjectMeta::default() };
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await.unwrap();
        let database = Database::new().await;
        let args = database::args(database::CONTROLLER, &database.name, &["--db-sslmode=disable"]);
        let (health, _) = watch::channel(DatabaseHealth::reached_for(Duration::from_secs(60), Timestamp::now()));
        let settings =
            Cli::try_parse_from(["volumeviz"].iter().chain(options)).unwrap_or_else(|error| panic!("{error}")).notify;
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        let filler = Filler::new(env!("CARGO_BIN_EXE_volumeviz"));
        let identity = Identity { namespace: namespace.clone(), pod_name: "pod".to_owned() };
        Self {
            store: Store::connect_lazy(&args, Role::Controller).unwrap(),
            notifier: Notifier::new(client.clone(), identity, settings, filler, metrics),
            database,
            client,
            namespace,
            health,
            registry,
        }
    }

    /// Leads, until the value is aborted or dropped.
    fn lead(&self) -> Leading {
        let (notifier, store, health) = (self.notifier.clone(), self.store.clone(), self.health.subscribe());
        Leading(tokio::spawn(async move { match notifier.run(store, health).await {} }))
    }

    /// A Secret that receivers may name.
    async fn secret(&self, name: &str, entries: &[(&str, &str)]) {
        self.secret_labelled(name, entries, Some(secret::LABEL)).await;
    }

    async fn secret_labelled(&self, name: &str, entries: &[(&str, &str)], label: Option<(&str, &str)>) {
        let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: label.map(|label| BTreeMap::from([own(label)])),
                ..ObjectMeta::default()
            },
            string_data: Some(entries.iter().copied().map(own).collect()),
            ..Secret::default()
        };
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        secrets.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&secret)).await.unwrap();
    }

    /// Puts one into the outbox.
    async fn put(&self, receiver: &Receiver, notification: &Notification) {
        let mut conn = self.database.controller().await;
        notifications::put(&mut conn, &[Queued { receiver, notification }]).await.unwrap();
        self.notifier.wake();
    }

    async fn row(&self, notification: &Notification) -> Row {
        sqlx::query_as(
            "SELECT attempts, delivered_at IS NOT NULL AS delivered, given_up_at IS NOT NULL AS given_up, last_error
             FROM alert_notifications WHERE notification_id = $1",
        )
        .bind(notification.id)
        .fetch_one(&mut **self.database.superuser().await)
        .await
        .unwrap()
    }

    /// Waits until it was told.
    async fn delivered(&self, notification: &Notification) -> Row {
        self.until(notification, |row| row.delivered).await
    }

    /// Waits until it was tried in vain; why.
    async fn failed(&self, notification: &Notification) -> String {
        let row = self.until(notification, |row| row.attempts > 0).await;
        assert!(!row.delivered && !row.given_up, "{row:?}");
        row.last_error.unwrap()
    }

    async fn until(&self, notification: &Notification, holds: fn(&Row) -> bool) -> Row {
        wait("the notification's row to change", async || Some(self.row(notification).await).filter(holds)).await
    }

    /// Lets every back-off pass, as if time had.
    async fn pass_backoff(&self) {
        let pass = "UPDATE alert_notifications SET next_attempt_at = clock_timestamp()";
        sqlx::query(pass).execute(&mut **self.database.superuser().await).await.unwrap();
        self.notifier.wake();
    }

    /// Makes all that waits older than it is tried.
    async fn pass_a_day(&self) {
        let age = "UPDATE alert_notifications SET created_at = created_at - interval '25 hours'";
        sqlx::query(age).execute(&mut **self.database.superuser().await).await.unwrap();
    }

    /// The database is away, or back.
    fn database_is_away(&self, away: bool) {
        let problem = DatabaseProblem { reason: "Unreachable", message: "away".to_owned() };
        let well = DatabaseHealth::reached_for(Duration::ZERO, Timestamp::now());
        self.health.send_replace(if away { well.with_problem(problem, Timestamp::now()) } else { well });
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// A leader; it ends with this value.
struct Leading(JoinHandle<()>);

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A webhook with this Secret.
fn webhook(secret: &str) -> Receiver {
    Receiver {
        name: secret.to_owned(),
        channel: Channel::Webhook,
        secret_name: Some(secret.to_owned()),
        repeat_every_seconds: None,
        send_resolved: true,
    }
}

/// That a volume of an alert is too big, or was.
fn told(alert: &str, event: Occasion) -> Notification {
    let time = chrono::Utc::now();
    Notification {
        version: "1".to_owned(),
        id: Uuid::new_v4(),
        event,
        alert: alert.to_owned(),
        alert_uid: format!("{alert}-uid"),
        severity: Severity::Critical,
        rule: "sizeAbove".to_owned(),
        scope: Scope::Volume,
        unit: "bytes".to_owned(),
        text: format!("[Critical] {alert}: node-1/shop-db: too big"),
        time,
        subjects: vec![Subject {
            node: Some("node-1".to_owned()),
            volume: Some("shop-db".to_owned()),
            value: Some(2.0),
            threshold: 1.0,
            message: "too big".to_owned(),
            since: time - chrono::TimeDelta::minutes(5),
            resolved_at: (event == Occasion::Resolved).then_some(time),
        }],
        subjects_omitted: 0,
    }
}

/// Waits for a condition with a deadline.
async fn wait<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
