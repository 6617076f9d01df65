//! The controller's HTTP API on a real PostgreSQL, with tokens and rights of a real kube-apiserver.
//!
//! Run by `tests/with-postgres tests/with-apiserver`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_stack_arrays,
    reason = "a test fails by panicking"
)]

mod access;
#[allow(dead_code, reason = "the store's tests use all of it")]
#[path = "../store/database.rs"]
mod database;
mod endpoints;
#[path = "../kit/hostile.rs"]
mod hostile;
mod limits;
mod names;

use std::sync::Arc;
use std::time::{Duration, Instant};

use database::Database;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::Value;
use uuid::Uuid;
use volumeviz::api::{self, Access};
use volumeviz::config::database::Role;
use volumeviz::http;
use volumeviz::store::Store;

/// A served API, and the token of somebody who may read it.
struct Served {
    url: String,
    token: String,
    kubernetes: Client,
}

/// An answer: status, media type, body.
#[derive(Debug)]
struct Answer {
    status: u16,
    media_type: String,
    body: Value,
}

impl Served {
    /// Over this database; `more` are options of the connection.
    async fn over(database: &Database, more: &[&str]) -> Self {
        Self::with(database::args(database::CONTROLLER, &database.name, more), || None).await
    }

    async fn with(
        args: volumeviz::config::database::DatabaseArgs,
        problem: fn() -> Option<(&'static str, String)>,
    ) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let kubernetes = Client::try_default().await.expect("KUBECONFIG: run by tests/with-apiserver");
        let store = Store::connect_lazy(&args, Role::Controller).unwrap();
        let api = api::Api::new(store, Access::new(kubernetes.clone()), Arc::new(problem));
        let listener = http::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(http::serve(listener, api.router()));
        let (token, _) = reader(&kubernetes).await;
        Self { url, token, kubernetes }
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_as(Some(&self.token), path).await
    }

    async fn get_as(&self, token: Option<&str>, path: &str) -> Answer {
        let mut request = reqwest::Client::new().get(format!("{}{path}", self.url)).timeout(Duration::from_secs(30));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.unwrap();
        let media_type = response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
        Answer {
            status: response.status().as_u16(),
            media_type: media_type.unwrap_or_default(),
            body: response.json().await.unwrap(),
        }
    }

    /// The body of an answer that must be there.
    async fn ok(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }
}

/// A token of a new service account.
async fn somebody(kubernetes: &Client) -> (String, String) {
    let name = format!("somebody-{}", Uuid::new_v4());
    let accounts: Api<ServiceAccount> = Api::namespaced(kubernetes.clone(), "default");
    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
    accounts.create(&PostParams::default(), &ServiceAccount { metadata, ..ServiceAccount::default() }).await.unwrap();
    let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
    let token = accounts.create_token_request(&name, &PostParams::default(), &request).await.unwrap();
    (token.status.unwrap().token, name)
}

/// The API server learns of a binding a moment after it is there; what it answers before is remembered.
async fn has_the_right(kubernetes: &Client, account: &str) {
    let url = NonResourceAttributes {
        path: Some(format!("{}/api/v1/nodes", api::RBAC_PREFIX)),
        verb: Some("get".to_owned()),
    };
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:default:{account}")),
            non_resource_attributes: Some(url),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(kubernetes.clone());
    let until = Instant::now() + Duration::from_secs(20);
    while !reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed {
        assert!(Instant::now() < until, "{account} has no right");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The same with the rights of the chart's role for readers; returns its binding as well.
async fn reader(kubernetes: &Client) -> (String, String) {
    let (token, name) = somebody(kubernetes).await;
    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
    let role = ClusterRole {
        metadata: metadata.clone(),
        rules: Some(vec![PolicyRule {
            non_resource_urls: Some(vec![format!("{}/api/v1/*", api::RBAC_PREFIX)]),
            verbs: vec!["get".to_owned()],
            ..PolicyRule::default()
        }]),
        ..ClusterRole::default()
    };
    let roles: Api<ClusterRole> = Api::all(kubernetes.clone());
    roles.create(&PostParams::default(), &role).await.unwrap();
    let binding = ClusterRoleBinding {
        metadata,
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "ClusterRole".to_owned(),
            name: name.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: name.clone(),
            namespace: Some("default".to_owned()),
            ..Subject::default()
        }]),
    };
    let bindings: Api<ClusterRoleBinding> = Api::all(kubernetes.clone());
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    has_the_right(kubernetes, &name).await;
    (token, name)
}
