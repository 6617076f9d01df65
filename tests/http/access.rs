//! Who is let in.

use std::time::Instant;

use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Config;

use super::*;

#[tokio::test]
async fn without_a_known_token_nobody_is_let_in() {
    let database = Database::new().await;
    let served = Served::over(&database, &[]).await;
    for token in [None, Some("made-up"), Some("e30.e30.e30")] {
        let answer = served.get_as(token, "/api/v1/volumes").await;
        assert_eq!((answer.status, answer.media_type.as_str()), (401, "application/problem+json"), "{token:?}");
        assert_eq!(answer.body["reason"], "Unauthorized");
    }
    let response = reqwest::get(format!("{}/api/v1/volumes", served.url)).await.unwrap();
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
}

#[tokio::test]
async fn a_token_without_the_right_is_refused_with_the_right_it_lacks() {
    let database = Database::new().await;
    let served = Served::over(&database, &[]).await;
    let (token, name) = somebody(&served.kubernetes).await;
    // By system:discovery everybody may get /api/* of Kubernetes: our paths must not be mistaken for those.
    let mut config = Config::infer().await.unwrap();
    config.auth_info = kube::config::AuthInfo { token: Some(token.clone().into()), ..Default::default() };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(Client::try_from(config).unwrap());
    let attributes = NonResourceAttributes { path: Some("/api/v1/volumes".to_owned()), verb: Some("get".to_owned()) };
    let spec = SelfSubjectAccessReviewSpec {
        non_resource_attributes: Some(attributes),
        ..SelfSubjectAccessReviewSpec::default()
    };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let allowed = reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed;
    assert!(allowed, "the plain path is everybody's: else this test proves nothing");

    for path in
        ["/api/v1/volumes", "/api/v1/database/health", "/api/v1/runs/1/results", "/api/v1/alerts", "/api/v1/nothing"]
    {
        let answer = served.get_as(Some(&token), path).await;
        if path == "/api/v1/nothing" {
            assert_eq!(answer.status, 404, "there is nothing to guard");
            continue;
        }
        assert_eq!((answer.status, answer.body["reason"].as_str()), (403, Some("Forbidden")), "{path}");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(&name) && detail.contains(&format!("/volumeviz{path}")), "{detail}");
    }
    assert_eq!(served.get("/api/v1/volumes").await.status, 200);
}

#[tokio::test]
async fn a_right_that_is_taken_away_is_gone_soon() {
    let database = Database::new().await;
    let served = Served::over(&database, &[]).await;
    let (token, binding) = reader(&served.kubernetes).await;
    assert_eq!(served.get_as(Some(&token), "/api/v1/nodes").await.status, 200);
    let bindings: Api<ClusterRoleBinding> = Api::all(served.kubernetes.clone());
    bindings.delete(&binding, &kube::api::DeleteParams::default()).await.unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while served.get_as(Some(&token), "/api/v1/nodes").await.status != 403 {
        assert!(Instant::now() < until, "the right is remembered for long");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn the_document_is_for_everybody() {
    let database = Database::new().await;
    let served = Served::over(&database, &[]).await;
    let document = served.get_as(None, "/api/v1/openapi.json").await;
    assert_eq!(document.status, 200);
    let paths = document.body["paths"].as_object().unwrap();
    for (path, asked) in paths {
        assert_eq!(asked["get"]["security"][0]["bearer"], serde_json::json!([]), "{path}");
    }
    assert_eq!(paths.len(), 12);
    assert_eq!(document.body["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
}
