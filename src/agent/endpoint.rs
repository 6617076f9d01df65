//! `POST /v1/jobs`: the controller offers a ticket, the agent claims it from the database before it answers.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};

use super::{Agent, Claimed};
use crate::domain::dispatch::{Answer, MAX_BODY_BYTES, Offer, PATH};

/// How long an offer may take to come, which is a packet.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The endpoint.
pub fn router(agent: Arc<Agent>) -> Router {
    Router::new().route(PATH, post(offered)).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).with_state(agent)
}

async fn offered(State(agent): State<Arc<Agent>>, request: Request) -> Response {
    let body = match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => body,
        Ok(Err(refused)) => return refused.into_response(),
        Err(_) => {
            let message = format!("the offer did not come within {BODY_TIMEOUT:?}");
            return answer(StatusCode::REQUEST_TIMEOUT, "InvalidOffer", message);
        }
    };
    let offer = match serde_json::from_slice::<Offer>(&body) {
        Ok(offer) if offer.v == 1 => offer,
        Ok(offer) => {
            return answer(StatusCode::BAD_REQUEST, "InvalidOffer", format!("version {} is not known", offer.v));
        }
        Err(error) => return answer(StatusCode::BAD_REQUEST, "InvalidOffer", error.to_string()),
    };
    // A task of its own: when the controller hangs up, this handler is dropped, and a claim must not be dropped halfway.
    match tokio::spawn(agent.take(offer)).await {
        Ok(claimed) => claimed.into_response(),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, "Internal", error.to_string()),
    }
}

impl IntoResponse for Claimed {
    fn into_response(self) -> Response {
        match self {
            Self::Claimed => answer(StatusCode::OK, "Claimed", "the job is being worked on".to_owned()),
            Self::Fenced => {
                answer(StatusCode::CONFLICT, "Fenced", "the ticket is not, or no longer, to be had".to_owned())
            }
            Self::WrongPod { message } => answer(StatusCode::MISDIRECTED_REQUEST, "WrongPod", message),
            Self::Busy => answer(StatusCode::TOO_MANY_REQUESTS, "Busy", "the agent works on another job".to_owned()),
            Self::Refused { refusal, message } => answer(StatusCode::SERVICE_UNAVAILABLE, refusal.as_str(), message),
        }
    }
}

fn answer(status: StatusCode, reason: &str, message: String) -> Response {
    (status, Json(Answer { reason: reason.to_owned(), message })).into_response()
}
