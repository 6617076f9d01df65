//! A scan that does not fit its type, and figures that are not there in time: what goes on all the same.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use volumeviz::controller::health::DatabaseHealth;
use volumeviz::controller::{reconcile, sweep};

use crate::agents::Conduct::{Die, Hold};
use crate::life::World;
use crate::seam::Seam;
use crate::stories::{BOTH_RUN, PLAIN, both};
use crate::{crds, process};

/// A run of a scan that is gone, which the next sweep cancels, after it has ended what is abandoned.
const SENTINEL: &str = "INSERT INTO scan_runs (scan_uid, scan_name, run_key, work, deadline)
    VALUES ('gone', 'gone', 't:' || clock_timestamp(), '{}', clock_timestamp() + interval '1 hour')";
const SWEPT: &str = "SELECT to_jsonb(count(*) = 0) FROM scan_runs WHERE scan_uid = 'gone' AND completed_at IS NULL";
const OPEN: &str = "SELECT to_jsonb(count(*) = 1) FROM scan_runs WHERE scan_uid <> 'gone' AND completed_at IS NULL";

/// A time that the schema lets pass, and that is none.
async fn spoil(world: &World) {
    world.overwrite(json!({"lastSuccessfulTime": "2026-01-01T00:00:00+99:99"})).await;
    world.wait("the status to say so", async || is_stalled(&world.scan().await.unwrap())).await;
}

fn is_stalled(scan: &Value) -> bool {
    let conditions = scan["status"]["conditions"].as_array().unwrap();
    conditions.iter().any(|condition| {
        (&condition["type"], &condition["status"], &condition["reason"])
            == (&json!("Stalled"), &json!("True"), &json!("InvalidSpec"))
    })
}

/// A whole sweep, from beginning to end.
async fn swept(world: &World) {
    world.until(SWEPT).await;
    world.execute(SENTINEL).await;
    world.until(SWEPT).await;
}

#[tokio::test]
async fn an_unreadable_scans_run_is_ended_long_past_its_deadline_and_in_long_contact_only() {
    let client = crds::client_with_crds().await;
    let seam = Arc::new(Seam::new(None));
    let (world, _) = World::of(&client, &PLAIN, &seam).await;
    let (context, health) = process::context(world.setup(&PLAIN), seam).await;
    let in_contact = |seconds| DatabaseHealth::reached_for(Duration::from_secs(seconds), Timestamp::now());
    let story = async {
        both(&world, Hold);
        world.until(BOTH_RUN).await;
        spoil(&world).await;

        world.execute("UPDATE scan_runs SET deadline = clock_timestamp() - interval '60 seconds'").await;
        swept(&world).await;
        assert_eq!(world.value(OPEN).await, true, "whoever reconciles its scan may be about to end it");

        health.send_replace(in_contact(0));
        world
            .execute(
                "UPDATE scan_runs SET deadline = clock_timestamp() - interval '100 seconds' WHERE scan_uid <> 'gone'",
            )
            .await;
        swept(&world).await;
        assert_eq!(world.value(OPEN).await, true, "agents may not have reached the database yet");

        health.send_replace(in_contact(60));
        world
            .until(
                "SELECT to_jsonb(count(*) = 1) FROM scan_runs WHERE result = 'Failed' AND reason = 'DeadlineExceeded'",
            )
            .await;
        world.until("SELECT to_jsonb(count(*) = 0) FROM scan_jobs WHERE status IN ('pending', 'running')").await;
        assert!(is_stalled(&world.scan().await.unwrap()));
    };
    tokio::select! {
        () = story => {}
        ended = reconcile(Arc::clone(&context), CancellationToken::new()) => panic!("the reconciler ended: {ended:?}"),
        never = sweep::run(Arc::clone(&context)) => match never {},
    }
    world.delete().await;
}

#[tokio::test]
async fn a_scan_that_fits_again_is_no_longer_stalled() {
    let client = crds::client_with_crds().await;
    let seam = Arc::new(Seam::new(None));
    let (world, _) = World::of(&client, &PLAIN, &seam).await;
    let (context, _health) = process::context(world.setup(&PLAIN), seam).await;
    let story = async {
        both(&world, Die);
        world.until(BOTH_RUN).await;
        spoil(&world).await;
        assert_eq!(world.scan().await.unwrap()["status"]["state"], "Failed");

        world.execute("UPDATE scan_jobs SET lease_expires_at = clock_timestamp() - interval '1 second'").await;
        world.overwrite(json!({"lastSuccessfulTime": null})).await;
        world
            .told("the end of its run", |status| {
                status["lastRun"]["result"] == "Succeeded" && status["state"] == "Complete"
            })
            .await;
        let scan = world.scan().await.unwrap();
        assert!(!is_stalled(&scan) && !scan["status"].to_string().contains("InvalidSpec"), "{scan:#}");
    };
    tokio::select! {
        () = story => {}
        ended = reconcile(context, CancellationToken::new()) => panic!("the reconciler ended: {ended:?}"),
    }
    world.delete().await;
}

#[tokio::test]
async fn a_new_leader_says_nothing_before_it_has_looked_at_the_database() {
    let client = crds::client_with_crds().await;
    let seam = Arc::new(Seam::new(None));
    let (world, _) = World::of(&client, &PLAIN, &seam).await;
    let (context, health) = process::context(world.setup(&PLAIN), seam).await;
    health.send_replace(DatabaseHealth::unknown(Timestamp::now()));
    let story = async {
        let silence = Duration::from_secs(2);
        let told = tokio::time::timeout(silence, world.told("a status", Value::is_object)).await;
        assert!(told.is_err(), "{:#}", world.scan().await.unwrap()["status"]);
        health.send_replace(DatabaseHealth::reached_for(Duration::ZERO, Timestamp::now()));
        world.told("the end of the run", |status| status["lastRun"]["result"] == "Succeeded").await;
    };
    tokio::select! {
        () = story => {}
        ended = reconcile(context, CancellationToken::new()) => panic!("the reconciler ended: {ended:?}"),
    }
    world.delete().await;
}

#[tokio::test]
async fn figures_that_are_late_stay_as_they_were_and_keep_no_run_from_starting() {
    let client = crds::client_with_crds().await;
    let seam = Arc::new(Seam::new(None));
    let (world, _) = World::of(&client, &PLAIN, &seam).await;
    let (context, _health) = process::context(world.setup(&PLAIN), seam).await;
    let story = async {
        world.told("the end of the run", |status| status["lastRun"]["result"] == "Succeeded").await;
        let before = world.scan().await.unwrap()["status"].clone();
        assert_eq!(before["totals"]["measured"], 4);

        world.execute("BEGIN").await;
        world.execute("LOCK TABLE scan_results IN ACCESS EXCLUSIVE MODE").await;
        world.edit(json!({"suspend": true})).await;
        world.told("the edit to be seen", |_| true).await;
        let after = world.scan().await.unwrap()["status"].clone();
        let figures = |status: &Value| ["totals", "topVolumes", "lastRun"].map(|field| status[field].clone());
        assert_eq!(figures(&after), figures(&before));

        world.edit(json!({"suspend": false, "trigger": "again"})).await;
        world.until("SELECT to_jsonb(count(*) = 1) FROM scan_runs WHERE run_key = 't:again'").await;
        world.execute("COMMIT").await;
        world
            .told("the end of the next run", |status| {
                status["lastHandledTrigger"] == "again" && status["activeRun"].is_null()
            })
            .await;
    };
    tokio::select! {
        () = story => {}
        ended = reconcile(context, CancellationToken::new()) => panic!("the reconciler ended: {ended:?}"),
    }
    world.delete().await;
}
