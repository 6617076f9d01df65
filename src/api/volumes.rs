//! `/api/v1/volumes` and what hangs on one.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use super::params::{self, PageParams, Params};
use super::problem::Problem;
use super::{Api, DEFAULT_LIMIT, Page};
use crate::domain::growth::full_in_days;
use crate::store::containers::{self, Attachment};
use crate::store::filter::VolumeFilter;
use crate::store::page::{Direction, VolumeList, VolumeSort};
use crate::store::sizes::{self, Resolution, SizePoint};
use crate::store::volumes::{self, Volume};
use crate::store::{Labels, page};

/// Which volumes, in which order, which page.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Docker's name; `*` stands for any characters, `?` for one.
    name: Option<String>,
    /// The node.
    node: Option<String>,
    /// Docker's driver.
    driver: Option<String>,
    /// `KEY=VALUE`, among its Docker labels; repeat it for several, which must all match.
    label: Vec<String>,
    /// Mounted by a running container.
    active: Option<bool>,
    /// Held by no container, running or stopped.
    orphaned: Option<bool>,
    /// Named by Docker, not by a person.
    anonymous: Option<bool>,
    /// Last known size, at least.
    #[serde(deserialize_with = "params::count")]
    min_bytes: Option<i64>,
    /// Last known size, at most.
    #[serde(deserialize_with = "params::count")]
    max_bytes: Option<i64>,
    /// Measured last before this time, or never.
    #[serde(deserialize_with = "params::time")]
    scanned_before: Option<DateTime<Utc>>,
    /// Measured last at this time or later.
    #[serde(deserialize_with = "params::time")]
    scanned_after: Option<DateTime<Utc>>,
    /// What to sort by; what is unknown comes last.
    sort: VolumeSort,
    /// Which end first.
    direction: Direction,
    /// Rows on the page, 1 to 500.
    #[param(default = 100, minimum = 1, maximum = 500)]
    #[serde(deserialize_with = "params::rows")]
    limit: Option<i64>,
    /// Rows to skip; the total is counted. Not with `cursor`.
    #[serde(deserialize_with = "params::count")]
    offset: Option<i64>,
    /// `next` of the page before, with the same sort, direction and filter.
    cursor: Option<String>,
    /// Whether to count the total.
    count: bool,
}

/// What a query of the list asks for: which volumes, in which order, which page.
pub fn asked(query: &str) -> Result<(VolumeList, page::Page), Problem> {
    params::parse::<ListParams>(query)?.parse()
}

impl ListParams {
    fn parse(self) -> Result<(VolumeList, page::Page), Problem> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        let labels = self.label.iter().map(|label| {
            let (key, value) =
                label.split_once('=').ok_or_else(|| Problem::invalid(format!("label: {label:?} is not KEY=VALUE")))?;
            Ok((key.to_owned(), value.to_owned()))
        });
        let filter = VolumeFilter {
            name: self.name,
            node: self.node,
            driver: self.driver,
            labels: Labels(labels.collect::<Result<_, Problem>>()?),
            is_active: self.active,
            orphaned: self.orphaned,
            anonymous: self.anonymous,
            min_bytes: self.min_bytes,
            max_bytes: self.max_bytes,
            scanned_before: self.scanned_before,
            scanned_after: self.scanned_after,
        };
        let list = VolumeList { filter, sort: self.sort, direction: self.direction };
        let page = match (self.offset, self.cursor) {
            (Some(_), Some(_)) => return Err(Problem::invalid("offset, cursor: give one of them")),
            (Some(offset), None) => page::Page::Offset { limit, offset },
            (None, Some(cursor)) => {
                let cursor = list.decode(&cursor).map_err(|error| Problem::invalid(format!("cursor: {error}")))?;
                page::Page::After { limit, cursor: Some(cursor), count: self.count }
            }
            (None, None) => page::Page::After { limit, cursor: None, count: self.count },
        };
        Ok((list, page))
    }
}

/// A volume and what follows from its growth.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct VolumeDetail {
    #[serde(flatten)]
    volume: Volume,
    /// Days until its file system is full, if this volume goes on growing like this and nothing else changes; absent when it does not grow.
    full_in_days: Option<f64>,
}

/// Which part of a history.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct SizesParams {
    /// From when on; 7 days before `to` unless given.
    #[serde(deserialize_with = "params::time")]
    from: Option<DateTime<Utc>>,
    /// Until before when; now unless given.
    #[serde(deserialize_with = "params::time")]
    to: Option<DateTime<Utc>>,
    /// How fine.
    resolution: Resolution,
    /// Points, 1 to 500.
    #[param(default = 100, minimum = 1, maximum = 500)]
    #[serde(deserialize_with = "params::rows")]
    limit: Option<i64>,
    /// `next` of the page before; `from` and `resolution` are then that page's.
    cursor: Option<String>,
}

