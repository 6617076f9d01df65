//! What is answered.

use serde_json::json;

use super::*;

/// Three volumes on two nodes, one of them growing; a run; a container.
const SEED: &str = "
    INSERT INTO nodes (name, uid, has_engine, engine_version) VALUES ('n1', 'u1', true, '28.1'), ('n2', 'u2', false, NULL);
    INSERT INTO volumes (volume_id, node, name, labels, is_active, origin) VALUES
        ('n1/data', 'n1', 'data', '{\"app\": \"a,b=c\"}', true, '{\"image\": \"postgres:17\"}'), ('n1/logs', 'n1', 'logs', '{}', false, '{}'), ('n2/data', 'n2', 'data', '{}', false, '{}');
    INSERT INTO scan_runs (scan_uid, scan_name, run_key, work, deadline, completed_at, result, reason)
        VALUES ('uid', 'nightly', 't:1', '{}', now(), now(), 'Succeeded', 'AllNodesSucceeded'), ('uid', 'nightly', 't:2', '{}', now(), NULL, NULL, NULL);
    INSERT INTO scan_jobs (run_id, node, node_uid, status) VALUES (1, 'n1', 'u1', 'succeeded'), (1, 'n2', 'u2', 'skipped');
    INSERT INTO scan_results (scan_job_id, volume_id, measured_at, completeness, method, allocated_bytes, files) VALUES (1, 1, now(), 'Complete', 'Walk', 4096, 1), (1, 2, now(), 'Complete', 'Walk', 8192, 2);
    UPDATE volume_rankings SET allocated_bytes = volume_id * 4096 WHERE volume_id < 3;
    INSERT INTO volume_latest (volume_id, scan_result_id, measured_at, completeness, method, available_bytes, growth_bytes_per_day, growth_window_days, growth_samples)
        VALUES (1, 1, now(), 'Complete', 'Walk', 1000, 100, 5, 6);
    INSERT INTO volume_sizes (volume_id, scan_result_id, completeness, method, allocated_bytes, files) VALUES (1, 1, 'Complete', 'Walk', 4096, 1);
    INSERT INTO containers (container_id, node, name, image, state) VALUES ('c1', 'n1', 'db', 'postgres:17', 'running');
    INSERT INTO container_volumes (container_id, volume_id, mount_path, read_write) VALUES (1, 1, '/var/lib/postgresql', true);";

