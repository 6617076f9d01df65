//! Who may read: a bearer token that Kubernetes knows (TokenReview), and the right to `get` the path (SubjectAccessReview).
//!
//! The path that is asked for begins with `/volumeviz`: every authenticated user may get `/api/*` of Kubernetes itself, by the ClusterRole
//! `system:discovery`, and would be let in.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::problem::Problem;

/// Before every path in RBAC.
pub const RBAC_PREFIX: &str = "/volumeviz";
/// How long a decision holds: a right that was taken away is gone after this.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Decisions remembered; a flood of tokens must not fill the memory.
const MOST_REMEMBERED: usize = 1024;
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// Reviews asked for at a time: made-up tokens must not become a flood at the API server.
const REVIEWS_AT_A_TIME: usize = 16;

type Fingerprint = [u8; 32];
type Decision = Result<(), Problem>;

/// Asks Kubernetes, and remembers for a moment.
pub struct Access {
    client: Client,
    turns: Semaphore,
    decisions: Mutex<HashMap<Fingerprint, (Instant, Decision)>>,
}

impl Access {
    /// Asks through this client, which may create TokenReviews and SubjectAccessReviews.
    pub fn new(client: Client) -> Self {
        Self { client, turns: Semaphore::new(REVIEWS_AT_A_TIME), decisions: Mutex::default() }
    }

    /// Whether whoever sent these headers may get this path.
    pub(super) async fn check(&self, headers: &HeaderMap, path: &str) -> Result<(), Problem> {
        let token = bearer(headers).ok_or_else(unauthorized)?;
        let fingerprint = Sha256::new().chain_update(token).chain_update([0]).chain_update(path).finalize().into();
        if let Some(decision) = self.remembered(&fingerprint) {
            return decision;
        }
        let late = |_| unavailable(format!("Kubernetes did not judge the token within {REVIEW_TIMEOUT:?}"));
        // That Kubernetes is away is no decision, and not remembered.
        let reviewing = async {
            let _turn = self.turns.acquire().await;
            self.decide(token, path).await
        };
        let decision = timeout(REVIEW_TIMEOUT, reviewing).await.map_err(late)??;
        self.remember(fingerprint, decision.clone());
        decision
    }

    /// The decision, or why there is none.
    async fn decide(&self, token: &str, path: &str) -> Result<Decision, Problem> {
        let Some(user) = self.authenticate(token).await? else { return Ok(Err(unauthorized())) };
        let spec = SubjectAccessReviewSpec {
            user: user.username.clone(),
            uid: user.uid,
            groups: user.groups,
            extra: user.extra,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some(format!("{RBAC_PREFIX}{path}")),
                verb: Some("get".to_owned()),
            }),
            ..SubjectAccessReviewSpec::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answer = reviews.create(&PostParams::default(), &review).await.map_err(|error| {
            unavailable(format!("failed to ask Kubernetes for the rights of the token's user: {error}"))
        })?;
        if answer.status.is_some_and(|status| status.allowed) {
            return Ok(Ok(()));
        }
        let name = user.username.unwrap_or_default();
        let detail = format!("{name:?} may not get the non-resource URL {RBAC_PREFIX}{path}");
        Ok(Err(Problem::new(StatusCode::FORBIDDEN, "Forbidden", detail)))
    }

    async fn authenticate(&self, token: &str) -> Result<Option<UserInfo>, Problem> {
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let spec = TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| unavailable(format!("failed to ask Kubernetes whose the token is: {error}")))?;
        let status = answer.status.unwrap_or_default();
        Ok(status.user.filter(|_| status.authenticated == Some(true)))
    }

    fn remembered(&self, fingerprint: &Fingerprint) -> Option<Decision> {
        let decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        decisions.get(fingerprint).filter(|(at, _)| at.elapsed() < REMEMBERED).map(|(_, decision)| decision.clone())
    }

    fn remember(&self, fingerprint: Fingerprint, decision: Decision) {
        let mut decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        if decisions.len() >= MOST_REMEMBERED {
            decisions.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
        }
        if decisions.len() < MOST_REMEMBERED {
            decisions.insert(fingerprint, (Instant::now(), decision));
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn unauthorized() -> Problem {
    let detail = "give a bearer token that Kubernetes knows, e.g. of `kubectl create token`";
    Problem::new(StatusCode::UNAUTHORIZED, "Unauthorized", detail)
}

fn unavailable(detail: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "KubernetesUnavailable", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_token_is_a_token() {
        let of = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, header::HeaderValue::from_static(value))]);
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("Basic abc"), None);
        assert_eq!(of("Bearer "), None);
        assert_eq!(of("abc"), None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