/// Sizes of a volume over time, oldest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Sizes {
    /// `raw` or `daily`.
    resolution: Resolution,
    /// The points.
    items: Vec<SizePoint>,
    /// Give it as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The volumes that are there.
#[utoipa::path(get, path = "/api/v1/volumes", tag = "volumes", params(ListParams),
    responses((status = 200, body = Page<Volume>), (status = 400, body = Problem), (status = "default", body = Problem)), security(("bearer" = [])))]
pub(super) async fn list(State(api): State<Api>, RawQuery(query): RawQuery) -> Result<Json<Page<Volume>>, Problem> {
    let (list, page) = asked(query.as_deref().unwrap_or_default())?;
    let read = api.read("list volumes", async move |conn| volumes::list(conn, &list, &page).await);
    let volumes::Volumes { rows, total, next } = read.await?;
    Ok(Json(Page { items: rows, total, next }))
}

/// One volume, also one that is gone.
#[utoipa::path(get, path = "/api/v1/volumes/{id}", tag = "volumes", params(("id" = i64, Path, description = "id of the volume")),
    responses((status = 200, body = VolumeDetail), (status = 404, body = Problem), (status = "default", body = Problem)), security(("bearer" = [])))]
pub(super) async fn get(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<VolumeDetail>, Problem> {
    let id = params::id("volume", &id)?;
    let volume = api.read("read a volume", async move |conn| volumes::get(conn, id).await).await?;
    let full_in_days = full_in_days(volume.available_bytes, volume.growth_bytes_per_day);
    Ok(Json(VolumeDetail { volume, full_in_days }))
}

/// Sizes over time.
#[utoipa::path(get, path = "/api/v1/volumes/{id}/sizes", tag = "volumes", params(("id" = i64, Path, description = "id of the volume"), SizesParams),
    responses((status = 200, body = Sizes), (status = 404, body = Problem), (status = "default", body = Problem)), security(("bearer" = [])))]
pub(super) async fn sizes(
    State(api): State<Api>,
    Path(id): Path<String>,
    Params(params): Params<SizesParams>,
) -> Result<Json<Sizes>, Problem> {
    let (id, limit) = (params::id("volume", &id)?, params.limit.unwrap_or(DEFAULT_LIMIT));
    let to = params.to.unwrap_or_else(Utc::now);
    let from = params.from.unwrap_or_else(|| to.checked_sub_signed(Duration::days(7)).unwrap_or(to));
    if from > to {
        return Err(Problem::invalid("from: is after to"));
    }
    let cursor = params.cursor.map(|cursor| sizes::Cursor::decode(&cursor, id, params.resolution)).transpose();
    let after = cursor.map_err(|error| Problem::invalid(format!("cursor: {error}")))?;
    let range = sizes::Range { from, to, resolution: params.resolution, after };
    let read = api.read("read the sizes of a volume", async move |conn| {
        volumes::get(conn, id).await?;
        sizes::history(conn, id, &range, limit).await
    });
    let sizes::History { resolution, points, next } = read.await?;
    Ok(Json(Sizes { resolution, items: points, next }))
}

/// Who mounts it, or did: those that are there first, then newest first.
#[utoipa::path(get, path = "/api/v1/volumes/{id}/containers", tag = "volumes", params(("id" = i64, Path, description = "id of the volume"), PageParams),
    responses((status = 200, body = Page<Attachment>), (status = 404, body = Problem), (status = "default", body = Problem)), security(("bearer" = [])))]
pub(super) async fn containers(
    State(api): State<Api>,
    Path(id): Path<String>,
    Params(params): Params<PageParams>,
) -> Result<Json<Page<Attachment>>, Problem> {
    let (id, limit) = (params::id("volume", &id)?, params.limit());
    let cursor = params.cursor.map(|cursor| containers::Cursor::decode(&cursor, id)).transpose();
    let after = cursor.map_err(|error| Problem::invalid(format!("cursor: {error}")))?;
    let read = api.read("read the containers of a volume", async move |conn| {
        volumes::get(conn, id).await?;
        containers::of_volume(conn, id, after.as_ref(), limit + 1).await
    });
    Ok(Json(super::page(read.await?, limit, |attachment: &Attachment| attachment.cursor(id))))
}
