//! The database: killed, restarted, out of reach, slow, full, read-only, crowded.

use std::time::{Duration, Instant};

use super::super::*;
use super::slow_network;

#[test]
fn postgres_away_in_the_middle() {
    let (scan, _volumes) = mid_scan("postgres-away", &json!({}));
    let seconds = std::env::var("FAULT_AWAY_SECONDS").map_or(35, |seconds| seconds.parse().unwrap());
    scale("statefulset/volumeviz-database", 0);
    scan.until(15, "DatabaseReady", ("False", "Unreachable"));
    stays(seconds, "the run goes on while the database is away", || scan.status()["activeRun"]["id"].clone());
    scale("statefulset/volumeviz-database", 1);
    let status = scan.complete(120);
    assert_eq!((status["lastRun"]["result"].as_str(), attempts().as_str()), (Some("Succeeded"), "1"));
    invariants_hold(3);
}

const DATABASE: &str = "volumeviz-database-0";

/// Cuts every connection but this one, so that what is refused to new ones is met at once.
fn cut_connections() {
    sql(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'volumeviz' AND pid <> pg_backend_pid()",
    );
}

/// A fault that a run outlives: told within 15 s, gone by itself, and no attempt the dearer.
fn told_and_outlived(scan: &Scan, reasons: &[&str], undo: Undo, restarts_before: &str) {
    let since = Instant::now();
    wait(15, &format!("DatabaseReady to be {reasons:?}"), || {
        let (truth, reason) = condition(&scan.status(), "DatabaseReady");
        (truth == "False" && reasons.contains(&reason.as_str())).then_some(())
    });
    took("database loss in status", since);
    std::thread::sleep(Duration::from_secs(20));
    undo.now();
    let since = Instant::now();
    scan.until(60, "DatabaseReady", ("True", "Connected"));
    took("recovery in status", since);
    ends_well(scan, 150, "1");
    assert_eq!(restarts("controller"), restarts_before, "it heals without a restart");
    no_permit_is_lost();
}

/// Every connection of the pool can be had again.
fn no_permit_is_lost() {
    let pod = leader();
    let in_use = "volumeviz_database_connections_in_use";
    wait(30, "the pool to be at rest", || (metric(&pod, 8080, in_use) < 2.0).then_some(()));
}

fn postmaster() -> String {
    in_node("node-1", "pgrep -f '^postgres -c' | head -1")
}

#[test]
fn postgres_killed() {
    let (scan, _volumes) = mid_scan("postgres-killed", &json!({}));
    let (before, restarts_before, old) = (measured(), restarts("controller"), postmaster());
    in_node("node-1", &format!("kill -9 {old}"));
    wait(60, "another postmaster", || {
        let now = try_in_node("node-1", "pgrep -f '^postgres -c' | head -1").unwrap_or_default();
        (!now.is_empty() && now != old && try_sql("SELECT 1").is_ok()).then_some(())
    });
    ends_well(&scan, 150, "1");
    assert_eq!((measured(), restarts("controller")), (before, restarts_before));
    no_permit_is_lost();
}

#[test]
fn postgres_restarted_ten_times() {
    let (scan, _volumes) = mid_scan("postgres-restarted", &json!({}));
    let (before, restarts_before) = (measured(), restarts("controller"));
    let uid = || try_run("kubectl", &["get", "pod", "-n", "volumeviz", DATABASE, "-o", "jsonpath={.metadata.uid}"]);
    for _ in 0..10 {
        let old = uid();
        kubectl(&format!("delete pod -n volumeviz {DATABASE} --grace-period=2"));
        wait(60, "another database pod", || {
            (uid().is_ok() && uid() != old && try_sql("SELECT 1").is_ok()).then_some(())
        });
    }
    ends_well(&scan, 150, "1");
    assert_eq!((measured(), restarts("controller")), (before, restarts_before));
    no_permit_is_lost();
}

/// Packets vanish: no connection is refused, none is reset.
#[test]
fn postgres_unreachable_without_a_reset() {
    let (scan, _volumes) = mid_scan("postgres-cut", &json!({}));
    let restarts_before = restarts("controller");
    let undo = drop_packets("node-1", &["-p tcp --dport 5432", "-p tcp --sport 5432"]);
    told_and_outlived(&scan, &["Timeout", "Unreachable"], undo, &restarts_before);
}

