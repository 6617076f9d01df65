//! The installation's namespace deleted in the middle of a run, and the chart installed anew over the same external database.

use std::time::Instant;

use super::super::*;

const NAMESPACE: &str = "elsewhere";
const PASSWORD: &str = "of-a-test";
const LOGINS: [&str; 3] = ["owner", "controller", "agent"];
const EXTERNAL: &str = "database.mode=external,database.external.host=database.elsewhere.svc,database.external.sslMode=disable,\
    database.existingSecrets.owner=external-owner,database.existingSecrets.controller=external-controller,\
    database.existingSecrets.agent=external-agent";

/// One value from the external database.
fn external_sql(query: &str) -> String {
    let psql = ["exec", "-n", NAMESPACE, "database", "--", "psql", "-U", "postgres", "-d", "volumeviz", "-Atqc", query];
    run("kubectl", &psql)
}

/// A PostgreSQL in a namespace of its own, prepared as the documentation says.
fn external_database() {
    let bootstrap = include_str!("../../../deploy/bootstrap.sql");
    let labels = json!({"app": "database"});
    for manifest in [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "init", "namespace": NAMESPACE}, "data": {"bootstrap.sql": bootstrap}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "database", "namespace": NAMESPACE},
            "spec": {"selector": labels, "ports": [{"port": 5432}]}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "database", "namespace": NAMESPACE, "labels": labels}, "spec": {
            "nodeName": "node-1", "volumes": [{"name": "init", "configMap": {"name": "init"}}],
            "containers": [{"name": "postgres", "image": "localhost/postgres:15", "imagePullPolicy": "Never",
                "args": ["postgres", "-c", "max_connections=200"],
                "env": [{"name": "POSTGRES_USER", "value": "postgres"}, {"name": "POSTGRES_PASSWORD", "value": PASSWORD},
                    {"name": "POSTGRES_DB", "value": "volumeviz"}, {"name": "PGDATA", "value": "/tmp/pgdata"},
                    {"name": "POSTGRES_INITDB_ARGS", "value": "--auth-host=scram-sha-256 --encoding=UTF8"}],
                "readinessProbe": {"exec": {"command": ["pg_isready", "-q", "-h", "127.0.0.1"]}, "periodSeconds": 2},
                "volumeMounts": [{"name": "init", "mountPath": "/docker-entrypoint-initdb.d"}]}]}}),
    ] {
        apply(&manifest).unwrap();
    }
    kubectl("wait -n elsewhere pod/database --for=condition=Ready --timeout=90s");
    for login in LOGINS {
        external_sql(&format!("CREATE ROLE external_{login} LOGIN PASSWORD '{PASSWORD}' IN ROLE volumeviz_{login}"));
    }
}

fn install_over_it() {
    kubectl("create namespace volumeviz");
    for login in LOGINS {
        kubectl(&format!(
            "create secret generic external-{login} -n volumeviz --from-literal=username=external_{login} --from-literal=password={PASSWORD}"
        ));
    }
    let slow = format!("agent.resources.limits.cpu={SLOW}");
    install(&["--set", EXTERNAL, "--set", &slow, "--wait", "--timeout", "3m"]).unwrap();
}

/// The chart with its own, new database.
fn bundled_again() -> Undo {
    Undo::new(|| {
        for command in [
            "delete namespace volumeviz elsewhere --ignore-not-found --timeout=120s",
            "delete persistentvolume --all --timeout=60s",
        ] {
            drop(try_run("kubectl", &command.split_whitespace().collect::<Vec<_>>()));
        }
        drop(try_in_node("node-1", "rm -rf /var/lib/kubelet/database /var/lib/kubelet/backup"));
        if let Err(error) = install(&["--wait", "--timeout", "3m"]) {
            eprintln!("undo: {error}");
        }
    })
}

#[test]
fn namespace_deleted_and_the_chart_installed_anew() {
    let _bundled = bundled_again();
    kubectl("delete namespace volumeviz --timeout=120s");
    external_database();
    install_over_it();
    make_volumes();
    let _volumes = Volumes;
    let scan = Scan::new("outlives", &json!({}));
    wait(90, "node-2 to be in the middle of the big volume", || {
        let done = external_sql(
            "SELECT count(*) FROM scan_results JOIN scan_jobs ON scan_jobs.id = scan_job_id WHERE status = 'running' AND node = 'node-2'",
        );
        (done == "1").then_some(())
    });
    let active = scan.status()["activeRun"]["id"].clone();
    kubectl("delete namespace volumeviz --timeout=120s");
    assert_eq!(scan.status()["activeRun"]["id"], active, "the scan is kept as it was");
    install_over_it();
    let since = Instant::now();
    let status = scan.complete(200);
    took("end of the run after the installation", since);
    assert_eq!((&status["lastRun"]["result"], &status["lastRun"]["id"]), (&json!("Succeeded"), &active), "{status}");
    assert_eq!(external_sql("SELECT count(*) FROM scan_runs"), "1", "the same run, not another");
    let twice = "SELECT count(*) FROM (SELECT 1 FROM scan_results GROUP BY scan_job_id, volume_id HAVING count(*) > 1) AS twice";
    assert_eq!(
        (external_sql(twice), external_sql("SELECT max(attempt) FROM scan_jobs")),
        ("0".to_owned(), "1".to_owned())
    );
}
