//! The status that follows from what was observed: pure, and within its size whatever the cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::agenda::agenda;
use super::conditions::statements;
use super::figures;
use super::observe::{ActiveRun, Observed, Runs};
use super::plan::Invalid;
use crate::controller::fleet::Fleet;
use crate::crd::conditions::{build, shorten, to_seconds};
use crate::crd::{self, Agents, Database, Display, FailedNode, FinishedRun, State, VolumeScan, VolumeScanStatus};
use crate::domain::bytes::HumanBytes;
use crate::domain::run::RunResult;
use crate::store;

/// The largest status that is written, as JSON.
pub const MAX_BYTES: usize = 16 * 1024;

/// What is in rows others can write, even words of ours.
const MAX_REASON_CHARS: usize = 64;
const MAX_VERSION_CHARS: usize = 64;

/// The whole next status. What cannot be known now (the database is away) stays as it was.
pub fn next(scan: &VolumeScan, observed: &Observed, invalid: Option<&Invalid>) -> VolumeScanStatus {
    let mut status = scan.status.clone().unwrap_or_default();
    status.observed_generation = scan.metadata.generation;
    status.agents = Some(agents(scan, &observed.fleet, observed.runs.as_ref().map(|runs| runs.without_docker)));
    status.database = Some(database(observed, status.database.as_ref()));
    if let Some(runs) = &observed.runs {
        tell_runs(&mut status, scan, runs);
    }
    tell_schedule(&mut status, scan, observed);
    status.display = Some(display(&status));
    status.state = Some(state(scan, &status, invalid));
    let statements = statements(scan, observed, invalid, &status);
    status.conditions = build(statements, &status.conditions, scan.metadata.generation, observed.now);
    fit(&mut status);
    status
}

/// What is invalid is told by the conditions; the last times stay.
fn tell_schedule(status: &mut VolumeScanStatus, scan: &VolumeScan, observed: &Observed) {
    let Ok(agenda) = agenda(scan, observed) else {
        status.next_schedule_time = None;
        return;
    };
    status.schedule = agenda.followed;
    status.next_schedule_time = agenda.next.map(time);
    status.last_schedule_time = agenda.settled.map(time);
    if let Some(skipped) = agenda.skipped {
        status.skipped_runs = Some(status.skipped_runs.unwrap_or(0).saturating_add(skipped.count));
    }
}

fn tell_runs(status: &mut VolumeScanStatus, scan: &VolumeScan, runs: &Runs) {
    status.active_run = runs.active.as_ref().map(active_run);
    if runs.asked.is_some() {
        status.last_handled_trigger.clone_from(&scan.spec.trigger);
    }
    let lost = missing_run(status, runs).is_some();
    if !lost || runs.active.is_some() {
        status.failed_nodes = runs.failed_nodes.nodes.iter().map(failed_node).collect();
        status.failed_nodes_omitted = omitted(runs.failed_nodes.total, status.failed_nodes.len());
    }
    if lost {
        return;
    }
    status.history = runs.finished.iter().filter_map(finished_run).collect();
    status.last_run = status.history.first().cloned();
    if let Some(run) = status.history.iter().find(|run| run.result == RunResult::Succeeded) {
        status.last_successful_time = Some(run.completion_time.clone());
    }
    if runs.figures_read {
        figures::tell(status, runs.figures.as_ref());
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
pub(super) fn omitted(total: i64, shown: usize) -> Option<i64> {
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
        reason: shorten(run.reason.as_deref().unwrap_or_default(), MAX_REASON_CHARS),
        start_time: time(run.created_at),
        completion_time: time(completed),
        duration_seconds: (completed - run.created_at).num_seconds(),
        nodes: run.nodes,
    })
}

