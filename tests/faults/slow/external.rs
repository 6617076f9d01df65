//! The chart over an external PostgreSQL in a namespace of its own.

use super::super::*;

const NAMESPACE: &str = "elsewhere";
pub(super) const PASSWORD: &str = "of-a-test";
const LOGINS: [&str; 3] = ["owner", "controller", "agent"];
const EXTERNAL: &str = "database.mode=external,database.external.sslMode=disable,database.existingSecrets.owner=external-owner,\
    database.existingSecrets.controller=external-controller,database.existingSecrets.agent=external-agent";
/// Where the server itself is.
pub(super) const HOST: &str = "database.elsewhere.svc";

/// One value from it.
pub(super) fn try_external_sql(query: &str) -> Result<String, String> {
    let psql = ["exec", "-n", NAMESPACE, "database", "--", "psql", "-U", "postgres", "-d", "volumeviz", "-Atqc", query];
    try_run("kubectl", &psql)
}

pub(super) fn external_sql(query: &str) -> String {
    try_external_sql(query).unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// Puts an external database, prepared as the documentation says, into the place of the chart and its own one, until the value is dropped.
pub(super) fn external_database() -> Undo {
    let bundled = bundled_again();
    kubectl("delete namespace volumeviz --timeout=120s");
    let bootstrap = include_str!("../../../deploy/bootstrap.sql");
    let labels = json!({"app": "database"});
    for manifest in [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}),
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
    bundled
}

/// Installs the chart over it; `values` tell the way.
pub(super) fn install_over_it(values: &str) {
    kubectl("create namespace volumeviz");
    for login in LOGINS {
        kubectl(&format!(
            "create secret generic external-{login} -n volumeviz --from-literal=username=external_{login} --from-literal=password={PASSWORD}"
        ));
    }
    let values = format!("{EXTERNAL},{values},agent.resources.limits.cpu={SLOW}");
    install(&["--set", &values, "--wait", "--timeout", "3m"]).unwrap();
}

/// The chart with its own, new database.
fn bundled_again() -> Undo {
    Undo::new(|| {
        for command in [
            "delete namespace volumeviz elsewhere --ignore-not-found --timeout=120s",
            "delete persistentvolume --all --timeout=60s",
        ] {
            tell("undo", try_kubectl(command));
        }
        tell("undo", try_in_node("node-1", "rm -rf /var/lib/kubelet/database /var/lib/kubelet/backup"));
        tell("undo", install(&["--wait", "--timeout", "3m"]));
    })
}
