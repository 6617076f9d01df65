//! A scan in the middle of its run, and what holds of that run once the fault is gone.

#![allow(unreachable_pub, reason = "a module of a test program")]

use super::*;

/// Gives agents so little of a processor that measuring the big volume takes many seconds.
pub const SLOW: &str = "30m";
/// Files of the big volume on node-2.
const BIG: u32 = 300_000;
/// Files of the small one, which is measured before it.
const SMALL: u32 = 1_000;

/// The files of the big volume, made once: where they are between tests, and in one.
const KEPT: &str = "/var/lib/docker/big";
const IN_USE: &str = "/var/lib/docker/volumes/b-big/_data/big";

/// The volumes on node-2, which go with their test: slow agents would need long for them in the next one.
pub struct Volumes;

impl Drop for Volumes {
    fn drop(&mut self) {
        let script = format!("[ ! -e {IN_USE} ] || mv {IN_USE} {KEPT}; docker volume rm a-small b-big");
        drop(try_in_node("node-2", &script));
    }
}

pub fn make_volumes() {
    in_node(
        "node-2",
        &format!(
            "docker volume create a-small >/dev/null; docker volume create b-big >/dev/null
             cd /var/lib/docker/volumes/a-small/_data; seq 1 {SMALL} | xargs touch
             [ -e {KEPT} ] || [ -e {IN_USE} ] || {{ mkdir -p {KEPT}-new; cd {KEPT}-new; seq 1 {BIG} | xargs touch; mv {KEPT}-new {KEPT}; }}
             [ -e {IN_USE} ] || mv {KEPT} {IN_USE}"
        ),
    );
}

/// Once for all tests.
pub fn slow_down_agents() {
    let limit = "get daemonset -n volumeviz volumeviz-agent -o jsonpath={.spec.template.spec.containers[0].resources.limits.cpu}";
    if kubectl(limit) != SLOW {
        let all_at_once = "agent.updateStrategy.rollingUpdate.maxUnavailable=100%";
        let limit = format!("agent.resources.limits.cpu={SLOW},{all_at_once}");
        install(&["--set", &limit, "--wait", "--timeout", "3m"]).unwrap();
    }
}

/// What an earlier fault took down is back: a container that failed twice waits before it is started again.
fn all_is_well() {
    for workload in ["deployment/volumeviz-controller", "daemonset/volumeviz-agent", "statefulset/volumeviz-database"] {
        kubectl(&format!("rollout status -n volumeviz {workload} --timeout=180s"));
    }
}

/// Asks a database for one value.
pub type Sql = fn(&str) -> Result<String, String>;

/// A run, and the database that holds it.
pub struct Run {
    id: i64,
    sql: Sql,
}

impl Run {
    /// The one that a status tells of last.
    pub fn last(status: &Value) -> Self {
        Self { id: status["lastRun"]["id"].as_i64().expect("a run has ended"), sql: try_sql }
    }

    /// The one that is under way.
    pub fn active(scan: &Scan, sql: Sql) -> Self {
        let id = wait(60, "a run", || scan.status()["activeRun"]["id"].as_i64());
        Self { id, sql }
    }

