//! What many scans cost while nothing happens.

use super::super::*;

const SCANS: u32 = 20;
const MINUTES: u64 = 5;

#[test]
fn twenty_scans_and_twenty_schedules_at_rest() {
    let scans: Vec<Scan> = (0..SCANS).map(|n| Scan::new(&format!("rest-{n}"), &json!({}))).collect();
    let schedules: Vec<Scan> =
        (0..SCANS).map(|n| Scan::new(&format!("idle-{n}"), &json!({"schedule": "0 0 1 1 *"}))).collect();
    for scan in &scans {
        scan.complete(180);
    }
    for scan in &schedules {
        scan.until(60, "Ready", ("True", "WaitingForSchedule"));
    }
    let seen = wait(20, "the last writes", || Some(writes()).filter(|writes| !writes.is_empty()));
    assert!(seen.iter().any(|write| write.contains("volumescans/rest-0/status")), "the count sees status writes");
    stays(10, "settling", || ());
    let before = writes().len();
    std::thread::sleep(std::time::Duration::from_secs(MINUTES * 60));
    assert_eq!(writes().split_off(before), Vec::<String>::new(), "writes at rest");
    let pod = leader();
    let node = node_of(&pod);
    let process = controller_pid(&node, &pod);
    let resident: u32 = in_node(&node, &format!("awk '/VmRSS/ {{print $2}}' /proc/{process}/status")).parse().unwrap();
    let peak: u32 = in_node(&node, &format!("awk '/VmHWM/ {{print $2}}' /proc/{process}/status")).parse().unwrap();
    println!("    controller: {resident} KiB resident, {peak} KiB at most");
    assert!(peak < 64 * 1024, "{peak} KiB");
}
