//! The status that follows from what was observed: pure, and within its size whatever the cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::conditions::statements;
use super::observe::{ActiveRun, Observed, Runs};
use super::plan::Invalid;
use crate::controller::fleet::Fleet;
use crate::crd::conditions::{build, shorten, to_seconds};
use crate::crd::{
    self, Agents, Database, Display, FailedNode, FinishedRun, State, TopVolume, Totals, VolumeScan, VolumeScanStatus,
};
use crate::domain::bytes::HumanBytes;
use crate::domain::run::RunResult;
use crate::store;

/// The largest status that is written, as JSON.
pub const MAX_BYTES: usize = 16 * 1024;

/// The whole next status. What cannot be known now (the database is away) stays as it was.
pub fn next(scan: &VolumeScan, observed: &Observed, invalid: Option<&Invalid>) -> VolumeScanStatus {
    let mut status = scan.status.clone().unwrap_or_default();
    status.observed_generation = scan.metadata.generation;
    status.agents = Some(agents(scan, &observed.fleet, observed.runs.as_ref().map(|runs| runs.without_docker)));
    status.database = Some(database(observed, status.database.as_ref()));
    if let Some(runs) = &observed.runs {
        tell_runs(&mut status, scan, runs);
    }
    status.display = Some(display(&status));
    status.state = Some(state(&status, invalid));
    let statements = statements(scan, observed, invalid, &status);
    status.conditions = build(statements, &status.conditions, scan.metadata.generation, observed.now);
    fit(&mut status);
    status
}

fn tell_runs(status: &mut VolumeScanStatus, scan: &VolumeScan, runs: &Runs) {
    status.active_run = runs.active.as_ref().map(active_run);
    if runs.wanted.is_some() {
        status.last_handled_trigger.clone_from(&scan.spec.trigger);
    }
    status.failed_nodes = runs.failed_nodes.nodes.iter().map(failed_node).collect();
    status.failed_nodes_omitted = omitted(runs.failed_nodes.total, status.failed_nodes.len());
    if missing_run(status, runs).is_some() {
        return;
    }
    status.history = runs.finished.iter().filter_map(finished_run).collect();
    status.last_run = status.history.first().cloned();
    if let Some(run) = status.history.iter().find(|run| run.result == RunResult::Succeeded) {
        status.last_successful_time = Some(run.completion_time.clone());
    }
    if runs.results_read {
        status.totals = runs.results.as_ref().map(totals);
        status.top_volumes = runs.results.iter().flat_map(|results| &results.top).map(top_volume).collect();
        let measured = runs.results.as_ref().map_or(0, |results| results.counts.measured + results.counts.partial);
        status.top_volumes_omitted = omitted(measured, status.top_volumes.len());
    }
}

/// The last run this status tells of, when the database holds nothing as new: it was restored to an earlier time, or is another. What the
/// status says is then all that is left of that run, and stays until a newer one has ended.
pub(super) fn missing_run<'a>(status: &'a VolumeScanStatus, runs: &Runs) -> Option<&'a FinishedRun> {
    let told = status.last_run.as_ref()?;
    let newest = runs.finished.iter().filter_map(|run| run.completed_at).map(time).max();
    newest.is_none_or(|newest| newest < told.completion_time).then_some(told)
}

/// `None` when nothing is left out.
fn omitted(total: i64, shown: usize) -> Option<i64> {
    let shown = i64::try_from(shown).unwrap_or(i64::MAX);
    Some(total.saturating_sub(shown)).filter(|omitted| *omitted > 0)
}

fn active_run(active: &ActiveRun) -> crd::ActiveRun {
    crd::ActiveRun {
        id: active.run.id,
        start_time: time(active.run.created_at),
        deadline: time(active.run.deadline),
        nodes: active.progress.nodes,
        volumes: active.progress.volumes_done,
        entries: active.progress.entries,
        bytes: active.progress.bytes,
    }
}

fn finished_run(run: &store::runs::Run) -> Option<FinishedRun> {
    let (result, completed) = (run.result?, run.completed_at?);
    Some(FinishedRun {
        id: run.id,
        result,
        reason: run.reason.clone().unwrap_or_default(),
        start_time: time(run.created_at),
        completion_time: time(completed),
        duration_seconds: (completed - run.created_at).num_seconds(),
        nodes: run.nodes,
    })
}

fn failed_node(failed: &store::jobs::FailedNode) -> FailedNode {
    FailedNode {
        node: failed.node.clone(),
        reason: failed.reason.clone(),
        message: shorten(&failed.message, crd::conditions::MAX_MESSAGE_CHARS),
    }
}

