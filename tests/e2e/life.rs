//! What a scan's spec says about when it runs, for how long it stays, and what it tells of unused volumes.

use super::*;

fn patch(name: &str, spec: &Value) {
    run("kubectl", &["patch", "volumescan", name, "--type=merge", "-p", &json!({"spec": spec}).to_string()]);
}

fn reasons(name: &str) -> String {
    let field = format!("involvedObject.name={name}");
    run("kubectl", &["get", "events", "-n", "default", "--field-selector", &field, "-o", "jsonpath={.items[*].reason}"])
}

fn ended_run(scan: &Scan, seconds: u64, what: &str, key: &str) -> Value {
    let query = format!(
        "SELECT id FROM scan_runs WHERE run_key LIKE '{key}' AND scan_name = '{}' AND completed_at IS NOT NULL ORDER BY id DESC LIMIT 1",
        scan.0
    );
    wait(seconds, what, || {
        let (id, status) = (sql(&query), scan.status());
        (!id.is_empty() && status["lastRun"]["id"].as_i64() == id.parse().ok()).then_some(status)
    })
}

#[test]
fn a_schedule_is_followed_beside_triggers_and_until_it_is_suspended() {
    // So that the first scheduled run comes after the one that is asked for.
    wait(60, "time before the minute turns", || {
        (sql("SELECT extract(second FROM clock_timestamp()) < 40") == "t").then_some(())
    });
    let scan =
        Scan::new("minutely", &json!({"schedule": "* * * * *", "timeZone": "Europe/Berlin", "runHistoryLimit": 5}));
    let status = scan.until(15, "Scheduled", ("True", "WaitingForSchedule"));
    assert_eq!(condition(&status, "Ready").0, "True", "a schedule that is followed is ready before its first run");
    assert_eq!((status["lastRun"].is_null(), status["state"] == "Waiting"), (true, true), "{status}");
    assert!(status["nextScheduleTime"].as_str().unwrap().ends_with(":00Z"), "{status}");
    patch("minutely", &json!({"trigger": "now"}));
    ended_run(&scan, 30, "the trigger's run", "t:now");
    let status = ended_run(&scan, 75, "the scheduled run", "s:%");
    assert_eq!(
        sql("SELECT right(run_key, 4) FROM scan_runs WHERE run_key LIKE 's:%' AND scan_name = 'minutely'"),
        ":00Z"
    );
    assert_eq!(status["lastRun"]["result"], "Succeeded");
    assert!(status["lastScheduleTime"].as_str().unwrap().ends_with(":00Z"), "{status}");
    patch("minutely", &json!({"suspend": true}));
    let suspended = scan.until(15, "Ready", ("True", "Suspended"));
    assert_eq!((&suspended["state"], &suspended["nextScheduleTime"]), (&json!("Suspended"), &Value::Null));
    assert!(kubectl("get volumescan minutely --no-headers").contains("* * * * *"));
    patch("minutely", &json!({"suspend": false, "timeZone": "Mars/Olympus"}));
    let stalled = scan.until(15, "Stalled", ("True", "InvalidSchedule"));
    assert!(stalled.to_string().contains("spec.timeZone"), "{stalled}");
    wait(10, "an Event of it", || reasons("minutely").contains("InvalidSchedule").then_some(()));
}

#[test]
fn a_scan_that_outlived_its_time_is_deleted() {
    let spec = json!({"ttlSecondsAfterFinished": 2, "measurement": {"mode": "Inventory"}});
    let scan = Scan::new("short-lived", &spec);
    wait(30, "the scan to be deleted", || {
        kubectl("get volumescans -o name")
            .split_whitespace()
            .all(|name| name != "volumescan.volumeviz.io/short-lived")
            .then_some(())
    });
    assert_eq!(sql("SELECT result FROM scan_runs WHERE scan_name = 'short-lived'"), "Succeeded", "its run stays");
    drop(scan);
}

#[test]
fn unused_volumes_are_told_with_evidence_and_fresh_figures_are_not_measured_again() {
    make_volumes();
    Scan::new("first-look", &json!({})).complete(60);
    sql(
        "UPDATE volumes SET first_seen_at = first_seen_at - interval '40 days', unused_since = unused_since - interval '40 days'",
    );
    let measured = sql("SELECT max(created_at) FROM volume_sizes");
    let spec = json!({"limits": {"minIntervalSeconds": 3600, "maxParallelNodes": "50%"}});
    let scan = Scan::new("unused", &spec);
    let status = scan.complete(60);
    assert_eq!(sql("SELECT max(created_at) FROM volume_sizes"), measured, "nothing was measured again");
    let candidates = status["candidates"].as_array().unwrap();
    let of = |name: &str| candidates.iter().find(|candidate| candidate["name"] == *name).cloned();
    assert_eq!(of("web").map(|web| web["node"].clone()), Some(json!("node-2")), "the one on node-1 is in use");
    let hostile = of("hostile").unwrap();
    assert_eq!((&hostile["seenUsed"], &hostile["heldByStopped"]), (&json!(false), &json!(0)));
    let idle = of("idle").unwrap();
    assert_eq!(idle["heldByStopped"], 1, "a stopped container holds it, and it says so");
    assert!(idle["origin"].as_str().unwrap().contains("container stopped, image busybox"), "{idle}");
    assert_eq!(candidates.last().unwrap()["heldByStopped"], 1, "what can go at once comes first");
    let totals = &status["totals"];
    assert_eq!((&totals["candidates"], &totals["candidatesHeldByStopped"]), (&json!(4), &json!(2)), "{totals}");
    let wide = kubectl("get volumescan unused -o wide --no-headers");
    assert!(
        wide.contains(&format!("4 ({}", status["display"]["removable"].as_str().unwrap().trim_start_matches("4 ("))),
        "{wide}"
    );

    let in_use = Scan::new("in-use", &json!({"volumeSelector": {"usage": ["InUse"]}}));
    let totals = in_use.complete(60)["totals"].clone();
    assert_eq!((&totals["volumes"], &totals["inUse"], &totals["candidates"]), (&json!(1), &json!(1), &json!(0)));
    remove_volumes();
}

/// An object that another version's schema let pass.
#[test]
fn a_scan_of_another_version_says_so_and_stops_no_other() {
    let crd = "volumescans.volumeviz.io";
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/measurement/properties/mode/enum";
    let modes = get(&format!("crd {crd}"))["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        ["measurement"]["properties"]["mode"]["enum"]
        .clone();
    let edit = |modes: &Value| {
        let edit = json!([{"op": "replace", "path": path, "value": modes}]).to_string();
        run("kubectl", &["patch", "crd", crd, "--type=json", "-p", &edit]);
    };
    let mut wider = modes.as_array().unwrap().clone();
    wider.push(json!("Dream"));
    edit(&Value::from(wider));
    let other = wait(20, "the wider schema to hold", || {
        apply(&manifest("other-version", &json!({"measurement": {"mode": "Dream"}})))
            .ok()
            .map(|_| Scan("other-version".to_owned()))
    });
    edit(&modes);
    let status = other.until(20, "Stalled", ("True", "InvalidSpec"));
    assert!(status.to_string().contains("Dream"), "{status}");
    Scan::new("this-version", &json!({"measurement": {"mode": "Inventory"}})).complete(60);
    assert!(reasons("this-version").contains("RunCompleted"));
}
