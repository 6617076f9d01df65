//! `volumeviz migrate` and `volumeviz audit` as an admin runs them: what they print, and their exit codes.

use std::process::Command;

use volumeviz::migrate;

use super::hostile_texts::{TEXTS, harm};
use super::*;

/// Exit code, standard output, standard error.
fn volumeviz(database: &Database, login: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_volumeviz"))
        .args(args)
        .env("DB_HOST", "127.0.0.1")
        .env("DB_PORT", database::port().to_string())
        .env("DB_USER", login)
        .env("DB_PASSWORD", database::variable("TEST_PG_PASSWORD"))
        .env("DB_NAME", &database.name)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn owner(database: &Database, args: &[&str]) -> (Option<i32>, String, String) {
    volumeviz(database, database::OWNER, args)
}

#[tokio::test]
async fn up_status_down_and_up_again() {
    let database = Database::bare().await;
    let (code, out, err) = owner(&database, &["migrate", "status"]);
    assert!(code == Some(1) && out.contains("pending") && err.contains("migrate up"), "{code:?} {out} {err}");
    let all = format!("applied {} migrations\n", migrate::REQUIRED_VERSION);
    assert_eq!(owner(&database, &["migrate", "up"]), (Some(0), all, String::new()));
    assert_eq!(owner(&database, &["migrate", "up"]), (Some(0), "nothing to do\n".to_owned(), String::new()));
    let (code, out, _) = owner(&database, &["migrate", "status"]);
    assert!(code == Some(0) && !out.contains("pending") && out.starts_with("0001  initial_schema "), "{out}");
    assert_eq!(
        owner(&database, &["migrate", "down", "--to", "5"]),
        (Some(0), "took back 1 migration\n".to_owned(), String::new())
    );
    assert_eq!(owner(&database, &["migrate", "down", "--to", "0"]).1, "took back 5 migrations\n");
    assert_eq!(owner(&database, &["migrate", "down", "--to", "0"]).1, "nothing to do\n");
    assert_eq!(owner(&database, &["migrate", "up"]).0, Some(0));
    assert_eq!(owner(&database, &["migrate", "verify"]).0, Some(0));
}

#[tokio::test]
async fn down_refuses_what_it_does_not_know() {
    let database = Database::new().await;
    let (code, _, err) = owner(&database, &["migrate", "down", "--to", "77"]);
    assert!(code == Some(1) && err.contains("there is no migration 77"), "{err}");
    assert_eq!(owner(&database, &["migrate", "down"]).0, Some(2), "where to must be said");
    let later = "INSERT INTO migrations SELECT 99, 'of a later version', now(), true, '', 0";
    sqlx::query(later).execute(&mut database.owner().await).await.unwrap();
    let (code, _, err) = owner(&database, &["migrate", "down", "--to", "0"]);
    assert!(code == Some(1) && err.contains("migration 99 is of a later version"), "{err}");
    assert_eq!(
        database.number("SELECT count(*) FROM migrations").await,
        migrate::REQUIRED_VERSION + 1,
        "nothing was taken back"
    );
    assert_eq!(owner(&database, &["migrate", "up"]).0, Some(0), "and the lock is free");
}

#[tokio::test]
async fn verify_says_what_differs() {
    let database = Database::new().await;
    assert_eq!(owner(&database, &["migrate", "verify"]).0, Some(0));
    database::execute(
        &mut database.owner().await,
        "DROP INDEX idx_volumes_driver; ALTER TABLE nodes ADD COLUMN mine text; REVOKE SELECT ON nodes FROM volumeviz_readonly;
         GRANT SELECT ON volumes TO vv_readonly; GRANT UPDATE (name) ON volumes TO vv_agent; GRANT EXECUTE ON FUNCTION maintain.record_metrics() TO vv_agent;
         ALTER TABLE volumes ALTER COLUMN scope DROP NOT NULL;
         CREATE OR REPLACE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NEW; END'"
            .to_owned(),
    )
    .await;
    let (code, out, err) = owner(&database, &["migrate", "verify"]);
    assert_eq!(code, Some(1), "{out}");
    for line in [
        "- index CREATE INDEX idx_volumes_driver",
        "+ column nodes.mine text",
        "- grant SELECT on nodes to volumeviz_readonly",
        "+ grant SELECT on volumes to vv_readonly",
        "+ grant UPDATE on volumes.name to vv_agent",
        "+ grant EXECUTE on maintain.record_metrics() to vv_agent",
        "- column volumes.scope text not null",
        "- function public.touch_updated_at()",
        "+ function public.touch_updated_at()",
    ] {
        assert!(out.contains(line), "{line} is not told:\n{out}");
    }
    assert!(err.contains("10 places"), "{err}");
}

#[tokio::test]
async fn grants_come_back() {
    let database = Database::new().await;
    database::execute(&mut database.owner().await, "REVOKE ALL ON scan_jobs FROM volumeviz_controller".to_owned())
        .await;
    assert_eq!(owner(&database, &["migrate", "verify"]).0, Some(1));
    assert_eq!(owner(&database, &["migrate", "grants"]), (Some(0), "granted\n".to_owned(), String::new()));
    assert_eq!(owner(&database, &["migrate", "verify"]).0, Some(0));
    // Printing needs no database.
    let (code, out, _) = volumeviz(&Database { name: "none".to_owned() }, "nobody", &["migrate", "grants", "--print"]);
    assert!(code == Some(0) && out.contains("GRANT EXECUTE ON FUNCTION agent_v1.claim"), "{out}");
}

#[tokio::test]
async fn adopt_gives_the_database_to_another_cluster() {
    let database = Database::new().await;
    let mut controller = database.controller().await;
    let mut problem = async |cluster: &str| store::health::probe(&mut controller, cluster).await.unwrap().problem;
    assert_eq!(problem("old").await, None, "the first that asks has it");
    assert_eq!(problem("new").await.map(|(reason, _)| reason), Some(store::health::Reason::ForeignDatabase));
    let (code, out, _) = owner(&database, &["migrate", "adopt", "--cluster-uid", "new"]);
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "the database belongs to the cluster new; before, it belonged to the cluster old\n")
    );
    assert_eq!(problem("new").await, None);
    let (_, out, _) = volumeviz(&database, database::READONLY, &["audit", "--subject", "installation"]);
    assert!(
        out.contains("vv_owner") && out.contains("Adopted") && out.contains(r#"{"from":"old","to":"new"}"#),
        "{out}"
    );
}

