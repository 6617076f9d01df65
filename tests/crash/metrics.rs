//! What `/metrics` of a controller that leads tells: of volumes, and of runs, jobs and errors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use volumeviz::controller::contents::{self, VolumeSeries};
use volumeviz::controller::context::Context;
use volumeviz::controller::health::{DatabaseHealth, DatabaseProblem};
use volumeviz::controller::{reconcile, sweep};

use crate::agents::Conduct::Hold;
use crate::life::{Story, World};
use crate::seam::Seam;
use crate::stories::{BOTH_RUN, PLAIN};
use crate::{crds, process, stories, told};

/// All volumes of both nodes but one.
const SERIES: VolumeSeries = VolumeSeries { top: 3, all: false, max: 5000 };

/// The series of volumes and scans, with their values.
fn series(context: &Context) -> Vec<(String, i64)> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(context.metrics.contents().clone()));
    lines(&registry).into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect()
}

fn lines(registry: &Registry) -> Vec<(String, String)> {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Every series with its value.
pub(crate) fn read(registry: &Registry) -> Vec<(String, f64)> {
    lines(registry).into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect()
}

/// What is told has these values; every pass was counted and timed.
pub(crate) fn hold(figures: &[(String, f64)], expected: &[(&str, f64)]) {
    let sum =
        |name: &str| figures.iter().filter(|(series, _)| series.starts_with(name)).map(|(_, value)| value).sum::<f64>();
    let found = |series: &str| figures.iter().find(|(name, _)| name == series).map(|(_, value)| *value);
    let wrong: Vec<_> = expected.iter().filter(|(series, value)| found(series) != Some(*value)).collect();
    assert!(wrong.is_empty(), "not as expected: {wrong:#?} in {figures:#?}");
    let passes = sum("volumeviz_reconciles_total{");
    assert!(
        passes > 0.0 && passes.to_bits() == sum("volumeviz_reconcile_duration_seconds_count").to_bits(),
        "{figures:#?}"
    );
}

fn sum(series: &[(String, i64)], name: &str) -> i64 {
    series.iter().filter(|(series, _)| series.starts_with(name)).map(|(_, value)| value).sum()
}

#[tokio::test]
async fn figures_are_told_after_a_run_and_not_while_the_database_is_away() {
    let client = crds::client_with_crds().await;
    let seam = Arc::new(Seam::new(None));
    let (world, _) = World::of(&client, &stories::PLAIN, &seam).await;
    let (context, health) = process::context(world.setup(&stories::PLAIN), seam).await;
    let told = async {
        world.told("the end of the run", |status| status["lastRun"]["result"] == "Succeeded").await;
        let ended = Instant::now();
        world.wait("series of nodes", async || sum(&series(&context), "node_volumes{") == 4).await;
        assert!(ended.elapsed() < Duration::from_secs(40), "not by the run's end: {:?}", ended.elapsed());
        as_in_status(&world, &series(&context)).await;

        let problem = DatabaseProblem { reason: "Unreachable", message: "by the test".to_owned() };
        health.send_modify(|health| *health = health.clone().with_problem(problem, Timestamp::now()));
        world.wait("all but the times of the last runs to end", async || series(&context).len() == 2).await;
        let times = ["scan_last_success_timestamp_seconds{", "scan_last_run_timestamp_seconds{"];
        let left = series(&context);
        assert!(times.iter().all(|time| left.iter().any(|(series, _)| series.starts_with(time))), "{left:?}");

        health.send_replace(DatabaseHealth::reached_for(Duration::from_secs(60), Timestamp::now()));
        let all = ["node_volumes{", "volume_files{", "scan_volumes{"];
        world.wait("the series again", async || all.iter().all(|name| sum(&series(&context), name) > 0)).await;
    };
    tokio::select! {
        () = told => {}
        ended = reconcile(Arc::clone(&context), CancellationToken::new()) => panic!("the reconciler ended: {ended:?}"),
        never = contents::watch(Arc::clone(&context), SERIES) => match never {},
    }
    world.delete().await;
}

async fn as_in_status(world: &World, series: &[(String, i64)]) {
    let totals = world.scan().await.unwrap()["status"]["totals"].clone();
    for name in ["scan_allocated_bytes{", "node_allocated_bytes{"] {
        assert_eq!(sum(series, name), totals["allocatedBytes"].as_i64().unwrap(), "{name} {series:?}");
    }
    assert_eq!(sum(series, "node_apparent_bytes{"), totals["apparentBytes"].as_i64().unwrap());
    assert_eq!(sum(series, "node_files{"), totals["files"].as_i64().unwrap());
    let volumes = series.iter().filter(|(name, _)| name.starts_with("volume_allocated_bytes{")).count();
    assert_eq!((volumes, sum(series, "volume_series_omitted")), (3, 1));
}

/// A world with a controller that sweeps, and whether what it must tell was told in time; returns the scan's Events.
async fn with_controller(story: &Story, happens: impl AsyncFnOnce(&World)) -> Vec<told::Told> {
    let client: Client = crds::client_with_crds().await;
    let seam = Arc::new(Seam::new(None));
    let (world, uid) = World::of(&client, story, &seam).await;
    let (context, _health) = process::context(world.setup(story), seam).await;
    tokio::select! {
        () = happens(&world) => {}
        ended = reconcile(Arc::clone(&context), CancellationToken::new()) => panic!("the reconciler ended: {ended:?}"),
        never = sweep::run(Arc::clone(&context)) => match never {},
    }
    let told = told::about(&client, &format!("regarding.uid={uid}")).await;
    world.delete().await;
    told
}

#[tokio::test]
async fn jobs_and_how_long_the_oldest_waits_are_told_while_a_run_is_under_way() {
    const OLDEST: &str = "volumeviz_oldest_pending_job_seconds";
    let jobs = |world: &World| {
        ["pending", "running", "succeeded", "failed", "skipped"].map(|status| {
            world
                .figure(&format!("volumeviz_jobs{{status=\"{status}\"}}"))
                .map(|jobs| jobs.to_string())
                .unwrap_or_default()
        })
    };
    with_controller(&PLAIN, async |world| {
        stories::both(world, Hold);
        let agent = {
            let mut agent = None;
            world.edit_fleet(|fleet| agent = fleet.nodes.get_mut("node-2").unwrap().agent.take());
            agent
        };
        world.wait("a job that waits", async || jobs(world) == ["1", "1", "0", "0", "0"]).await;
        let first = world.figure(OLDEST).unwrap();
        world.wait("it to wait for longer", async || world.figure(OLDEST).unwrap() >= first + 4.0).await;
        world.edit_fleet(|fleet| fleet.nodes.get_mut("node-2").unwrap().agent = agent);
        world.until(BOTH_RUN).await;
        world.wait("nothing to wait", async || jobs(world) == ["0", "2", "0", "0", "0"]).await;
        assert_eq!(world.figure(OLDEST), Some(0.0));
        world
            .execute("UPDATE scan_jobs SET lease_expires_at = NULL, completed_at = clock_timestamp(), status = 'failed' WHERE node = 'node-1'")
            .await;
        world.wait("the failed one", async || jobs(world) == ["0", "1", "0", "1", "0"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_pass_that_fails_is_counted_by_what_was_at_fault() {
    const ERRORS: &str = "volumeviz_errors_total{reason=\"GrantsMissing\"}";
    const PASSES: &str = "volumeviz_reconciles_total{kind=\"volumescans\",outcome=\"Apply\"}";
    with_controller(&Story { scan: || (json!({"suspend": true}), Value::Null), ..PLAIN }, async |world| {
        world.told("that it is suspended", |status| status["state"] == "Suspended").await;
        assert_eq!((world.figure(ERRORS), world.figure(PASSES)), (None, None));
        world.execute("REVOKE INSERT ON scan_runs FROM volumeviz_controller").await;
        world.edit(json!({"suspend": false})).await;
        world.wait("errors", async || world.figure(ERRORS).is_some_and(|errors| errors >= 2.0)).await;
        assert_eq!(world.figure(PASSES), world.figure(ERRORS));
        assert_eq!(world.figure("volumeviz_runs_started_total{kind=\"once\"}"), None, "no run was made");
        world.execute("GRANT INSERT ON scan_runs TO volumeviz_controller").await;
        world.told("the end of the run", |status| status["lastRun"]["result"] == "Succeeded").await;
        assert_eq!(world.figure("volumeviz_runs_started_total{kind=\"once\"}"), Some(1.0));
    })
    .await;
}

#[tokio::test]
async fn a_run_that_is_too_late_is_counted_and_told_once() {
    let told = with_controller(&Story { scan: stories::too_late, ..PLAIN }, async |world| {
        world.told("what was skipped", |status| status["skippedRuns"] == 1).await;
        world.wait("it to be counted", async || world.figure("volumeviz_runs_skipped_total") == Some(1.0)).await;
        world.edit(json!({"unusedAfterDays": 7})).await;
        world.told("the edit to be seen", |_| true).await;
        assert_eq!(world.figure("volumeviz_runs_skipped_total"), Some(1.0));
    })
    .await;
    let expected = [("RunSkipped", "a scheduled run did not start")];
    assert!(told::are(&told, &expected), "{told:?}");
}
