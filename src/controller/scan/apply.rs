//! Carries out a plan. Every step is safe to repeat and safe with two leaders: unique keys and compare-and-set on the ticket.

use std::time::Duration;

use kube::api::{DeleteParams, Preconditions};
use kube::{Api, ResourceExt};

use super::observe::{Observed, Runs};
use super::plan::{Finish, Plan, Start, Step};
use crate::controller::context::Context;
use crate::controller::pass::Fault;
use crate::crd::VolumeScan;
use crate::domain::dispatch::Offer;
use crate::domain::run::{CancelReason, RunResult, conclude};
use crate::store;
use crate::store::runs::NewRun;

const WRITE_DEADLINE: Duration = Duration::from_secs(3);

/// What changed so much that the scan must be observed again before its status is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// A run was made, or ended.
    pub runs_changed: bool,
}

/// A step failed; the steps before it hold, the others come again in the next pass.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec could not be audited.
    #[error("failed to audit the spec: {0}")]
    Audit(#[source] store::Error),
    /// The run could not be made.
    #[error("failed to start run {key}: {source}")]
    Start {
        /// The run's key.
        key: String,
        /// Why.
        source: store::Error,
    },
    /// A job could not be changed.
    #[error("failed to {operation} of run {run}: {source}")]
    Jobs {
        /// What was tried.
        operation: &'static str,
        /// The run.
        run: i64,
        /// Why.
        source: store::Error,
    },
    /// The API server would not delete the scan.
    #[error("failed to delete volumescan {name}, which outlived ttlSecondsAfterFinished: {source}")]
    Delete {
        /// The scan.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("failed to delete volumescan {name}, which outlived ttlSecondsAfterFinished, within {WRITE_DEADLINE:?}")]
    DeleteTimeout {
        /// The scan.
        name: String,
    },
    /// The run could not be ended.
    #[error("failed to end run {run}: {source}")]
    Finish {
        /// The run.
        run: i64,
        /// Why.
        source: store::Error,
    },
}

impl Fault for Error {
    fn of_database(&self) -> Option<&store::Error> {
        match self {
            Self::Audit(source)
            | Self::Start { source, .. }
            | Self::Jobs { source, .. }
            | Self::Finish { source, .. } => Some(source),
            Self::Delete { .. } | Self::DeleteTimeout { .. } => None,
        }
    }
}

/// Carries out every step.
pub async fn apply(context: &Context, scan: &VolumeScan, observed: &Observed, plan: Plan) -> Result<Applied, Error> {
    let Plan { invalid: _, start, steps, finish, delete } = plan;
    let mut applied = Applied::default();
    if observed.runs.is_some() {
        audit_spec(context, scan).await?;
    }
    if let Some(Runs { active: Some(active), .. }) = &observed.runs {
        let open: Vec<_> = active.jobs.iter().map(|job| job.ticket).collect();
        context.dispatcher.retain(active.run.id, &open);
        take_steps(context, active.run.id, steps).await?;
        if let Some(finish) = finish {
            end_run(context, active.run.id, finish).await?;
            context.dispatcher.retain(active.run.id, &[]);
            applied.runs_changed = true;
        }
    }
    if let Some(start) = start {
        make_run(context, scan, start).await?;
        applied.runs_changed = true;
    }
    if delete {
        delete_scan(context, scan).await?;
    }
    Ok(applied)
}

/// Writes down a spec that this process has not met before; the database knows whether another has.
async fn audit_spec(context: &Context, scan: &VolumeScan) -> Result<(), Error> {
    let (name, uid, generation) =
        (scan.name_any(), scan.uid().unwrap_or_default(), scan.metadata.generation.unwrap_or_default());
    if context.is_audited(&uid, generation) {
        return Ok(());
    }
    let spec = serde_json::json!(scan.spec);
    context
        .store
        .run("audit a spec", WRITE_DEADLINE, async |conn| {
            store::audit::spec_seen(conn, &name, &uid, generation, spec).await
        })
        .await
        .map_err(Error::Audit)?;
    context.audited_now(uid, generation);
    Ok(())
}

async fn make_run(context: &Context, scan: &VolumeScan, Start { key, nodes }: Start) -> Result<(), Error> {
    let run = NewRun {
        scan_uid: scan.uid().unwrap_or_default(),
        scan_name: scan.name_any(),
        key: key.to_string(),
        work: scan.spec.work_order(),
        nodes,
    };
    let planned = context
        .store
        .run("plan a run", WRITE_DEADLINE, async |conn| store::runs::plan(conn, &run).await)
        .await
        .map_err(|source| Error::Start { key: run.key.clone(), source })?;
    if planned.inserted {
        context.metrics.run_started(&key);
        tracing::info!(
            scan.name = run.scan_name,
            run.id = planned.id,
            run.key = run.key,
            nodes = run.nodes.len(),
            "run started"
        );
    }
    Ok(())
}

async fn take_steps(context: &Context, run: i64, steps: Vec<Step>) -> Result<(), Error> {
    let mut changes = Vec::new();
    for step in steps {
        match step {
            Step::Offer { job, pod_uid, address } => {
                let offer = Offer {
                    v: 1,
                    job: job.id,
                    ticket: job.ticket,
                    node_name: job.node,
                    node_uid: job.node_uid,
                    pod_uid,
                };
                context.dispatcher.offer(run, offer, address);
            }
            Step::Miss { ticket, problem } => context.dispatcher.miss(run, ticket, problem),
            change @ (Step::Retire { .. } | Step::End { .. }) => changes.push(change),
        }
    }
    if changes.is_empty() {
        return Ok(());
    }
    context
        .store
        .run("change jobs", WRITE_DEADLINE, async |conn| {
            for change in &changes {
                change_job(context, conn, change).await?;
            }
            Ok(())
        })
        .await
        .map_err(|source| Error::Jobs { operation: "change the jobs", run, source })
}

async fn change_job(context: &Context, conn: &mut sqlx::PgConnection, change: &Step) -> sqlx::Result<()> {
    match change {
        Step::Retire { job, ticket, max_attempts } => {
            if store::jobs::re_ticket(conn, *job, *ticket, *max_attempts).await? {
                context.metrics.lease_expired();
                tracing::warn!(job.id = job, "the agent stopped renewing its lease: the job got a new ticket");
            }
        }
        Step::End { job, ticket, ending, problem } => {
            let reason = problem.reason.as_str();
            let ended = store::jobs::end(conn, *job, *ticket, *ending, reason, &problem.message).await?;
            if ended {
                tracing::warn!(job.id = job, reason, "job ended without a result: {}", problem.message);
            }
        }
        Step::Offer { .. } | Step::Miss { .. } => {}
    }
    Ok(())
}

async fn end_run(context: &Context, run: i64, finish: Finish) -> Result<(), Error> {
    match finish {
        Finish::AllEnded => judge_run(context, run, false).await,
        Finish::Deadline => judge_run(context, run, true).await,
        Finish::Cancel(reason) => cancel_run(context, run, reason).await,
    }
}

async fn cancel_run(context: &Context, run: i64, reason: CancelReason) -> Result<(), Error> {
    let cancelled = context
        .store
        .run("cancel a run", WRITE_DEADLINE, async |conn| store::runs::cancel(conn, &[run], reason).await)
        .await
        .map_err(|source| Error::Finish { run, source })?;
    if !cancelled.is_empty() {
        tracing::info!(run.id = run, reason = reason.as_str(), "run cancelled");
        context.run_ended(RunResult::Cancelled);
    }
    Ok(())
}

/// Ends what is open and judges by the counts of the same transaction: a job completed a moment ago still counts.
pub async fn judge_run(context: &Context, run: i64, deadline_passed: bool) -> Result<(), Error> {
    let (result, reason, won) = context
        .store
        .transaction("end a run", WRITE_DEADLINE, async |conn| {
            if deadline_passed {
                store::jobs::end_open(conn, run).await?;
            }
            let progress = store::runs::progress(conn, run).await?;
            let (result, reason) = conclude(progress.nodes, progress.without_docker, deadline_passed);
            let won = store::runs::finish(conn, run, result, reason).await?;
            Ok((result, reason, won))
        })
        .await
        .map_err(|source| Error::Finish { run, source })?;
    if won {
        tracing::info!(run.id = run, result = result.as_str(), reason, "run ended");
        context.run_ended(result);
    }
    Ok(())
}

/// Deletes this scan and no other of its name, as it was seen: one that was edited meanwhile is looked at again first.
async fn delete_scan(context: &Context, scan: &VolumeScan) -> Result<(), Error> {
    let name = scan.name_any();
    let scans: Api<VolumeScan> = Api::all(context.client.clone());
    let preconditions = Preconditions { uid: scan.uid(), resource_version: scan.resource_version() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match tokio::time::timeout(WRITE_DEADLINE, scans.delete(&name, &params)).await {
        Ok(Ok(_)) => tracing::info!(scan.name = name, "deleted a scan that outlived ttlSecondsAfterFinished"),
        Ok(Err(kube::Error::Api(answer))) if answer.is_not_found() || answer.is_conflict() => {}
        Ok(Err(source)) => return Err(Error::Delete { name, source: Box::new(source) }),
        Err(_) => return Err(Error::DeleteTimeout { name }),
    }
    Ok(())
}