#[tokio::test]
async fn audit_lists_what_was_done() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1"]).await;
    let (code, out, _) = volumeviz(&database, database::READONLY, &["audit"]);
    assert!(code == Some(0) && out.starts_with("TIME") && out.contains("Migrated"), "{out}");
    assert!(out.lines().nth(1).unwrap().contains(&format!("RunPlanned          run/{run} ")), "newest first:\n{out}");
    let (_, out, _) = volumeviz(&database, database::READONLY, &["audit", "--limit", "1", "--output", "json"]);
    let event: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((event["action"].as_str(), event["actor"].as_str()), (Some("RunPlanned"), Some("vv_controller")));
    let (code, _, err) = volumeviz(&database, database::AGENT, &["audit"]);
    assert!(code == Some(1) && err.contains("unable to list audit events: the database role lacks rights"), "{err}");
}

#[tokio::test]
async fn of_an_event_no_terminal_obeys_anything() {
    let database = Database::new().await;
    let texts: Vec<String> = TEXTS.iter().map(|text| text.replace('\0', "")).collect();
    for text in &texts {
        let event = "INSERT INTO audit_events (action, subject, detail) VALUES ('SpecSeen', $1, jsonb_build_object($1::text, $1::text))";
        sqlx::query(event).bind(text).execute(&mut **database.controller().await).await.unwrap();
    }
    let limit = texts.len().to_string();
    let (_, table, _) = volumeviz(&database, database::READONLY, &["audit", "--limit", &limit]);
    let lines: Vec<&str> = table.strip_suffix('\n').unwrap().split('\n').collect();
    assert_eq!((lines.iter().flat_map(|line| harm(line)).collect::<Vec<_>>(), lines.len()), (vec![], texts.len() + 1));
    let (_, json, _) = volumeviz(&database, database::READONLY, &["audit", "--limit", &limit, "--output", "json"]);
    let lines: Vec<&str> = json.strip_suffix('\n').unwrap().split('\n').collect();
    assert_eq!((lines.iter().flat_map(|line| harm(line)).collect::<Vec<_>>(), lines.len()), (vec![], texts.len()));
    for (line, text) in lines.iter().rev().zip(&texts) {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&event["subject"], &event["detail"]), (&json!(text), &json!({ text.as_str(): text })));
    }
}
