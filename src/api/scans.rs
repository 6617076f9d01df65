//! `/api/v1/scans/{name}/runs`, `/api/v1/runs/{id}` and its results.

use axum::Json;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::params::{self, PageParams, Params};
use super::problem::Problem;
use super::{Api, Page, page};
use crate::domain::run::{NodeCounts, RunResult};
use crate::domain::work::WorkOrder;
use crate::store::jobs::{self, Job};
use crate::store::results::{self, RunResultRow};
use crate::store::runs;

/// A run.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Run {
    /// `scan_runs.id`.
    id: i64,
    /// The VolumeScan's name.
    scan: String,
    /// What made it: `once`, `t:TRIGGER`, or `s:` and the time at which it was due.
    key: String,
    /// When it was planned.
    created_at: DateTime<Utc>,
    /// When it ends whatever has been measured.
    deadline: DateTime<Utc>,
    /// When it ended.
    completed_at: Option<DateTime<Utc>>,
    /// `Succeeded`, `Partial`, `Failed` or `Cancelled`.
    result: Option<&'static str>,
    /// Why.
    reason: Option<String>,
    /// Its nodes by state.
    nodes: NodeCounts,
}

impl From<runs::Run> for Run {
    fn from(run: runs::Run) -> Self {
        Self {
            id: run.id,
            scan: run.scan_name,
            key: run.key,
            created_at: run.created_at,
            deadline: run.deadline,
            completed_at: run.completed_at,
            result: run.result.map(RunResult::as_str),
            reason: run.reason,
            nodes: run.nodes,
        }
    }
}

/// A run with its snapshot of the spec and a page of its jobs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct RunDetail {
    #[serde(flatten)]
    run: Run,
    /// What agents were asked to do.
    #[schema(value_type = Object)]
    work: WorkOrder,
    /// One a node, by node.
    jobs: Page<Job>,
}

/// Runs of the scans that had this name, newest first.
#[utoipa::path(get, path = "/api/v1/scans/{name}/runs", tag = "scans", params(("name" = String, Path, description = "name of the VolumeScan"), PageParams),
    responses((status = 200, body = Page<Run>), (status = "default", body = Problem)), security(("bearer" = [])))]
pub(super) async fn runs(
    State(api): State<Api>,
    Path(name): Path<String>,
    Params(params): Params<PageParams>,
) -> Result<Json<Page<Run>>, Problem> {
    let (limit, before) = (params.limit(), params.number(i64::MAX)?);
    let read =
        api.read("list the runs of a scan", async move |conn| runs::of_name(conn, &name, before, limit + 1).await);
    let runs = read.await?.into_iter().map(Run::from).collect();
    Ok(Json(page(runs, limit, |run: &Run| run.id.to_string())))
}

/// A run with its jobs.
#[utoipa::path(get, path = "/api/v1/runs/{id}", tag = "scans", params(("id" = i64, Path, description = "id of the run"), PageParams),
    responses((status = 200, body = RunDetail), (status = 404, body = Problem), (status = "default", body = Problem)), security(("bearer" = [])))]
pub(super) async fn run(
    State(api): State<Api>,
    Path(id): Path<String>,
    Params(params): Params<PageParams>,
) -> Result<Json<RunDetail>, Problem> {
    let (id, limit) = (params::id("run", &id)?, params.limit());
    let after = params.cursor.unwrap_or_default();
    let read = api.read("read a run", async move |conn| {
        Ok((runs::get(conn, id).await?, jobs::of_run(conn, id, &after, limit + 1).await?))
    });
    let (run, jobs) = read.await?;
    let (work, jobs) = (run.work.clone(), page(jobs, limit, |job| job.node.clone()));
    Ok(Json(RunDetail { run: run.into(), work, jobs }))
}

/// What a run found, in the order in which it was reported.
#[utoipa::path(get, path = "/api/v1/runs/{id}/results", tag = "scans", params(("id" = i64, Path, description = "id of the run"), PageParams),
    responses((status = 200, body = Page<RunResultRow>), (status = 404, body = Problem), (status = "default", body = Problem)), security(("bearer" = [])))]
pub(super) async fn results(
    State(api): State<Api>,
    Path(id): Path<String>,
    Params(params): Params<PageParams>,
) -> Result<Json<Page<RunResultRow>>, Problem> {
    let (id, limit, after) = (params::id("run", &id)?, params.limit(), params.number(0)?);
    let read = api.read("read the results of a run", async move |conn| {
        runs::get(conn, id).await?;
        results::of_run(conn, id, after, limit + 1).await
    });
    Ok(Json(page(read.await?, limit, |result| result.id.to_string())))
}
