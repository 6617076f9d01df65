//! The controller's HTTP API: read-only JSON over what the database knows, for whoever Kubernetes says may read it.
//!
//! Every replica serves it. A request is bounded in rows, in time (by the server as well), and in how many are answered at once; a client
//! that goes away leaves its query to end on a task of its own, since giving up a query half way would cost its connection.

mod access;
mod alerts;
mod database;
mod nodes;
mod params;
mod problem;
mod scans;
pub mod volumes;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde::Serialize;
use sqlx::PgConnection;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use self::access::{Access, RBAC_PREFIX};
pub use self::problem::Problem;
use crate::store::Store;

/// Rows on a page, at most.
const MAX_LIMIT: i64 = 500;
/// Rows on a page unless asked otherwise.
const DEFAULT_LIMIT: i64 = 100;
/// Requests answered at a time, at most; and never more than half of the pool's connections, which reconcilers need as well.
const AT_A_TIME: u32 = 8;
/// How long a request may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longer than the server's own limit below, which leaves the connection usable.
const DEADLINE: Duration = Duration::from_secs(8);

/// What handlers share.
#[derive(Clone)]
pub struct Api {
    store: Store,
    access: Arc<Access>,
    problem: DatabaseProblem,
    turns: Arc<Semaphore>,
}

/// The database's problem as it was seen last, reason and message.
pub type DatabaseProblem = Arc<dyn Fn() -> Option<(&'static str, String)> + Send + Sync>;

/// A page of a list.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(crate) struct Page<T> {
    /// The rows.
    items: Vec<T>,
    /// Rows on all pages, where they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<i64>,
    /// Give it as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "VolumeViz",
    description = "What is in the Docker volumes of every node. Authentication by a Kubernetes bearer token; authorisation by the verb \
                   `get` on the non-resource URL `/volumeviz` + path."
))]
struct Document;

impl Api {
    /// Serves what `store` holds to whom `access` lets in.
    pub fn new(store: Store, access: Access, problem: DatabaseProblem) -> Self {
        let at_a_time = (store.most_connections() / 2).clamp(1, AT_A_TIME) as usize;
        Self { store, access: Arc::new(access), problem, turns: Arc::new(Semaphore::new(at_a_time)) }
    }

    /// Every path below `/api/v1`.
    pub fn router(self) -> Router {
        let (router, mut document) = documented();
        let components = document.components.get_or_insert_default();
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("bearer", scheme);
        let document = serde_json::json!(document).to_string();
        router
            .route_layer(middleware::from_fn_with_state(self.clone(), guard))
            .route("/api/v1/openapi.json", get(async move || ([("content-type", "application/json")], document)))
            .method_not_allowed_fallback(async || {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "everything here is read by GET")
            })
            .route(
                "/api/{*path}",
                any(async |Path(path): Path<String>| Problem::not_found("path", &format!("/api/{path}"))),
            )
            .with_state(self)
    }

    /// Reads what belongs together from one snapshot; the server itself gives a query up in time.
    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        // Kept by the query, not by the request, whose client may have gone.
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            let detail = "as many requests as this replica takes are being answered; try again";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", detail));
        };
        let store = self.store.clone();
        // On a thread of its own, since the future of an async closure cannot be said to be Send.
        let reading = move || {
            let _turn = turn;
            Handle::current().block_on(store.snapshot(operation, DEADLINE, async |conn| {
                sqlx::raw_sql("SET LOCAL statement_timeout = '5s'").execute(&mut *conn).await?;
                act(conn).await
            }))
        };
        match tokio::task::spawn_blocking(reading).await {
            Ok(read) => Ok(read?),
            Err(error) => Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Failed",
                format!("unable to {operation}: {error}"),
            )),
        }
    }
}

/// Every documented path, and the document.
fn documented() -> (Router<Api>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(database::health))
        .routes(routes!(database::migrations))
        .routes(routes!(database::stats))
        .routes(routes!(nodes::list))
        .routes(routes!(volumes::list))
        .routes(routes!(volumes::get))
        .routes(routes!(volumes::sizes))
        .routes(routes!(volumes::containers))
        .routes(routes!(scans::runs))
        .routes(routes!(scans::run))
        .routes(routes!(scans::results))
        .routes(routes!(alerts::list))
        .split_for_parts()
}

/// Lets in whom Kubernetes lets in.
async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    if let Err(problem) = api.access.check(request.headers(), request.uri().path()).await {
        return problem.into_response();
    }
    next.run(request).await
}

/// Cuts a list that was read with one row more than its page has.
fn page<T>(mut items: Vec<T>, limit: i64, cursor: impl Fn(&T) -> String) -> Page<T> {
    let limit = usize::try_from(limit).unwrap_or_default();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(cursor) } else { None };
    Page { items, total: None, next }
}
