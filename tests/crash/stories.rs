//! The lives that the controller is made to die in.

use futures::FutureExt;
use k8s_openapi::jiff::{Span, Timestamp};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::agents::Conduct::{Die, Finish, Hold};
use crate::life::{Story, World};

/// Both jobs of the newest run are claimed.
pub(crate) const BOTH_RUN: &str = "SELECT to_jsonb(count(*) = 2) FROM scan_jobs
    WHERE run_id = (SELECT max(id) FROM scan_runs) AND status = 'running'";

/// Measures once and is deleted when its time is over, after all was told.
pub(crate) const ONCE: Story = Story {
    scan: || (json!({"ttlSecondsAfterFinished": 3}), Value::Null),
    alert: None,
    sweeps: false,
    script: |world| {
        async { world.wait("the scan to be deleted", async || world.scan().await.is_none()).await }.boxed_local()
    },
    told: &[("RunStarted", "on 2 nodes"), ("RunCompleted", "2 of 2 nodes")],
    figures: &[
        ("volumeviz_runs_started_total{kind=\"once\"}", 1.0),
        ("volumeviz_runs_ended_total{result=\"Succeeded\"}", 1.0),
        ("volumeviz_runs_ended_total{result=\"Partial\"}", 0.0),
        ("volumeviz_dispatch_duration_seconds_count", 2.0),
        ("volumeviz_leases_expired_total", 0.0),
        ("volumeviz_runs_skipped_total", 0.0),
    ],
};

/// Nothing of its own: the test tells what happens.
pub(crate) const PLAIN: Story = Story {
    scan: || (json!({}), Value::Null),
    alert: None,
    sweeps: false,
    script: |_| async {}.boxed_local(),
    told: &[],
    figures: &[],
};

/// Due by its schedule, replaced by a trigger, cancelled, and triggered once more.
pub(crate) const REPLACED: Story = Story {
    scan: due_a_minute_ago,
    alert: None,
    sweeps: false,
    script: |world| {
        async {
            both(world, Hold);
            world.until("SELECT to_jsonb(count(*) = 1) FROM scan_runs WHERE run_key LIKE 's:%'").await;
            world.until(BOTH_RUN).await;
            world.edit(json!({"trigger": "again"})).await;
            world.until("SELECT to_jsonb(count(*) = 1) FROM scan_runs WHERE run_key = 't:again'").await;
            world.until(BOTH_RUN).await;
            world.told("the run", |status| status["lastHandledTrigger"] == "again" && is_active(status)).await;
            let run = world.value("SELECT to_jsonb(max(id)) FROM scan_runs").await;
            world.edit(json!({"cancelRunID": run})).await;
            world
                .until(
                    "SELECT to_jsonb(count(*) = 1) FROM scan_runs WHERE run_key = 't:again' AND result = 'Cancelled'",
                )
                .await;
            world.told("that it is cancelled", |status| status["activeRun"].is_null()).await;
            world.edit(json!({"trigger": "last"})).await;
            world.told("the last run", |status| status["lastHandledTrigger"] == "last" && is_active(status)).await;
            both(world, Finish);
            world
                .told("the end of the last run", |status| {
                    status["lastHandledTrigger"] == "last"
                        && status["lastRun"]["result"] == "Succeeded"
                        && status["activeRun"].is_null()
                })
                .await;
        }
        .boxed_local()
    },
    told: &[
        ("RunStarted", "on 2 nodes"),
        ("RunStarted", "on 2 nodes"),
        ("RunCancelled", "(Replaced)"),
        ("RunCancelled", "(CancelRequested)"),
        ("RunStarted", "on 2 nodes"),
        ("RunCompleted", "2 of 2 nodes"),
    ],
    figures: &[
        ("volumeviz_runs_started_total{kind=\"schedule\"}", 1.0),
        ("volumeviz_runs_started_total{kind=\"trigger\"}", 2.0),
        ("volumeviz_runs_ended_total{result=\"Cancelled\"}", 2.0),
        ("volumeviz_runs_ended_total{result=\"Succeeded\"}", 1.0),
        ("volumeviz_dispatch_duration_seconds_count", 6.0),
        ("volumeviz_leases_expired_total", 0.0),
    ],
};

/// An agent dies, a node is replaced, and the deadline of the next run passes.
pub(crate) const TROUBLED: Story = Story {
    scan: || (json!({}), Value::Null),
    alert: None,
    sweeps: false,
    script: |world| {
        async {
            world.agents.conduct("node-1", Die);
            world.agents.conduct("node-2", Hold);
            world.until(BOTH_RUN).await;
            world
                .execute("UPDATE scan_jobs SET lease_expires_at = clock_timestamp() - interval '1 second' WHERE node = 'node-1'")
                .await;
            world.until("SELECT to_jsonb(count(*) = 1) FROM scan_jobs WHERE node = 'node-1' AND status = 'succeeded'").await;
            world.edit_fleet(|fleet| "another machine".clone_into(&mut fleet.nodes.get_mut("node-2").unwrap().uid));
            world.told("the end of the first run", |status| status["lastRun"]["result"] == "Partial").await;
            both(world, Hold);
            world.edit(json!({"trigger": "late"})).await;
            world.until("SELECT to_jsonb(count(*) = 2) FROM scan_runs").await;
            world.until(BOTH_RUN).await;
            world.told("the late run", |status| status["lastHandledTrigger"] == "late" && is_active(status)).await;
            world
                .execute("UPDATE scan_runs SET deadline = clock_timestamp() - interval '31 seconds' WHERE completed_at IS NULL")
                .await;
            world.told("the end of the late run", |status| {
                status["lastRun"]["result"] == "Failed" && status["activeRun"].is_null()
            })
            .await;
        }
        .boxed_local()
    },
    // Both nodes of the late run failed: one Event tells of both.
    told: &[
        ("RunStarted", "on 2 nodes"),
        ("RunPartiallyCompleted", "1 of 2 nodes"),
        ("RunStarted", "on 2 nodes"),
        ("RunFailed", "0 of 2 nodes"),
    ],
    figures: &[
        ("volumeviz_runs_started_total{kind=\"once\"}", 1.0),
        ("volumeviz_runs_started_total{kind=\"trigger\"}", 1.0),
        ("volumeviz_runs_ended_total{result=\"Partial\"}", 1.0),
        ("volumeviz_runs_ended_total{result=\"Failed\"}", 1.0),
        ("volumeviz_runs_ended_total{result=\"Succeeded\"}", 0.0),
        // Both nodes, node-1 again after its lease expired, and both nodes of the late run.
        ("volumeviz_dispatch_duration_seconds_count", 5.0),
        ("volumeviz_leases_expired_total", 1.0),
    ],
};