fn totals(results: &store::results::Results) -> Totals {
    Totals {
        counts: results.counts,
        allocated_bytes: results.allocated_bytes,
        apparent_bytes: results.apparent_bytes,
        files: results.files,
        stale_nodes: results.stale_nodes,
        oldest_data_time: results.oldest_data_time.map(time),
    }
}

fn top_volume(volume: &store::results::VolumeRow) -> TopVolume {
    TopVolume {
        node: volume.node.clone(),
        name: shorten(&volume.name, 255),
        allocated_bytes: volume.allocated_bytes,
        apparent_bytes: volume.apparent_bytes,
        size: HumanBytes(volume.allocated_bytes).to_string(),
        completeness: volume.completeness,
        used_by_running: volume.used_by_running,
        used_by_stopped: volume.used_by_stopped,
        measured_time: time(volume.measured_at),
    }
}

fn agents(scan: &VolumeScan, fleet: &Fleet, without_docker: Option<i32>) -> Agents {
    let nodes = || fleet.select(scan.spec.node_selector.as_ref());
    let ready = nodes().filter(|(_, node)| node.agent.as_ref().is_some_and(|agent| agent.ready)).count();
    let before = scan.status.as_ref().and_then(|status| status.agents).map_or(0, |agents| agents.without_docker);
    Agents { desired: count(nodes().count()), ready: count(ready), without_docker: without_docker.unwrap_or(before) }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn database(observed: &Observed, before: Option<&Database>) -> Database {
    let health = &observed.database;
    let reason = health.problem.as_ref().map_or(crd::conditions::reason::CONNECTED, |problem| problem.reason);
    // Another leader may have seen it longer than this one.
    let since = before
        .filter(|before| before.reason == reason)
        .map_or_else(|| Time(to_seconds(health.since)), |b| b.since.clone());
    Database {
        connected: health.problem.is_none(),
        reason: reason.to_owned(),
        server_version: health.server_version.clone().or_else(|| before?.server_version.clone()),
        schema_version: health.schema_version.or_else(|| before?.schema_version),
        pending_migrations: health.pending_migrations.or_else(|| before?.pending_migrations),
        since,
    }
}

fn display(status: &VolumeScanStatus) -> Display {
    let counts =
        status.active_run.as_ref().map(|run| run.nodes).or_else(|| status.last_run.as_ref().map(|run| run.nodes));
    let at_least = |totals: &Totals| if totals.counts.partial > 0 { "≥" } else { "" };
    Display {
        nodes: counts.map(|nodes| format!("{}/{}", nodes.succeeded, nodes.total)),
        size: status.totals.as_ref().map(|t| format!("{}{}", at_least(t), HumanBytes(t.allocated_bytes))),
    }
}

fn state(status: &VolumeScanStatus, invalid: Option<&Invalid>) -> State {
    match (&status.active_run, &status.last_run) {
        _ if invalid.is_some() => State::Failed,
        (Some(_), _) => State::Running,
        (None, None) => State::Pending,
        (None, Some(run)) if matches!(run.result, RunResult::Succeeded | RunResult::Partial) => State::Complete,
        (None, Some(_)) => State::Failed,
    }
}

/// Shortens the lists, each time the one with the longest tail, until the status fits; what was cut stays counted.
fn fit(status: &mut VolumeScanStatus) {
    while serde_json::to_vec(status).map_or(0, |json| json.len()) > MAX_BYTES {
        let size = |json: Result<Vec<u8>, serde_json::Error>| json.map_or(0, |json| json.len());
        let top = size(serde_json::to_vec(&status.top_volumes));
        let failed = size(serde_json::to_vec(&status.failed_nodes));
        let history = size(serde_json::to_vec(&status.history));
        if top >= failed && top >= history && status.top_volumes.pop().is_some() {
            *status.top_volumes_omitted.get_or_insert_default() += 1;
        } else if failed >= history && status.failed_nodes.pop().is_some() {
            *status.failed_nodes_omitted.get_or_insert_default() += 1;
        } else if status.history.pop().is_none() {
            return;
        }
    }
}

/// The one place where the database's times become Kubernetes' times, which have whole seconds.
fn time(time: chrono::DateTime<chrono::Utc>) -> Time {
    Time(Timestamp::from_second(time.timestamp()).unwrap_or(Timestamp::UNIX_EPOCH))
}
