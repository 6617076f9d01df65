//! The installation's namespace deleted in the middle of a run, and the chart installed anew over the same external database.

use super::super::*;
use super::external::{HOST, external_database, external_sql, install_over_it, try_external_sql};

#[test]
fn namespace_deleted_and_the_chart_installed_anew() {
    let _bundled = external_database();
    let values = format!("database.external.host={HOST}");
    install_over_it(&values);
    let mid = MidScan::reach("outlives", &json!({}), try_external_sql);
    let active = mid.scan.status()["activeRun"]["id"].clone();
    kubectl("delete namespace volumeviz --timeout=120s");
    assert_eq!(mid.scan.status()["activeRun"]["id"], active, "the scan is kept as it was");
    install_over_it(&values);
    let since = Instant::now();
    mid.status_is_right();
    mid.ended(200, "end of the run after the installation", since);
    mid.ends_well(10, 1, Job::Resumed);
    assert_eq!(external_sql("SELECT count(*) FROM scan_runs"), "1", "the same run, not another");
}
