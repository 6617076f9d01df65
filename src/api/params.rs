//! Query and path parameters, refused with the name of the one that is wrong.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::{DEFAULT_LIMIT, MAX_LIMIT};

/// The query of a request; parameters it does not know are refused, and lists are given by repeating a parameter.
pub(super) struct Params<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        serde_html_form::from_str(query).map(Params).map_err(|error| Problem::invalid(error.to_string()))
    }
}

/// A page of a list in its only order.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// Rows on the page, 1 to 500.
    #[param(default = 100, minimum = 1, maximum = 500)]
    limit: Option<i64>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

impl PageParams {
    pub(super) fn limit(&self) -> Result<i64, Problem> {
        limit(self.limit)
    }

    /// A cursor that is a number; `first` without one.
    pub(super) fn number(&self, first: i64) -> Result<i64, Problem> {
        let Some(cursor) = &self.cursor else { return Ok(first) };
        cursor.parse().map_err(|_| Problem::invalid(format!("cursor: {cursor:?} is none of this list")))
    }
}

pub(super) fn limit(asked: Option<i64>) -> Result<i64, Problem> {
    match asked.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        other => Err(Problem::invalid(format!("limit: {other} is not from 1 to {MAX_LIMIT}"))),
    }
}

/// The number in a path; one that is none names nothing.
pub(super) fn id(what: &str, text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| Problem::not_found(what, text))
}
