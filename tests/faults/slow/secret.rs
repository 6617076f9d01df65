//! A password that changes while agents work.

use std::time::Instant;

use super::super::*;

/// Gives a login another password and puts it into its Secret; both as they were when the value is dropped.
fn rotate(login: &str) -> Undo {
    let secret = format!("volumeviz-database-{login}");
    let read = |key: &str| {
        kubectl(&format!("get secret -n volumeviz {secret} -o go-template={{{{.data.{key}|base64decode}}}}"))
    };
    let (user, old) = (read("username"), read("password"));
    let set = move |password: &str| {
        let patch = json!({"stringData": {"password": password}}).to_string();
        try_sql(&format!("ALTER ROLE \"{user}\" PASSWORD '{password}'"))
            .and_then(|_| try_run("kubectl", &["patch", "secret", "-n", "volumeviz", &secret, "-p", &patch]))
    };
    set("rotated-under-load").unwrap();
    Undo::new(move || drop(set(&old)))
}

/// Connections that live go on; new ones are refused until the kubelet has brought the new password, and need no restart.
#[test]
fn secret_rotated_under_load() {
    let (scan, _volumes) = mid_scan("secret-rotated", &json!({}));
    let restarts_before = (restarts("controller"), restarts("agent"));
    let since = Instant::now();
    let rotated = ["controller", "agent"].map(rotate);
    sql(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'volumeviz' AND pid <> pg_backend_pid()",
    );
    scan.until(15, "DatabaseReady", ("False", "AuthFailed"));
    scan.until(150, "DatabaseReady", ("True", "Connected"));
    took("from the old password to the new one", since);
    ends_well(&scan, 200, "1");
    assert_eq!((restarts("controller"), restarts("agent")), restarts_before);
    drop(rotated);
    kubectl("rollout restart -n volumeviz deployment/volumeviz-controller daemonset/volumeviz-agent");
    kubectl("rollout status -n volumeviz deployment/volumeviz-controller --timeout=120s");
    kubectl("rollout status -n volumeviz daemonset/volumeviz-agent --timeout=120s");
    scan.until(60, "DatabaseReady", ("True", "Connected"));
}

#[test]
fn a_wrong_password_is_told_and_mended() {
    let scan = Scan::new("wrong-password", &json!({}));
    scan.complete(60);
    let secret = "-n volumeviz secret volumeviz-database-controller";
    let right = kubectl(&format!("get {secret} -o jsonpath={{.data.password}}"));
    let set = |password: &str| {
        let patch = format!("{{\"data\":{{\"password\":\"{password}\"}}}}");
        run("kubectl", &["patch", "-n", "volumeviz", "secret", "volumeviz-database-controller", "-p", &patch]);
        kubectl("rollout restart -n volumeviz deployment/volumeviz-controller");
        kubectl("rollout status -n volumeviz deployment/volumeviz-controller --timeout=120s");
    };
    set("d3Jvbmc=");
    scan.until(30, "DatabaseReady", ("False", "AuthFailed"));
    set(&right);
    scan.until(30, "DatabaseReady", ("True", "Connected"));
}
