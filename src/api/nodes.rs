//! `/api/v1/nodes`.

use axum::Json;
use axum::extract::State;

use super::params::{PageParams, Params};
use super::problem::Problem;
use super::{Api, Page, page};
use crate::store::nodes::{self, Node};

/// Nodes by name, with what is on them.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", params(PageParams),
    responses((status = 200, body = Page<Node>), (status = "default", body = Problem)), security(("bearer" = [])))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<PageParams>,
) -> Result<Json<Page<Node>>, Problem> {
    let limit = params.limit();
    let after = params.cursor.unwrap_or_default();
    let nodes = api.read("list nodes", async move |conn| nodes::list(conn, &after, limit + 1).await).await?;
    Ok(Json(page(nodes, limit, |node| node.name.clone())))
}