#[test]
fn postgres_answers_each_call_two_seconds_late() {
    let (scan, _volumes) = mid_scan("postgres-slow", &json!({}));
    let restarts_before = restarts("controller");
    let undo = slow_network::delay_answers(Duration::from_secs(2));
    cut_connections();
    told_and_outlived(&scan, &["Timeout", "Unreachable"], undo, &restarts_before);
}

#[test]
fn postgres_read_only() {
    let (scan, _volumes) = mid_scan("postgres-read-only", &json!({}));
    let restarts_before = restarts("controller");
    sql("ALTER SYSTEM SET default_transaction_read_only = on");
    let undo = Undo::new(|| {
        drop(try_sql("ALTER SYSTEM RESET default_transaction_read_only"));
        drop(try_sql("SELECT pg_reload_conf()"));
    });
    sql("SELECT pg_reload_conf()");
    wait(10, "writes to be refused", || try_sql("CREATE TABLE refused ()").is_err().then_some(()));
    told_and_outlived(&scan, &["ReadOnly"], undo, &restarts_before);
}

#[test]
fn postgres_has_no_connection_left() {
    let (scan, _volumes) = mid_scan("postgres-crowded", &json!({}));
    let restarts_before = restarts("controller");
    // Superusers, which is who undoes it, are let in all the same.
    sql("ALTER DATABASE volumeviz CONNECTION LIMIT 0");
    let undo = Undo::sql("ALTER DATABASE volumeviz CONNECTION LIMIT -1");
    cut_connections();
    told_and_outlived(&scan, &["TooManyConnections"], undo, &restarts_before);
}

/// The database's files on a file system of their own, small enough to be filled.
fn on_a_small_disk() -> Undo {
    let folder = "/var/lib/kubelet/database";
    let moved = |script: &str| {
        let stopped =
            try_run("kubectl", &["scale", "-n", "volumeviz", "statefulset/volumeviz-database", "--replicas=0"]);
        drop(stopped.and_then(|_| {
            try_run(
                "kubectl",
                &["wait", "-n", "volumeviz", &format!("pod/{DATABASE}"), "--for=delete", "--timeout=60s"],
            )
        }));
        let done = try_in_node("node-1", script);
        drop(try_run("kubectl", &["scale", "-n", "volumeviz", "statefulset/volumeviz-database", "--replicas=1"]));
        let rollout = ["rollout", "status", "-n", "volumeviz", "statefulset/volumeviz-database", "--timeout=120s"];
        done.and_then(|_| try_run("kubectl", &rollout))
    };
    moved(&format!(
        "truncate -s 400M /var/lib/kubelet/small.img; mkfs.ext4 -q -m 0 /var/lib/kubelet/small.img
         mkdir -p /var/lib/kubelet/small; mount -o loop /var/lib/kubelet/small.img /var/lib/kubelet/small
         cp -a {folder}/. /var/lib/kubelet/small/; chown 999:999 /var/lib/kubelet/small; umount /var/lib/kubelet/small
         mount -o loop /var/lib/kubelet/small.img {folder}"
    ))
    .unwrap();
    Undo::new(move || {
        let back = format!(
            "rm -f {folder}/full; mkdir -p /var/lib/kubelet/small; cp -a {folder}/. /var/lib/kubelet/small/; umount {folder}
             rm -rf {folder}/*; cp -a /var/lib/kubelet/small/. {folder}/; rm -rf {folder}/lost+found /var/lib/kubelet/small /var/lib/kubelet/small.img"
        );
        if let Err(error) = moved(&back) {
            eprintln!("undo: {error}");
        }
    })
}

#[test]
fn postgres_disk_full() {
    let _disk = on_a_small_disk();
    let (scan, _volumes) = mid_scan("postgres-full", &json!({}));
    let restarts_before = restarts("controller");
    let folder = "/var/lib/kubelet/database";
    let undo = Undo::in_node("node-1", &format!("rm -f {folder}/full"));
    // The server may give something back while it is filled, and what was written counts only once it is on the disk.
    in_node(
        "node-1",
        &format!(
            "for i in $(seq 50); do cat /dev/zero >> {folder}/full 2>/dev/null || true
             dd if=/dev/zero of={folder}/full bs=64k count=1 oflag=append conv=notrunc,fsync 2>/dev/null || exit 0; done; df {folder}; exit 1"
        ),
    );
    told_and_outlived(&scan, &["DiskFull"], undo, &restarts_before);
}
