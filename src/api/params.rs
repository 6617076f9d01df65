//! Query and path parameters, refused with the name of the one that is wrong.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

use super::problem::Problem;
use super::{DEFAULT_LIMIT, MAX_LIMIT};

/// The query of a request; parameters it does not know are refused, and lists are given by repeating a parameter.
pub(super) struct Params<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parse(parts.uri.query().unwrap_or_default()).map(Params)
    }
}

/// Reads a query.
pub(super) fn parse<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let query = serde_html_form::Deserializer::from_bytes(query.as_bytes());
    serde_path_to_error::deserialize(query).map_err(|error| Problem::invalid(error.to_string()))
}

/// A page of a list in its only order.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// Rows on the page, 1 to 500.
    #[param(default = 100, minimum = 1, maximum = 500)]
    #[serde(deserialize_with = "rows")]
    limit: Option<i64>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

impl PageParams {
    pub(super) fn limit(&self) -> i64 {
        self.limit.unwrap_or(DEFAULT_LIMIT)
    }

    /// See [`number`].
    pub(super) fn number(&self, first: i64) -> Result<i64, Problem> {
        number(self.cursor.as_deref(), first)
    }
}

/// A cursor that is a number; `first` without one.
pub(super) fn number(cursor: Option<&str>, first: i64) -> Result<i64, Problem> {
    let Some(cursor) = cursor else { return Ok(first) };
    cursor.parse().map_err(|_| Problem::invalid(format!("cursor: {cursor:?} is none of this list")))
}

/// How many rows a page may have.
pub(super) fn rows<'de, D: Deserializer<'de>>(value: D) -> Result<Option<i64>, D::Error> {
    let within = |rows: &i64| (1..=MAX_LIMIT).contains(rows);
    parsed(value, &format!("a whole number from 1 to {MAX_LIMIT}"), |text| text.parse().ok().filter(within))
}

/// A number of bytes, or of rows.
pub(super) fn count<'de, D: Deserializer<'de>>(value: D) -> Result<Option<i64>, D::Error> {
    parsed(value, "a whole number, 0 or more", |text| text.parse().ok().filter(|count| *count >= 0))
}

pub(super) fn time<'de, D: Deserializer<'de>>(value: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    parsed(value, "a time such as 2026-01-31T12:00:00Z", |text| text.parse().ok())
}

/// The value of a parameter, unless it is empty; the error says what it may be.
fn parsed<'de, D: Deserializer<'de>, T>(
    value: D,
    allowed: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, D::Error> {
    let Some(text) = Option::<String>::deserialize(value)? else { return Ok(None) };
    parse(&text).map(Some).ok_or_else(|| D::Error::custom(format!("{text:?} is not {allowed}")))
}

/// The number in a path; one that is none names nothing.
pub(super) fn id(what: &str, text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| Problem::not_found(what, text))
}
