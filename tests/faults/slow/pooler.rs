//! PgBouncer between the product and its database, on the machine, where pods reach it as they would a server outside of the cluster.

use super::super::*;
use super::external::{HOST, PASSWORD, external_database, install_over_it, try_external_sql};
use super::slow_network::MACHINE;

/// Before the external database.
fn bouncer() -> Bouncer {
    let server = kubectl("get pod -n elsewhere database -o jsonpath={.status.podIP}");
    let users = [("external_controller", PASSWORD), ("external_agent", PASSWORD)];
    let bouncer = Bouncer::start(MACHINE, &format!("volumeviz = host={server} port=5432"), &users, "");
    listening(&bouncer);
    bouncer
}

fn listening(bouncer: &Bouncer) {
    wait(20, "PgBouncer to listen", || bouncer.is_listening().then_some(()));
}

#[test]
fn pgbouncer_restarted_in_the_middle() {
    let _bundled = external_database();
    let mut bouncer = bouncer();
    install_over_it(&format!(
        "database.external.host={MACHINE},database.external.port={},database.external.pooler=transaction,database.external.direct.host={HOST}",
        bouncer.address.port()
    ));
    let mid = MidScan::reach("bouncer-restarted", &json!({}), try_external_sql);
    let since = Instant::now();
    // That anybody notices shows that it is in between.
    bouncer.kill();
    assert!(!bouncer.is_listening());
    database_loss_is_told(&mid.scan, &["Unreachable"], since);
    bouncer.start_anew();
    listening(&bouncer);
    mid.status_is_right();
    mid.ends_well(150, 1, Job::WentOn);
    assert_eq!(restarts("controller"), mid.controllers, "it heals without a restart");
    no_permit_is_lost();
}
