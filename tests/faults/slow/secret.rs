//! A password that changes while agents work.

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
    let restore = set.clone();
    let back = Undo::new(move || tell("undo", restore(&old)));
    set("rotated-under-load").unwrap();
    back
}

/// Starts everything anew when the value is dropped: sooner than the kubelet would it brings what the Secrets hold then.
fn rolled() -> Undo {
    Undo::new(|| {
        let workloads = ["deployment/volumeviz-controller", "daemonset/volumeviz-agent"];
        for (command, more) in [("restart", ""), ("status", "--timeout=120s")] {
            for workload in workloads {
                tell("undo", try_kubectl(&format!("rollout {command} -n volumeviz {workload} {more}")));
            }
        }
    })
}

/// Connections that live go on; new ones are refused until the kubelet has brought the new password, and need no restart.
#[test]
fn secret_rotated_under_load() {
    let mid = mid_scan("secret-rotated", &json!({}));
    let agents = restarts("agent");
    let rolled = rolled();
    let rotated = ["controller", "agent"].map(rotate);
    let since = Instant::now();
    cut_connections();
    database_loss_is_told(&mid.scan, &["AuthFailed"], since);
    // Not within 60 s: nothing but the kubelet's next look at the Secret ends it, up to two minutes later.
    mid.scan.until(150, "DatabaseReady", ("True", "Connected"));
    took("from the old password to the new one", since);
    mid.status_is_right();
    mid.ends_well(200, 1, Job::WentOn);
    assert_eq!((restarts("controller"), restarts("agent")), (mid.controllers.clone(), agents));
    drop(rotated);
    rolled.now();
    status_is_right(&mid.scan);
}

#[test]
fn a_wrong_password_is_told_and_mended() {
    let scan = Scan::new("wrong-password", &json!({}));
    scan.complete(60);
    let secret = "-n volumeviz secret volumeviz-database-controller";
    let right = kubectl(&format!("get {secret} -o jsonpath={{.data.password}}"));
    let set = |password: &str| {
        let patch = format!("{{\"data\":{{\"password\":\"{password}\"}}}}");
        try_run("kubectl", &["patch", "-n", "volumeviz", "secret", "volumeviz-database-controller", "-p", &patch])
            .and_then(|_| try_kubectl("rollout restart -n volumeviz deployment/volumeviz-controller"))
            .and_then(|_| try_kubectl("rollout status -n volumeviz deployment/volumeviz-controller --timeout=120s"))
    };
    let mended = Undo::new(move || tell("undo", set(&right)));
    let since = Instant::now();
    set("d3Jvbmc=").unwrap();
    wait(left(30, since), "DatabaseReady to be AuthFailed", || {
        (condition(&scan.status(), "DatabaseReady") == ("False".to_owned(), "AuthFailed".to_owned())).then_some(())
    });
    took("AuthFailed in status", since);
    mended.now();
    status_is_right(&scan);
}
