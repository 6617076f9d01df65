//! `/api/v1/alerts`.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::params::{self, Params};
use super::problem::Problem;
use super::{Api, DEFAULT_LIMIT, Page, page};
use crate::store::alerts::{self, AlertRow};

/// Which states, which page.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// The VolumeAlert.
    alert: Option<String>,
    /// Pending or firing; or over.
    open: Option<bool>,
    /// Rows on the page, 1 to 500.
    #[param(default = 100, minimum = 1, maximum = 500)]
    #[serde(deserialize_with = "params::rows")]
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// The states of alerts' subjects, open or over, newest first.
#[utoipa::path(get, path = "/api/v1/alerts", tag = "alerts", params(ListParams),
    responses((status = 200, body = Page<AlertRow>), (status = 400, body = Problem), (status = "default", body = Problem)), security(("bearer" = [])))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<AlertRow>>, Problem> {
    let ListParams { alert, open, limit, cursor } = params;
    let (limit, before) = (limit.unwrap_or(DEFAULT_LIMIT), params::number(cursor.as_deref(), i64::MAX)?);
    let read =
        api.read("list alerts", async move |conn| alerts::list(conn, alert.as_deref(), open, before, limit + 1).await);
    Ok(Json(page(read.await?, limit, |alert| alert.id.to_string())))
}