/// Deleted while its nodes are measured.
pub(crate) const DELETED: Story = Story {
    scan: || (json!({}), Value::Null),
    alert: None,
    sweeps: true,
    script: |world| {
        async {
            both(world, Hold);
            world.until(BOTH_RUN).await;
            world.delete().await;
            world.until("SELECT to_jsonb(count(*) = 1) FROM scan_runs WHERE result = 'Cancelled'").await;
            world.until("SELECT to_jsonb(count(*) = 0) FROM scan_jobs WHERE status <> 'cancelled'").await;
        }
        .boxed_local()
    },
    told: &[("RunStarted", "on 2 nodes")],
    figures: &[
        ("volumeviz_runs_started_total{kind=\"once\"}", 1.0),
        ("volumeviz_runs_ended_total{result=\"Cancelled\"}", 1.0),
        ("volumeviz_dispatch_duration_seconds_count", 2.0),
    ],
};

/// A waiting subject fires, is over, fires again, and is over when its alert is deleted.
pub(crate) const ALERTED: Story = Story {
    scan: || (json!({}), Value::Null),
    // Judged only when the run has ended, so that all subjects begin together.
    alert: Some(
        || json!({"scope": "Volume", "rule": {"sizeAbove": {"bytes": 1000}}, "forSeconds": 1, "suspend": true}),
    ),
    sweeps: true,
    script: |world| {
        async {
            world.told("the end of the run", |status| status["lastRun"]["result"] == "Succeeded").await;
            world.edit_alert(json!({"suspend": false})).await;
            world.until("SELECT to_jsonb(count(*) = 1) FROM alert_notifications WHERE event = 'Firing' AND delivered_at IS NOT NULL").await;
            world.edit_alert(json!({"rule": {"sizeAbove": {"bytes": 1_000_000_000}}})).await;
            world.until("SELECT to_jsonb(count(*) = 1) FROM alert_notifications WHERE event = 'Resolved' AND delivered_at IS NOT NULL").await;
            world.edit_alert(json!({"rule": {"sizeAbove": {"bytes": 500}}})).await;
            world.until("SELECT to_jsonb(count(*) = 2) FROM alert_notifications WHERE event = 'Firing' AND delivered_at IS NOT NULL").await;
            world.alerts.delete(&world.name, &DeleteParams::default()).await.unwrap();
            world.until("SELECT to_jsonb(count(*) = 2) FROM alert_notifications WHERE event = 'Resolved' AND delivered_at IS NOT NULL").await;
        }
        .boxed_local()
    },
    told: &[
        ("RunStarted", "on 2 nodes"),
        ("RunCompleted", "2 of 2 nodes"),
        ("AlertFiring", "limit 1000 B; and 3 more"),
        ("AlertResolved", "limit 954 MiB; and 3 more"),
        ("AlertFiring", "limit 500 B; and 3 more"),
        ("AlertResolved", "the VolumeAlert was deleted; and 3 more"),
    ],
    figures: &[
        ("volumeviz_runs_started_total{kind=\"once\"}", 1.0),
        ("volumeviz_runs_ended_total{result=\"Succeeded\"}", 1.0),
        ("volumeviz_dispatch_duration_seconds_count", 2.0),
    ],
};

/// Whether this status tells of a run that is under way.
fn is_active(status: &Value) -> bool {
    status["activeRun"].is_object()
}

pub(crate) fn both(world: &World, conduct: crate::agents::Conduct) {
    for node in ["node-1", "node-2"] {
        world.agents.conduct(node, conduct);
    }
}

/// The same, with a deadline that has passed.
pub(crate) fn too_late() -> (Value, Value) {
    let (mut spec, status) = due_a_minute_ago();
    spec["startingDeadlineSeconds"] = json!(30);
    (spec, status)
}

/// A daily scan that is followed since two hours and was due a minute ago.
fn due_a_minute_ago() -> (Value, Value) {
    let now = Timestamp::now();
    let due = now - Span::new().minutes(1);
    let schedule = due.strftime("%-M %-H * * *").to_string();
    let since = (now - Span::new().hours(2)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let spec =
        json!({"schedule": schedule, "concurrencyPolicy": "Replace", "startingDeadlineSeconds": 3600, "trigger": null});
    (spec, json!({"observedGeneration": 1, "schedule": {"expression": schedule, "since": since}}))
}
