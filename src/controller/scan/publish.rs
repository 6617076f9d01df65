//! The only writer of a VolumeScan's status, and the Events that tell of its changes.

use std::time::Duration;

use chrono::SecondsFormat;
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};

use super::agenda::agenda;
use super::observe::{Observed, Runs};
use super::plan::Invalid;
use super::status;
use crate::controller::SCANS;
use crate::controller::context::Context;
use crate::controller::patch::{self, Error};
use crate::controller::report::Notice;
use crate::crd::conditions::{MAX_MESSAGE_CHARS, STALLED, shorten};
use crate::crd::{VolumeScan, VolumeScanStatus};
use crate::domain::bytes::HumanBytes;
use crate::domain::run::RunResult;

/// How often a status is written that differs in progress only.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// How often any status is written: whoever edits the spec all the time does not make us write as often.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Writes the status when it says something new, then tells what is new; else returns when what is held back may be written.
pub async fn publish(
    context: &Context,
    scan: &VolumeScan,
    observed: &Observed,
    invalid: Option<&Invalid>,
) -> Result<Option<Duration>, Error> {
    let next = status::next(scan, observed, invalid);
    let before = scan.status.clone().unwrap_or_default();
    let uid = scan.uid().unwrap_or_default();
    if next == before {
        return Ok(None);
    }
    let period = if only_progress(&before, &next) { PROGRESS_EVERY } else { WRITE_EVERY };
    if let Some(left) = context.until_written(&uid, period) {
        return Ok(Some(left));
    }
    let version = patch::status::<VolumeScan>(context, (&scan.name_any(), Some(&uid)), &next).await?;
    context.wrote(SCANS, uid, version.as_deref(), next.clone());
    if let Some(skipped) = agenda(scan, observed).ok().and_then(|agenda| agenda.skipped) {
        context.metrics.runs_skipped(skipped.count);
    }
    let refused = invalid.and_then(|invalid| refused(invalid, &before));
    for notice in refused.into_iter().chain(notices(scan, &before, &next, observed)) {
        context.reporter.tell(&scan.object_ref(&()), notice).await;
    }
    Ok(None)
}

/// Whether the two differ only in how far the active run is.
fn only_progress(before: &VolumeScanStatus, next: &VolumeScanStatus) -> bool {
    let still = |status: &VolumeScanStatus| {
        let mut status = status.clone();
        if let Some(run) = status.active_run.as_mut() {
            (run.volumes, run.entries, run.bytes) = (0, 0, 0);
            run.nodes = crate::domain::run::NodeCounts::default();
        }
        if let Some(display) = status.display.as_mut() {
            display.nodes = None;
        }
        status
    };
    still(before) == still(next)
}

/// What the change from one status to the next is worth telling; derived from the statuses, so a new leader tells it as well.
pub(super) fn notices(
    scan: &VolumeScan,
    before: &VolumeScanStatus,
    next: &VolumeScanStatus,
    observed: &Observed,
) -> Vec<Notice> {
    let mut notices = Vec::new();
    let (was_active, is_active) = (before.active_run.as_ref(), next.active_run.as_ref());
    if let Some(run) = is_active
        && was_active.is_none_or(|was| (was.id, &was.start_time) != (run.id, &run.start_time))
    {
        notices.push(Notice {
            type_: EventType::Normal,
            reason: "RunStarted",
            note: match run.nodes.total {
                0 => format!("run {} started: no node is selected", run.id),
                1 => format!("run {} started on 1 node", run.id),
                nodes => format!("run {} started on {nodes} nodes", run.id),
            },
        });
    }
    if let Some(run) = &next.last_run
        && before.last_run.as_ref().is_none_or(|was| (was.id, &was.start_time) != (run.id, &run.start_time))
    {
        notices.push(ended(run, next));
    }
    notices.extend(skipped(scan, observed));
    let taken = next.last_handled_trigger != before.last_handled_trigger;
    let old_run = observed.runs.as_ref().is_some_and(|runs| is_old(runs, before));
    if taken
        && old_run
        && let Some(trigger) = &scan.spec.trigger
    {
        notices.push(Notice {
            type_: EventType::Normal,
            reason: "TriggerAlreadyHandled",
            note: format!("trigger {trigger:?} was used before and starts no run; use a new value"),
        });
    }
    notices
}

/// Whether the run asked for had ended before this status was due.
fn is_old(runs: &Runs, before: &VolumeScanStatus) -> bool {
    runs.asked.zip(before.last_run.as_ref()).is_some_and(|(asked, last)| asked <= last.id)
}

/// A spec that cannot be used, when the status did not say so before.
fn refused(invalid: &Invalid, before: &VolumeScanStatus) -> Option<Notice> {
    let message = shorten(&invalid.message, MAX_MESSAGE_CHARS);
    let told = before.conditions.iter().any(|old| old.type_ == STALLED && old.message == message);
    let notice = Notice { type_: EventType::Warning, reason: invalid.reason, note: invalid.message.clone() };
    (!told).then_some(notice)
}

fn skipped(scan: &VolumeScan, observed: &Observed) -> Option<Notice> {
    let agenda = agenda(scan, observed).ok()?;
    let (skipped, last) = (agenda.skipped?, agenda.settled?);
    let last = last.to_rfc3339_opts(SecondsFormat::Secs, true);
    let cause = skipped.cause.as_str();
    let note = match skipped.count {
        1 => format!("a scheduled run did not start, due at {last}: {cause}"),
        count => format!("{count} scheduled runs did not start, the last one due at {last}: {cause}"),
    };
    Some(Notice { type_: EventType::Warning, reason: "RunSkipped", note })
}

fn ended(run: &crate::crd::FinishedRun, status: &VolumeScanStatus) -> Notice {
    let nodes = run.nodes;
    let found = status.totals.as_ref().map_or_else(String::new, |totals| {
        let volumes = totals.counts.volumes;
        let plural = if volumes == 1 { "" } else { "s" };
        let size = totals.are_known().then(|| format!(", {}", HumanBytes(totals.allocated_bytes)));
        format!("; {volumes} volume{plural}{}", size.unwrap_or_default())
    });
    let note = format!(
        "run {}: {} of {} nodes measured in {} s{found}",
        run.id, nodes.succeeded, nodes.total, run.duration_seconds
    );
    let (type_, reason) = match run.result {
        RunResult::Succeeded => (EventType::Normal, "RunCompleted"),
        RunResult::Partial => (EventType::Warning, "RunPartiallyCompleted"),
        RunResult::Failed => (EventType::Warning, "RunFailed"),
        RunResult::Cancelled => (EventType::Normal, "RunCancelled"),
    };
    Notice { type_, reason, note: format!("{note} ({})", run.reason) }
}