async fn seeded() -> (Database, Served) {
    let database = Database::new().await;
    database::execute(&mut **database.superuser().await, SEED.to_owned()).await;
    let served = Served::over(&database, &[]).await;
    (database, served)
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn names(page: &Value) -> Vec<String> {
    let name = |volume: &Value| format!("{}/{}", volume["node"].as_str().unwrap(), volume["name"].as_str().unwrap());
    page["items"].as_array().unwrap().iter().map(name).collect()
}

#[tokio::test]
async fn database_health_has_the_promised_fields() {
    let (_database, served) = seeded().await;
    let health = served.ok("/api/v1/database/health").await;
    assert_eq!(health["status"], "healthy");
    assert!(health["latency_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(keys(&health["connections"]), ["idle", "in_use", "open"]);
    let figure = |name| health["connections"][name].as_u64().unwrap();
    assert!(figure("open") >= 1 && figure("in_use") + figure("idle") == figure("open"), "{health}");
}

#[tokio::test]
async fn an_unhealthy_database_is_told_with_its_reason() {
    let database = Database::new().await;
    let mut args = database::args(database::CONTROLLER, &database.name, &[]);
    let problem = || Some(("ForeignDatabase", "the database belongs to the cluster x".to_owned()));
    let served = Served::with(args.clone(), problem).await;
    let answer = served.get("/api/v1/database/health").await;
    assert_eq!((answer.status, answer.body["status"].as_str()), (503, Some("unhealthy")));
    assert_eq!(answer.body["reason"], "ForeignDatabase");

    args.port = 1;
    let served = Served::with(args, || None).await;
    let answer = served.get("/api/v1/database/health").await;
    assert_eq!(
        (answer.status, &answer.body["reason"], &answer.body["latency_ms"]),
        (503, &json!("Unreachable"), &Value::Null)
    );
    let answer = served.get("/api/v1/volumes").await;
    assert_eq!((answer.status, answer.media_type.as_str()), (503, "application/problem+json"));
    assert_eq!((&answer.body["reason"], &answer.body["type"]), (&json!("Unreachable"), &json!("about:blank")));
}

#[tokio::test]
async fn database_migrations_has_the_promised_fields() {
    let (database, served) = seeded().await;
    let migrations = served.ok("/api/v1/database/migrations").await;
    assert_eq!(keys(&migrations), ["applied_migrations", "current_version", "pending_migrations"]);
    assert_eq!(migrations["current_version"], volumeviz::migrate::REQUIRED_VERSION);
    let first = &migrations["applied_migrations"][0];
    assert_eq!((&first["version"], &first["name"]), (&json!(1), &json!("initial_schema")));
    first["applied_at"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!(migrations["pending_migrations"], json!([]));
    database::execute(&mut **database.superuser().await, "DELETE FROM migrations WHERE version = 6".to_owned()).await;
    let migrations = served.ok("/api/v1/database/migrations").await;
    assert_eq!(migrations["current_version"], 5);
    assert_eq!(migrations["pending_migrations"], json!([{"version": 6, "name": "grants"}]));
}

#[tokio::test]
async fn database_stats_has_the_promised_fields() {
    let (_database, served) = seeded().await;
    let stats = served.ok("/api/v1/database/stats").await;
    let count = |table: &str| stats["tables"][table]["count"].as_i64().unwrap();
    assert_eq!(
        (count("volumes"), count("volume_sizes"), count("migrations")),
        (3, 1, volumeviz::migrate::REQUIRED_VERSION)
    );
    for table in ["volumes", "volume_sizes", "containers", "scan_results", "migrations"] {
        let size = stats["tables"][table]["size"].as_str().unwrap();
        assert!(size.starts_with(|c: char| c.is_ascii_digit()) && !size.contains(' '), "{size}");
    }
    assert!(
        stats["total_size"].as_str().unwrap().ends_with("kB") || stats["total_size"].as_str().unwrap().ends_with("MB")
    );
    assert!(stats["index_size"].is_string() && stats["total_bytes"].as_i64() > stats["index_bytes"].as_i64());
    assert!(!keys(&stats["tables"]).iter().any(|name| name.contains("_20")), "partitions are summed up");
}

#[tokio::test]
async fn nodes_are_listed_with_what_is_on_them() {
    let (_database, served) = seeded().await;
    let page = served.ok("/api/v1/nodes?limit=1").await;
    let node = &page["items"][0];
    assert_eq!((&node["name"], &node["volumes"], &node["allocated_bytes"]), (&json!("n1"), &json!(2), &json!(12288)));
    let page = served.ok(&format!("/api/v1/nodes?limit=1&cursor={}", page["next"].as_str().unwrap())).await;
    assert_eq!((&page["items"][0]["name"], &page["items"][0]["has_engine"]), (&json!("n2"), &json!(false)));
    assert_eq!(page.get("next"), None);
}

#[tokio::test]
async fn volumes_are_filtered_sorted_and_paged() {
    let (_database, served) = seeded().await;
    let list = async |query: &str| names(&served.ok(&format!("/api/v1/volumes?{query}")).await);
    assert_eq!(list("sort=size&direction=desc").await, ["n1/logs", "n1/data", "n2/data"], "unknown comes last");
    assert_eq!(list("sort=size").await, ["n1/data", "n1/logs", "n2/data"], "in either direction");
    assert_eq!(list("name=d*&node=n1").await, ["n1/data"]);
    assert_eq!(list("label=app%3Da%2Cb%3Dc").await, ["n1/data"], "a value may have commas and equal signs");
    assert_eq!(list("orphaned=true").await, ["n2/data", "n1/logs"]);
    assert_eq!(list("active=true&min_bytes=4096&max_bytes=4096").await, ["n1/data"]);
    assert_eq!(list("scanned_after=2020-01-01T00:00:00Z").await, [""; 0]);

    let first = served.ok("/api/v1/volumes?limit=2").await;
    assert_eq!(first.get("total"), None);
    let second = served.ok(&format!("/api/v1/volumes?limit=2&cursor={}", first["next"].as_str().unwrap())).await;
    assert_eq!([names(&first), names(&second)].concat(), ["n1/data", "n2/data", "n1/logs"]);
    let skipped = served.ok("/api/v1/volumes?limit=1&offset=1").await;
    assert_eq!((names(&skipped), &skipped["total"]), (vec!["n2/data".to_owned()], &json!(3)));
    assert_eq!(served.ok("/api/v1/volumes?limit=1&count=true").await["total"], 3);
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let (_database, served) = seeded().await;
    let cursor = served.ok("/api/v1/volumes?limit=1").await["next"].as_str().unwrap().to_owned();
    for (path, named) in [
        ("/api/v1/volumes?limit=501".to_owned(), "limit: \"501\" is not a whole number from 1 to 500"),
        ("/api/v1/volumes?limit=0".to_owned(), "limit: \"0\" is not a whole number from 1 to 500"),
        ("/api/v1/volumes?limit=abc".to_owned(), "limit: \"abc\" is not a whole number from 1 to 500"),
        ("/api/v1/nodes?limit=abc".to_owned(), "limit: \"abc\" is not a whole number from 1 to 500"),
        ("/api/v1/volumes/1/sizes?limit=1e3".to_owned(), "limit: \"1e3\" is not a whole number from 1 to 500"),
        ("/api/v1/volumes?offset=-1".to_owned(), "offset: \"-1\" is not a whole number, 0 or more"),
        ("/api/v1/volumes?min_bytes=1Gi".to_owned(), "min_bytes: \"1Gi\" is not a whole number, 0 or more"),
        ("/api/v1/volumes?active=maybe".to_owned(), r#"active: invalid value: string "maybe", expected "true""#),
        ("/api/v1/volumes?count=1".to_owned(), r#"count: invalid value: string "1", expected "true""#),
        (
            "/api/v1/volumes?scanned_after=today".to_owned(),
            "scanned_after: \"today\" is not a time such as 2026-01-31T12:00:00Z",
        ),
        (
            "/api/v1/volumes?sort=bogus".to_owned(),
            "sort: unknown variant `bogus`, expected one of `name`, `node`, `first_seen`, `size`, `growth`",
        ),
        ("/api/v1/volumes?direction=up".to_owned(), "direction: unknown variant `up`, expected `asc` or `desc`"),
        ("/api/v1/volumes?nmae=x".to_owned(), "unknown field `nmae`, expected one of `name`, "),
        ("/api/v1/volumes?label=app".to_owned(), "label"),
        ("/api/v1/volumes?cursor=%25".to_owned(), "cursor"),
        (format!("/api/v1/volumes?limit=1&sort=size&cursor={cursor}"), "cursor"),
        (format!("/api/v1/volumes?limit=1&node=n1&cursor={cursor}"), "cursor"),
        (format!("/api/v1/volumes?offset=0&cursor={cursor}"), "offset"),
        ("/api/v1/volumes/1/sizes?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z".to_owned(), "from"),
        (
            "/api/v1/volumes/1/sizes?from=yesterday".to_owned(),
            "from: \"yesterday\" is not a time such as 2026-01-31T12:00:00Z",
        ),
        ("/api/v1/scans/nightly/runs?cursor=x".to_owned(), "cursor"),
        ("/api/v1/alerts?cursor=x".to_owned(), "cursor: \"x\" is none of this list"),
        ("/api/v1/alerts?limit=0".to_owned(), "limit: \"0\" is not a whole number from 1 to 500"),
        ("/api/v1/alerts?open=yes".to_owned(), r#"open: invalid value: string "yes", expected "true""#),
        ("/api/v1/alerts?name=big".to_owned(), "unknown field `name`, expected one of `alert`, `open`, "),
        (format!("/api/v1/volumes/1/containers?cursor={cursor}"), "cursor"),
        (format!("/api/v1/volumes/1/sizes?cursor={cursor}"), "cursor"),
        ("/api/v1/volumes?name=%00".to_owned(), "invalid byte sequence"),
    ] {
        let answer = served.get(&path).await;
        assert_eq!(
            (answer.status, answer.media_type.as_str()),
            (400, "application/problem+json"),
            "{path}: {answer:?}"
        );
        assert!(answer.body["detail"].as_str().unwrap().contains(named), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (_database, served) = seeded().await;
    for path in [
        "/api/v1/volumes/99",
        "/api/v1/volumes/x",
        "/api/v1/volumes/99999999999999999999",
        "/api/v1/volumes/99/sizes",
        "/api/v1/volumes/99/containers",
        "/api/v1/runs/99",
        "/api/v1/runs/99/results",
    ] {
        let answer = served.get(path).await;
        assert_eq!((answer.status, &answer.body["reason"]), (404, &json!("NotFound")), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_volume_is_told_with_its_forecast_sizes_and_containers() {
    let (_database, served) = seeded().await;
    let volume = served.ok("/api/v1/volumes/1").await;
    assert_eq!((&volume["volume_id"], &volume["allocated_bytes"]), (&json!("n1/data"), &json!(4096)));
    assert_eq!((&volume["growth_bytes_per_day"], &volume["full_in_days"]), (&json!(100), &json!(10.0)));
    assert_eq!(volume["origin"]["image"], "postgres:17");
    assert_eq!(served.ok("/api/v1/volumes/2").await["full_in_days"], Value::Null);
    let sizes = served.ok("/api/v1/volumes/1/sizes").await;
    assert_eq!((&sizes["resolution"], &sizes["items"][0]["allocated_bytes"]), (&json!("raw"), &json!(4096)));
    let containers = served.ok("/api/v1/volumes/1/containers").await;
    assert_eq!(
        (&containers["items"][0]["name"], &containers["items"][0]["mount_path"]),
        (&json!("db"), &json!("/var/lib/postgresql"))
    );
    assert_eq!((&containers["items"][0]["deleted_at"], containers.get("next")), (&Value::Null, None));
}

#[tokio::test]
async fn what_hangs_on_a_volume_is_read_page_by_page() {
    let (database, served) = seeded().await;
    let more = "INSERT INTO containers (container_id, node, name, image, state, deleted_at) VALUES
             ('c2', 'n1', 'gone', 'postgres:16', 'exited', now()), ('c3', 'n1', 'long gone', 'postgres:15', 'exited', now() - interval '1 day');
         INSERT INTO container_volumes (container_id, volume_id, mount_path, read_write) SELECT id, 1, '/d', true FROM containers WHERE id > 1;
         INSERT INTO volume_sizes (created_at, volume_id, scan_result_id, completeness, method, allocated_bytes, files)
             SELECT now() - make_interval(secs => n), 1, 1, 'Complete', 'Walk', n, 1 FROM generate_series(1, 2) AS n";
    database::execute(&mut **database.superuser().await, more.to_owned()).await;
    for (path, field, expected) in [
        ("/api/v1/volumes/1/containers", "name", json!(["db", "gone", "long gone"])),
        ("/api/v1/volumes/1/sizes", "allocated_bytes", json!([2, 1, 4096])),
    ] {
        let (mut read, mut query) = (Vec::new(), "limit=1".to_owned());
        loop {
            let page = served.ok(&format!("{path}?{query}")).await;
            assert_eq!(page["items"].as_array().unwrap().len(), 1);
            read.push(page["items"][0][field].clone());
            assert!(read.len() <= 3, "{path}: pages without end");
            let Some(next) = page.get("next") else { break };
            query = format!("limit=1&cursor={}", next.as_str().unwrap());
        }
        assert_eq!(json!(read), expected, "{path}");
    }
    let page = served.ok("/api/v1/volumes/1/containers").await;
    assert_eq!(page["items"][0]["deleted_at"], Value::Null);
    assert!(page["items"][1]["deleted_at"].is_string() && page.get("next").is_none());
}

#[tokio::test]
async fn runs_are_told_with_their_jobs_and_results() {
    let (_database, served) = seeded().await;
    let runs = served.ok("/api/v1/scans/nightly/runs").await;
    let ids: Vec<_> = runs["items"].as_array().unwrap().iter().map(|run| run["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [2, 1], "newest first");
    assert_eq!(served.ok("/api/v1/scans/other/runs").await["items"], json!([]));
    let page = served.ok("/api/v1/scans/nightly/runs?limit=1").await;
    let page =
        served.ok(&format!("/api/v1/scans/nightly/runs?limit=1&cursor={}", page["next"].as_str().unwrap())).await;
    assert_eq!(page["items"][0]["id"], 1);
    let run = served.ok("/api/v1/runs/1").await;
    assert_eq!((&run["result"], &run["nodes"]["total"], &run["key"]), (&json!("Succeeded"), &json!(2), &json!("t:1")));
    assert_eq!(
        (&run["jobs"]["items"][1]["node"], &run["jobs"]["items"][1]["status"]),
        (&json!("n2"), &json!("skipped"))
    );
    let results = served.ok("/api/v1/runs/1/results?limit=1").await;
    assert_eq!(results["items"][0]["allocated_bytes"], 4096);
    let results =
        served.ok(&format!("/api/v1/runs/1/results?limit=1&cursor={}", results["next"].as_str().unwrap())).await;
    assert_eq!((&results["items"][0]["allocated_bytes"], results.get("next")), (&json!(8192), None));
}

#[tokio::test]
async fn alerts_are_told_newest_first_by_name_and_by_whether_they_are_over() {
    let (database, served) = seeded().await;
    let alerts = "INSERT INTO alerts (alert_uid, alert_name, rule, scope, severity, threshold, subject, volume_id, state, value, message, fired_at, resolved_at)
        VALUES ('u1', 'big', 'sizeAbove', 'Volume', 'Warning', 10, 'n1/data', 1, 'Resolved', 9, 'shrunk', now(), now()),
            ('u1', 'big', 'sizeAbove', 'Volume', 'Warning', 10, 'n1/data', 1, 'Firing', 11, '11 B, limit 10 B', now(), NULL),
            ('u2', 'late', 'scanOlderThan', 'Cluster', 'Critical', 60, '', NULL, 'Pending', NULL, 'no figure', NULL, NULL)";
    database::execute(&mut **database.superuser().await, alerts.to_owned()).await;
    let ids = async |query: &str| -> Vec<i64> {
        let page = served.ok(&format!("/api/v1/alerts?{query}")).await;
        page["items"].as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
    };
    assert_eq!(ids("").await, [3, 2, 1]);
    assert_eq!((ids("open=true").await, ids("open=false").await), (vec![3, 2], vec![1]));
    assert_eq!((ids("alert=big").await, ids("alert=big&open=false").await), (vec![2, 1], vec![1]));
    assert_eq!(ids("alert=bigger").await, [0; 0]);
    let first = served.ok("/api/v1/alerts?limit=2").await;
    let second = served.ok(&format!("/api/v1/alerts?limit=2&cursor={}", first["next"].as_str().unwrap())).await;
    assert_eq!((&second["items"][0]["id"], second.get("next")), (&json!(1), None));
    let firing = &first["items"][1];
    assert_eq!(
        keys(firing),
        [
            "alert",
            "created_at",
            "fired_at",
            "id",
            "message",
            "resolved_at",
            "rule",
            "scope",
            "severity",
            "state",
            "subject",
            "threshold",
            "value"
        ]
    );
    assert_eq!(
        (&firing["alert"], &firing["subject"], &firing["value"]),
        (&json!("big"), &json!("n1/data"), &json!(11.0))
    );
    assert_eq!((&first["items"][0]["value"], &second["items"][0]["state"]), (&Value::Null, &json!("Resolved")));
}
