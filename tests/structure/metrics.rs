//! `docs/metrics.md` describes what `/metrics` tells, all of it and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use volumeviz::config::database::{DatabaseArgs, Role};
use volumeviz::controller::certificates::plan::Expiry;
use volumeviz::domain::alert::notification::Channel;
use volumeviz::domain::run::{RunKey, RunResult};
use volumeviz::store::Store;
use volumeviz::store::runs::Queue;
use volumeviz::{agent, controller};

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    database: DatabaseArgs,
}

/// All names of the controller's `/metrics`, as Prometheus has them.
pub(crate) fn controllers() -> BTreeSet<String> {
    let mut registry = Registry::default();
    let metrics = controller::metrics::Metrics::register(&mut registry);
    // What has labels is told once it has happened.
    metrics.reconciled("volumescans", Instant::now(), "Ok");
    metrics.failed("Timeout");
    metrics.run_started(&RunKey::Once);
    metrics.run_ended(RunResult::Succeeded);
    metrics.queued(&Queue { nodes: volumeviz::domain::run::NodeCounts::default(), oldest_pending_seconds: 0.0 });
    metrics.dispatched(Duration::ZERO);
    let now = chrono::Utc::now();
    metrics.certificates_expire(&Expiry { authority: now, agent: now, controller: now });
    metrics.notifications.tried(Channel::Event, true, Duration::ZERO);
    with_the_databases(registry, Role::Controller)
}

/// The same of an agent's.
pub(crate) fn agents() -> BTreeSet<String> {
    let mut registry = Registry::default();
    agent::metrics::Metrics::register(&mut registry).job_ended("Completed");
    with_the_databases(registry, Role::Agent)
}

/// The same of maintenance's.
pub(crate) fn maintenances() -> BTreeSet<String> {
    let mut registry = Registry::default();
    volumeviz::maintain::Metrics::register(&mut registry);
    names(&registry)
}

fn with_the_databases(mut registry: Registry, role: Role) -> BTreeSet<String> {
    let database = Options::parse_from(["volumeviz"]).database;
    let store = Store::connect_lazy(&DatabaseArgs { enable_metrics: true, ..database }, role).unwrap();
    store.register_metrics(&mut registry);
    names(&registry)
}

fn names(registry: &Registry) -> BTreeSet<String> {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names: BTreeSet<String> =
        types.map(|(name, type_)| if type_ == "counter" { format!("{name}_total") } else { name.to_owned() }).collect();
    for registered in format!("{registry:?}").split("Descriptor { name: \"").skip(1) {
        let name = registered.split('"').next().unwrap();
        let told = |told: &String| ["", "_total", "_seconds"].iter().any(|end| told.ends_with(&format!("{name}{end}")));
        assert!(names.iter().any(told), "nothing has happened here that {name} tells");
    }
    names
}

/// The names in the tables of the page below the heading of a process.
fn described(process: &str) -> BTreeSet<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap();
    let part = page.split("\n## ").find(|part| part.starts_with(process)).unwrap_or_else(|| panic!("no {process}"));
    let rows = part.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(name, _)| name.to_owned()).collect()
}

#[tokio::test]
async fn the_page_describes_what_is_told_and_nothing_else() {
    let controllers = controllers();
    assert_eq!(described("Controller"), controllers);
    let both: BTreeSet<_> = controllers.into_iter().filter(|name| name.contains("_database_connection")).collect();
    let agents = agents();
    assert!(both.len() == 5 && both.is_subset(&agents), "{both:?}");
    assert_eq!(described("Agent"), agents.difference(&both).cloned().collect());
    assert_eq!(described("Maintenance"), maintenances());
}
