//! Growth, what gets full and what could be removed, under the names by which users see them.

use serde_json::{Value, json};

use super::told::some_figures;
use super::*;

/// The status of a scan at rest with these figures, as it is stored.
fn told(figures: Option<Figures>) -> Value {
    let mut observed = at_rest(ended(RunResult::Succeeded, "RunSucceeded"));
    observed.runs.as_mut().unwrap().figures = figures;
    json!(status::next(&scan(), &observed, None))
}

#[test]
fn growth_is_told_with_what_it_comes_from() {
    let growth = Growth { bytes_per_day: 3 << 30, window_days: 14, samples: 12, volumes: 7 };
    let of = |bytes_per_day| told(Some(Figures { growth: Some(Growth { bytes_per_day, ..growth }), ..some_figures() }));
    let grows = of(3 << 30);
    let expected = json!({"bytesPerDay": 3_221_225_472_i64, "windowDays": 14, "samples": 12, "volumes": 7});
    assert_eq!((&grows["growth"], &grows["display"]["growth"]), (&expected, &json!("+3.00 GiB")));
    assert_eq!(of(0)["display"]["growth"], "0 B");
    assert_eq!(of(-2048)["display"]["growth"], "-2.00 KiB");
}

#[test]
fn growth_that_is_not_known_is_not_told() {
    for unknown in [told(Some(Figures { growth: None, ..some_figures() })), told(None)] {
        assert_eq!((unknown.get("growth"), unknown["display"].get("growth")), (None, None), "{unknown:#}");
    }
}

#[test]
fn what_grows_fastest_is_told_with_when_it_is_full() {
    let row = |name: &str, bytes_per_day, available_bytes| GrowingRow {
        node: "node-1".to_owned(),
        name: name.to_owned(),
        bytes_per_day,
        allocated_bytes: 4096,
        available_bytes,
    };
    let fastest = vec![row("fast", 1000, Some(9999)), row("slow", 10, None), row("full", 5, Some(0))];
    let status = told(Some(Figures { fastest, growing: 5, ..some_figures() }));
    let volume = |name: &str, bytes_per_day: i64| json!({"node": "node-1", "name": name, "bytesPerDay": bytes_per_day, "allocatedBytes": 4096});
    let mut expected = [volume("fast", 1000), volume("slow", 10), volume("full", 5)];
    // Whole days, rounded down.
    expected[0]["fullInDays"] = json!(9);
    expected[2]["fullInDays"] = json!(0);
    assert_eq!(status["fastestGrowing"], json!(expected));
    assert_eq!(status["fastestGrowingOmitted"], 2);
}

#[test]
fn a_candidate_for_removal_is_told_with_its_evidence() {
    let row = CandidateRow {
        node: "node-2".to_owned(),
        name: "old".to_owned(),
        unused_since: at(1_767_225_600),
        seen_used: true,
        held_by_stopped: 2,
        origin: json!({"container": "shop-1", "image": "shop:2", "compose_project": "shop"}),
        allocated_bytes: Some(4096),
        last_seen_at: at(1_767_312_000),
    };
    let unknown = CandidateRow {
        name: "never seen in use".to_owned(),
        seen_used: false,
        held_by_stopped: 0,
        origin: json!({}),
        allocated_bytes: None,
        ..row.clone()
    };
    let figures = Figures { removable: vec![row, unknown], candidates: 3, candidates_held: 1, ..some_figures() };
    let status = told(Some(figures));
    let expected = json!([
        {
            "node": "node-2", "name": "old", "unusedSince": "2026-01-01T00:00:00Z", "seenUsed": true, "heldByStopped": 2,
            "origin": "container shop-1, image shop:2, compose project shop", "allocatedBytes": 4096, "size": "4.00 KiB",
            "seenTime": "2026-01-02T00:00:00Z",
        },
        {
            "node": "node-2", "name": "never seen in use", "unusedSince": "2026-01-01T00:00:00Z", "seenUsed": false, "heldByStopped": 0,
            "seenTime": "2026-01-02T00:00:00Z",
        },
    ]);
    assert_eq!(status["candidates"], expected);
    assert_eq!(status["candidatesOmitted"], 2);
}