fn failed_node(failed: &store::jobs::FailedNode) -> FailedNode {
    FailedNode {
        node: shorten(&failed.node, crd::conditions::MAX_NODE_CHARS),
        reason: shorten(&failed.reason, MAX_REASON_CHARS),
        message: shorten(&failed.message, crd::conditions::MAX_MESSAGE_CHARS),
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
    let version = health.server_version.as_deref().map(|version| shorten(version, MAX_VERSION_CHARS));
    Database {
        connected: health.problem.is_none(),
        reason: reason.to_owned(),
        server_version: version.or_else(|| before?.server_version.clone()),
        schema_version: health.schema_version.or_else(|| before?.schema_version),
        pending_migrations: health.pending_migrations.or_else(|| before?.pending_migrations),
        since,
    }
}

fn display(status: &VolumeScanStatus) -> Display {
    let counts =
        status.active_run.as_ref().map(|run| run.nodes).or_else(|| status.last_run.as_ref().map(|run| run.nodes));
    let totals = status.totals.as_ref();
    let at_least = |partial: i64| if partial > 0 { "≥" } else { "" };
    Display {
        nodes: counts.map(|nodes| format!("{}/{}", nodes.succeeded, nodes.total)),
        size: totals
            .filter(|totals| totals.are_known())
            .map(|t| format!("{}{}", at_least(t.counts.partial), HumanBytes(t.allocated_bytes))),
        growth: status.growth.as_ref().map(|growth| {
            let sign = if growth.bytes_per_day > 0 { "+" } else { "" };
            format!("{sign}{}", HumanBytes(growth.bytes_per_day))
        }),
        removable: totals.map(|t| format!("{} ({})", t.candidates, HumanBytes(t.candidate_bytes))),
    }
}

fn state(scan: &VolumeScan, status: &VolumeScanStatus, invalid: Option<&Invalid>) -> State {
    match (&status.active_run, &status.last_run) {
        _ if invalid.is_some() => State::Failed,
        (Some(_), _) => State::Running,
        (None, _) if suspended(scan, status) => State::Suspended,
        (None, _) if scan.spec.schedule.is_some() => State::Waiting,
        (None, None) => State::Pending,
        (None, Some(run)) if matches!(run.result, RunResult::Succeeded | RunResult::Partial) => State::Complete,
        (None, Some(_)) => State::Failed,
    }
}

/// Whether `suspend` keeps anything from starting: not of a scan without schedule whose run has ended.
pub(super) fn suspended(scan: &VolumeScan, status: &VolumeScanStatus) -> bool {
    let over =
        scan.spec.schedule.is_none() && status.last_run.is_some() && status.last_handled_trigger == scan.spec.trigger;
    scan.spec.suspend && !over
}

/// Shortens the lists, each time the one with the longest tail, until the status fits; what was cut stays counted.
fn fit(status: &mut VolumeScanStatus) {
    fn cut<T: Serialize>(list: &mut Vec<T>, omitted: &mut Option<i64>) {
        if list.pop().is_some() {
            *omitted.get_or_insert_default() += 1;
        }
    }
    while bytes(status) > MAX_BYTES {
        let sizes = [
            bytes(&status.top_volumes),
            bytes(&status.fastest_growing),
            bytes(&status.candidates),
            bytes(&status.failed_nodes),
            bytes(&status.history),
            bytes(&status.top_files),
            bytes(&status.top_directories),
        ];
        let longest = sizes.iter().enumerate().max_by_key(|(_, size)| **size).map_or(0, |(list, _)| list);
        match longest {
            0 => cut(&mut status.top_volumes, &mut status.top_volumes_omitted),
            1 => cut(&mut status.fastest_growing, &mut status.fastest_growing_omitted),
            2 => cut(&mut status.candidates, &mut status.candidates_omitted),
            3 => cut(&mut status.failed_nodes, &mut status.failed_nodes_omitted),
            4 if status.history.pop().is_some() => {}
            5 if status.top_files.pop().is_some() => {}
            6 if status.top_directories.pop().is_some() => {}
            _ => return,
        }
    }
}

fn bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |json| json.len())
}

/// The one place where the database's times become Kubernetes' times, which have whole seconds.
pub(super) fn time(time: chrono::DateTime<chrono::Utc>) -> Time {
    Time(Timestamp::from_second(time.timestamp()).unwrap_or(Timestamp::UNIX_EPOCH))
}
