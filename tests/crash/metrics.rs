//! What `/metrics` of a controller that leads tells of volumes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use volumeviz::controller::contents::{self, VolumeSeries};
use volumeviz::controller::context::Context;
use volumeviz::controller::health::{DatabaseHealth, DatabaseProblem};
use volumeviz::controller::reconcile;

use crate::life::World;
use crate::seam::Seam;
use crate::{kubernetes, process, stories};

/// All volumes of both nodes but one.
const SERIES: VolumeSeries = VolumeSeries { top: 3, all: false, max: 5000 };

/// The series of volumes and scans, with their values.
fn series(context: &Context) -> Vec<(String, i64)> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(context.metrics.contents().clone()));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    lines.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

fn sum(series: &[(String, i64)], name: &str) -> i64 {
    series.iter().filter(|(series, _)| series.starts_with(name)).map(|(_, value)| value).sum()
}

#[tokio::test]
async fn figures_are_told_after_a_run_and_not_while_the_database_is_away() {
    let client = kubernetes::client().await;
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
        world.wait("all but the time of the last success to end", async || series(&context).len() == 1).await;
        assert!(series(&context)[0].0.starts_with("scan_last_success_timestamp_seconds{"), "{:?}", series(&context));

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
