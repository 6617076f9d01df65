//! The database: killed, restarted, out of reach, slow, full, read-only, crowded.

use std::time::Duration;

use super::super::*;
use super::slow_network;

const DATABASE: &str = "volumeviz-database-0";

#[test]
fn postgres_away_in_the_middle() {
    let mid = mid_scan("postgres-away", &json!({}));
    let seconds = std::env::var("FAULT_AWAY_SECONDS").map_or(35, |seconds| seconds.parse().unwrap());
    let since = Instant::now();
    let back = database_away();
    database_loss_is_told(&mid.scan, &["Unreachable"], since);
    stays(seconds, "the run goes on while the database is away", || mid.scan.status()["activeRun"]["id"].clone());
    back.now();
    mid.status_is_right();
    mid.ends_well(120, 1, Job::WentOn);
}

/// A fault that a run outlives: told within 15 s, gone by itself, and no attempt the dearer.
fn told_and_outlived(mid: &MidScan, reasons: &[&str], since: Instant, undo: Undo) {
    database_loss_is_told(&mid.scan, reasons, since);
    std::thread::sleep(Duration::from_secs(20));
    undo.now();
    mid.status_is_right();
    mid.ends_well(150, 1, Job::WentOn);
    assert_eq!(restarts("controller"), mid.controllers, "it heals without a restart");
    no_permit_is_lost();
}

fn postmaster() -> String {
    in_node("node-1", "pgrep -f '^postgres -c' | head -1")
}

#[test]
fn postgres_killed() {
    let mid = mid_scan("postgres-killed", &json!({}));
    let old = postmaster();
    let since = Instant::now();
    in_node("node-1", &format!("kill -9 {old}"));
    wait(60, "another postmaster", || {
        let now = try_in_node("node-1", "pgrep -f '^postgres -c' | head -1").unwrap_or_default();
        (!now.is_empty() && now != old && try_sql("SELECT 1").is_ok()).then_some(())
    });
    took("another postmaster", since);
    mid.status_is_right();
    mid.ends_well(150, 1, Job::WentOn);
    assert_eq!(restarts("controller"), mid.controllers, "it heals without a restart");
    no_permit_is_lost();
}

#[test]
fn postgres_restarted_ten_times() {
    let mid = mid_scan("postgres-restarted", &json!({}));
    let uid = || try_run("kubectl", &["get", "pod", "-n", "volumeviz", DATABASE, "-o", "jsonpath={.metadata.uid}"]);
    let since = Instant::now();
    for _ in 0..10 {
        let old = uid();
        kubectl(&format!("delete pod -n volumeviz {DATABASE} --grace-period=2"));
        wait(60, "another database pod", || {
            (uid().is_ok() && uid() != old && try_sql("SELECT 1").is_ok()).then_some(())
        });
    }
    took("ten restarts", since);
    mid.status_is_right();
    mid.ends_well(150, 1, Job::WentOn);
    assert_eq!(restarts("controller"), mid.controllers, "it heals without a restart");
    no_permit_is_lost();
}

/// Packets vanish: no connection is refused, none is reset.
#[test]
fn postgres_unreachable_without_a_reset() {
    let mid = mid_scan("postgres-cut", &json!({}));
    let since = Instant::now();
    let undo = drop_packets("node-1", &["-p tcp --dport 5432", "-p tcp --sport 5432"]);
    told_and_outlived(&mid, &["Timeout", "Unreachable"], since, undo);
}

#[test]
fn postgres_answers_each_call_two_seconds_late() {
    let mid = mid_scan("postgres-slow", &json!({}));
    let undo = slow_network::delay_answers(Duration::from_secs(2));
    let since = Instant::now();
    cut_connections();
    told_and_outlived(&mid, &["Timeout", "Unreachable"], since, undo);
}

#[test]
fn postgres_read_only() {
    let mid = mid_scan("postgres-read-only", &json!({}));
    let undo = Undo::new(|| {
        tell("undo", try_sql("ALTER SYSTEM RESET default_transaction_read_only"));
        tell("undo", try_sql("SELECT pg_reload_conf()"));
    });
    sql("ALTER SYSTEM SET default_transaction_read_only = on");
    let since = Instant::now();
    sql("SELECT pg_reload_conf()");
    wait(10, "writes to be refused", || try_sql("CREATE TABLE refused ()").is_err().then_some(()));
    told_and_outlived(&mid, &["ReadOnly"], since, undo);
}

#[test]
fn postgres_has_no_connection_left() {
    let mid = mid_scan("postgres-crowded", &json!({}));
    // Superusers, which is who undoes it, are let in all the same.
    let undo = Undo::sql("ALTER DATABASE volumeviz CONNECTION LIMIT -1");
    let since = Instant::now();
    sql("ALTER DATABASE volumeviz CONNECTION LIMIT 0");
    cut_connections();
    told_and_outlived(&mid, &["TooManyConnections"], since, undo);
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
    let back = format!(
        "rm -f {folder}/full; mkdir -p /var/lib/kubelet/small; cp -a {folder}/. /var/lib/kubelet/small/; umount {folder}
         rm -rf {folder}/*; cp -a /var/lib/kubelet/small/. {folder}/; rm -rf {folder}/lost+found /var/lib/kubelet/small /var/lib/kubelet/small.img"
    );
    moved(&format!(
        "truncate -s 400M /var/lib/kubelet/small.img; mkfs.ext4 -q -m 0 /var/lib/kubelet/small.img
         mkdir -p /var/lib/kubelet/small; mount -o loop /var/lib/kubelet/small.img /var/lib/kubelet/small
         cp -a {folder}/. /var/lib/kubelet/small/; chown 999:999 /var/lib/kubelet/small; umount /var/lib/kubelet/small
         mount -o loop /var/lib/kubelet/small.img {folder}"
    ))
    .unwrap();
    Undo::new(move || tell("undo", moved(&back)))
}

#[test]
fn postgres_disk_full() {
    let _disk = on_a_small_disk();
    let mid = mid_scan("postgres-full", &json!({}));
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
    told_and_outlived(&mid, &["DiskFull"], Instant::now(), undo);
}
