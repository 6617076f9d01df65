//! Names that want to do harm: what is answered is JSON that says what was stored, whatever it is.

use serde_json::json;

use super::hostile::{TEXTS, harm_in};
use super::*;

fn encoded(text: &str) -> String {
    let digits = text.bytes().map(|byte| format!("%{byte:02X}"));
    digits.collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn names_and_labels_come_back_as_they_were_stored() {
    let database = Database::new().await;
    let texts: Vec<String> = TEXTS.iter().map(|text| text.replace('\0', "")).filter(|text| !text.is_empty()).collect();
    let mut superuser = database.superuser().await;
    for text in &texts {
        let volume = "INSERT INTO volumes (volume_id, node, name, driver, mountpoint, labels, options, origin)
            VALUES ($1 || '/' || $1, $1, $1, $1, $1, jsonb_build_object($1::text, $1::text), jsonb_build_object($1::text, $1::text), jsonb_build_object('image', $1::text))";
        sqlx::query(volume).bind(text).execute(&mut **superuser).await.unwrap();
        let node = "INSERT INTO nodes (name, uid, has_engine, engine_version) VALUES ($1, $1, true, $1)";
        sqlx::query(node).bind(text).execute(&mut **superuser).await.unwrap();
    }
    let served = Served::over(&database, &[]).await;
    let page = served.ok("/api/v1/volumes?limit=500").await;
    let volumes = page["items"].as_array().unwrap();
    assert_eq!(volumes.len(), texts.len());
    let nodes = served.ok("/api/v1/nodes?limit=500").await;
    for text in &texts {
        let volume = volumes.iter().find(|volume| volume["name"] == *text).expect(text);
        let labels = json!({ text.as_str(): text });
        assert_eq!(
            (&volume["node"], &volume["driver"], &volume["mountpoint"]),
            (&json!(text), &json!(text), &json!(text))
        );
        assert_eq!(
            (&volume["labels"], &volume["options"], &volume["origin"]),
            (&labels, &labels, &json!({"image": text}))
        );
        assert_eq!(served.ok(&format!("/api/v1/volumes/{}", volume["id"])).await["name"], *text);
        assert!(nodes["items"].as_array().unwrap().iter().any(|node| node["name"] == *text));
        // As cursors of pages of one.
        let (mut path, mut seen) = ("/api/v1/volumes?limit=1".to_owned(), 0);
        if text == &texts[0] {
            loop {
                let page = served.ok(&path).await;
                seen += page["items"].as_array().unwrap().len();
                let Some(next) = page["next"].as_str() else { break };
                path = format!("/api/v1/volumes?limit=1&cursor={}", encoded(next));
            }
            assert_eq!(seen, texts.len());
        }
    }
}

#[tokio::test]
async fn a_problem_repeats_what_was_asked_for_as_data() {
    let database = Database::new().await;
    let served = Served::over(&database, &[]).await;
    for text in TEXTS.iter().filter(|text| !matches!(**text, "" | "." | "..")) {
        let asked = encoded(text);
        for (path, status, detail) in [
            (format!("/api/v1/volumes/{asked}"), 404, Some(format!("there is no volume {text:?}"))),
            (format!("/api/{asked}"), 404, Some(format!("there is no path {:?}", format!("/api/{text}")))),
            (format!("/api/v1/volumes?limit={asked}"), 400, None),
            (format!("/api/v1/volumes?cursor={asked}"), 400, None),
            (format!("/api/v1/volumes?{asked}=1"), 400, None),
        ] {
            let answer = served.get(&path).await;
            assert_eq!(answer.media_type, "application/problem+json", "{path}");
            assert_eq!((answer.status, &answer.body["status"]), (status, &json!(status)), "{path}: {answer:?}");
            assert_eq!(harm_in(&answer.body), [""; 0], "{path}");
            if let Some(detail) = detail {
                assert_eq!(answer.body["detail"], detail, "{path}");
            }
        }
        // PostgreSQL has no NUL in text.
        let status = if text.contains('\0') { 400 } else { 200 };
        let filtered = served.get(&format!("/api/v1/volumes?node={asked}&label={asked}%3D{asked}")).await;
        assert_eq!(filtered.status, status, "{filtered:?}");
    }
}