    fn get(&self, query: &str) -> String {
        (self.sql)(query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// A column of node-2's job.
    pub fn of_node_2(&self, column: &str) -> String {
        self.get(&format!("SELECT {column} FROM scan_jobs WHERE run_id = {} AND node = 'node-2'", self.id))
    }

    pub fn ticket(&self) -> String {
        self.of_node_2("ticket")
    }

    /// How it ended; empty while it is under way.
    pub fn result(&self) -> String {
        self.get(&format!("SELECT result FROM scan_runs WHERE id = {}", self.id))
    }

    /// The most attempts that a node had.
    pub fn attempts(&self) -> String {
        self.get(&format!("SELECT max(attempt) FROM scan_jobs WHERE run_id = {}", self.id))
    }

    /// What is final on node-2: `columns` of each result (`r`) and its volume (`v`), by the volume's name.
    pub fn results(&self, columns: &str) -> String {
        self.get(&format!(
            "SELECT string_agg(concat_ws(' ', {columns}), ', ' ORDER BY v.name) FROM scan_results r JOIN volumes v ON v.id = r.volume_id
             JOIN scan_jobs j ON j.id = r.scan_job_id WHERE j.run_id = {} AND j.node = 'node-2'",
            self.id
        ))
    }

    /// One success a node, and no result with two sizes.
    pub fn invariants_hold(&self, nodes: u32) {
        let succeeded = format!(
            "SELECT count(*), count(DISTINCT node) FROM scan_jobs WHERE run_id = {} AND status = 'succeeded'",
            self.id
        );
        assert_eq!(self.get(&succeeded), format!("{nodes}|{nodes}"));
        let sizes =
            "SELECT count(*) FROM (SELECT 1 FROM volume_sizes GROUP BY scan_result_id HAVING count(*) > 1) AS twice";
        assert_eq!(self.get(sizes), "0");
    }

    /// Whether a status tells of the run what the database does, also how far it is.
    fn is_told_by(&self, status: &Value) -> bool {
        let query = format!(
            "SELECT result, (SELECT coalesce(sum((progress ->> 'entries')::bigint), 0) FROM scan_jobs WHERE run_id = scan_runs.id)
             FROM scan_runs WHERE id = {}",
            self.id
        );
        let (active, last) = (&status["activeRun"], &status["lastRun"]);
        match (self.sql)(&query).as_deref().unwrap_or_default().split_once('|') {
            Some(("", entries)) => active["id"] == self.id && active["entries"].as_i64() == entries.parse().ok(),
            Some((result, _)) => active.is_null() && last["id"] == self.id && last["result"] == result,
            None => false,
        }
    }
}

/// What became of node-2's job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// One agent took it and ended it.
    WentOn,
    /// It was given a new ticket, and an agent that knew nothing of it went on from the rows.
    Resumed,
}

/// A scan whose run measures the big volume on node-2; the small one is final already.
pub struct MidScan {
    pub scan: Scan,
    pub run: Run,
    /// Restarts of controllers until then.
    pub controllers: String,
    /// The small volume's result.
    small: String,
    _volumes: Volumes,
}

pub fn mid_scan(name: &str, spec: &Value) -> MidScan {
    slow_down_agents();
    all_is_well();
    MidScan::reach(name, spec, try_sql)
}

impl MidScan {
    pub fn reach(name: &str, spec: &Value, sql: Sql) -> Self {
        let volumes = Volumes;
        make_volumes();
        let scan = Scan::new(name, spec);
        let run = Run::active(&scan, sql);
        wait(90, "node-2 to be in the middle of the big volume", || {
            (run.of_node_2("status") == "running" && run.results("v.name") == "a-small").then_some(())
        });
        let small = run.results("v.name, r.id, r.measured_at");
        Self { scan, run, controllers: restarts("controller"), small, _volumes: volumes }
    }

    /// The fault is gone: within 60 s the status is right by itself, whatever the run has left to do.
    pub fn status_is_right(&self) {
        let since = Instant::now();
        wait(60, "the status to be right", || {
            let scan = self.scan.read();
            (is_right(&scan) && self.run.is_told_by(&scan["status"])).then_some(())
        });
        took("status right after the fault", since);
    }

    /// Waits for the run's end, and tells how long it took.
    pub fn ended(&self, seconds: u64, what: &str, since: Instant) {
        self.scan.complete(seconds);
        took(what, since);
    }

    /// What holds after every fault: the run succeeded with so many attempts at most on a node, nothing is there twice, nothing final was
    /// measured again, the status is right and stays as it is.
    pub fn ends_well(&self, seconds: u64, attempts: u32, job: Job) -> Value {
        let status = self.scan.complete(seconds);
        let run = &status["lastRun"];
        assert_eq!((&run["id"], &run["result"]), (&json!(self.run.id), &json!("Succeeded")), "{status}");
        assert_eq!(self.run.attempts(), attempts.to_string(), "attempts of {status}");
        self.run.invariants_hold(u32::try_from(run["nodes"]["total"].as_u64().unwrap()).unwrap());
        self.nothing_was_measured_again(job);
        wait(60, "the status to be right in the end", || is_right(&self.scan.read()).then_some(()));
        stays(5, "the status", || self.scan.status());
        status
    }

    /// The end that a run has when node-2 is given up: the others' results count, and the status says why there is none of node-2.
    pub fn ends_without_node_2(&self, seconds: u64, reason: &str) {
        let status = self.scan.complete(seconds);
        let (run, failed) = (&status["lastRun"], &status["failedNodes"][0]);
        assert_eq!((&run["id"], &run["result"]), (&json!(self.run.id), &json!("Partial")), "{status}");
        assert_eq!((&failed["node"], &failed["reason"]), (&json!("node-2"), &json!(reason)), "{status}");
        assert!(failed["message"].as_str().is_some_and(|message| !message.is_empty()), "{status}");
        self.run.invariants_hold(2);
    }

    /// A volume's first result stays whatever is reported later, so its row alone proves nothing. How many entries were looked at does: an
    /// attempt counts from 0.
    fn nothing_was_measured_again(&self, job: Job) {
        let (rows, figures) =
            (self.run.results("v.name, r.id, r.measured_at"), self.run.results("v.name, r.completeness, r.files"));
        assert!(rows.starts_with(&format!("{}, ", self.small)), "{rows} instead of {}", self.small);
        assert!(figures.starts_with(&format!("a-small Complete {SMALL}, b-big Complete {BIG}")), "{figures}");
        let entries: u32 = self.run.of_node_2("progress ->> 'entries'").parse().unwrap();
        let expected = match job {
            Job::WentOn => BIG + SMALL..BIG + 2 * SMALL,
            Job::Resumed => BIG..BIG + SMALL,
        };
        assert!(expected.contains(&entries), "the attempt that ended the job looked at {entries} entries ({job:?})");
    }
}
