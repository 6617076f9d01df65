//! What Prometheus reads.

use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, store::Writer};
use kube::runtime::watcher::Event;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::*;
use crate::store::contents;

/// The series, without descriptions.
fn series(of: &Contents) -> Vec<String> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(of.clone()));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(ToOwned::to_owned).collect()
}

fn volume(name: &str) -> VolumeContents {
    VolumeContents {
        node: "n".to_owned(),
        name: name.to_owned(),
        partial: false,
        allocated_bytes: 4096,
        files: Some(2),
        growth_bytes_per_day: None,
    }
}

fn known(volumes: Vec<VolumeContents>, node: NodeContents) -> Contents {
    let shown = Contents::default();
    shown.tell(Some(contents::Contents { nodes: vec![node], volumes }));
    shown
}

fn node(measured: i64, allocated_bytes: Option<i64>) -> NodeContents {
    NodeContents {
        node: "n".to_owned(),
        measured,
        partial: 0,
        unknown: 1,
        allocated_bytes,
        apparent_bytes: None,
        files: None,
    }
}

#[test]
fn what_is_not_known_has_no_series() {
    assert_eq!(series(&Contents::default()), [""; 0]);
    let shown = known(Vec::new(), node(0, None));
    assert_eq!(
        series(&shown),
        [
            r#"node_volumes{node="n",completeness="measured"} 0"#,
            r#"node_volumes{node="n",completeness="partial"} 0"#,
            r#"node_volumes{node="n",completeness="unknown"} 1"#,
            "volume_series_omitted 0"
        ]
    );
    shown.tell(None);
    assert_eq!(series(&shown), [""; 0], "the database is away");
}

#[test]
fn volumes_are_told_one_by_one_and_the_others_counted() {
    let lower_bound = VolumeContents { partial: true, growth_bytes_per_day: Some(-7), ..volume("p") };
    let series = series(&known(vec![lower_bound, volume("v")], node(5, Some(9000))));
    assert_eq!(
        series[3..],
        [
            r#"node_allocated_bytes{node="n"} 9000"#,
            r#"volume_allocated_bytes{node="n",volume="p"} 4096"#,
            r#"volume_allocated_bytes{node="n",volume="v"} 4096"#,
            r#"volume_files{node="n",volume="p"} 2"#,
            r#"volume_files{node="n",volume="v"} 2"#,
            r#"volume_growth_bytes_per_day{node="n",volume="p"} -7"#,
            r#"volume_lower_bound{node="n",volume="p"} 1"#,
            "volume_series_omitted 3"
        ]
    );
}

#[test]
fn a_hostile_name_stays_one_label() {
    let name = "a\",node=\"x\"} 1\nvolume_files{volume=\"\\";
    let series = series(&known(vec![volume(name)], node(1, Some(1))));
    let told: Vec<_> = series.iter().filter(|line| line.contains("volume_files")).collect();
    let label = r#"volume="a\",node=\"x\"} 1\nvolume_files{volume=\"\\""#;
    assert_eq!(
        told,
        [
            &format!(r#"volume_allocated_bytes{{node="n",{label}}} 4096"#),
            &format!(r#"volume_files{{node="n",{label}}} 2"#)
        ]
    );
}

/// Name, labels and value.
type Sample<'a> = (&'a str, Vec<(&'a str, String)>, i64);

/// A sample, read as Prometheus reads it.
fn sample(line: &str) -> Option<Sample<'_>> {
    let (name, mut rest) = line.split_once('{')?;
    let mut labels = Vec::new();
    loop {
        let (label, quoted) = rest.split_once("=\"")?;
        let (mut value, mut characters) = (String::new(), quoted.char_indices());
        let end = loop {
            match characters.next()? {
                (end, '"') => break end,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    _ => return None,
                }),
                (_, c) => value.push(c),
            }
        };
        labels.push((label, value));
        rest = &quoted[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Some((name, labels, rest.strip_prefix("} ")?.parse().ok()?)),
        }
    }
}

#[test]
fn whatever_names_there_are_a_sample_is_a_line_with_its_labels() {
    let named = |name: &&str| VolumeContents { node: (*name).to_owned(), ..volume(name) };
    let shown = known(crate::hostile::TEXTS.iter().map(named).collect(), node(1, Some(1)));
    let mut registry = Registry::default();
    registry.register_collector(Box::new(shown));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let of_volumes = text.split('\n').filter(|line| line.starts_with("volume_files{"));
    let told: Vec<_> = of_volumes.map(|line| sample(line).unwrap_or_else(|| panic!("{line:?}"))).collect();
    let expected = crate::hostile::TEXTS
        .iter()
        .map(|name| ("volume_files", vec![("node", (*name).to_owned()), ("volume", (*name).to_owned())], 2));
    assert_eq!(told, expected.collect::<Vec<_>>());
    let others =
        text.split('\n').filter(|line| !line.starts_with("# ") && !line.starts_with("volume_") && !line.is_empty());
    assert!(others.clone().all(|line| line.starts_with("node_")), "{:?}", others.collect::<Vec<_>>());
    assert_eq!(text.matches("\n# EOF\n").count(), 1);
}

#[test]
fn only_so_many_volumes_have_series() {
    let limit = |top, all, max| super::super::VolumeSeries { top, all, max }.limit();
    assert_eq!((limit(20, false, 5000), limit(20, true, 5000)), (20, 5000));
    assert_eq!((limit(20, false, 7), limit(0, false, 5000)), (7, 0));
}

fn scan(name: &str, status: &Value) -> DeserializeGuard<VolumeScan> {
    let scan = json!({"apiVersion": "volumeviz.io/v1alpha1", "kind": "VolumeScan",
        "metadata": {"name": name, "uid": name}, "spec": {}, "status": status});
    serde_json::from_value(scan).unwrap()
}

fn status(connected: bool) -> Value {
    json!({
        "lastSuccessfulTime": "2026-01-01T00:00:00Z",
        "lastRun": {"id": 1, "result": "Partial", "reason": "Any", "startTime": "2026-01-01T23:59:00Z",
            "completionTime": "2026-01-02T00:00:00Z", "durationSeconds": 60,
            "nodes": {"total": 1, "pending": 0, "running": 0, "succeeded": 0, "failed": 1, "skipped": 0}},
        "growth": {"bytesPerDay": -5, "windowDays": 5, "samples": 5, "volumes": 1},
        "totals": {"volumes": 10, "measured": 4, "partial": 3, "failed": 2, "unknown": 1, "anonymous": 0, "inUse": 0, "unused": 10,
            "allocatedBytes": 70, "apparentBytes": 60, "files": 50, "candidates": 6, "candidateBytes": 40,
            "candidatesHeldByStopped": 0, "staleNodes": 8},
        "database": {"connected": connected, "reason": "Any", "since": "2026-01-01T00:00:00Z"},
    })
}

fn followed() -> (Contents, Writer<DeserializeGuard<VolumeScan>>) {
    let (scans, writer) = reflector::store();
    let shown = Contents::default();
    shown.follow(scans);
    (shown, writer)
}

#[test]
fn a_scan_is_told_as_its_status_tells_it_until_it_is_gone() {
    let (shown, mut writer) = followed();
    writer.apply_watcher_event(&Event::Apply(scan("s", &status(true))));
    assert_eq!(
        series(&shown),
        [
            r#"scan_volumes{scan="s",completeness="measured"} 4"#,
            r#"scan_volumes{scan="s",completeness="partial"} 3"#,
            r#"scan_volumes{scan="s",completeness="failed"} 2"#,
            r#"scan_volumes{scan="s",completeness="unknown"} 1"#,
            r#"scan_allocated_bytes{scan="s"} 70"#,
            r#"scan_candidates{scan="s"} 6"#,
            r#"scan_candidate_bytes{scan="s"} 40"#,
            r#"scan_growth_bytes_per_day{scan="s"} -5"#,
            r#"scan_stale_nodes{scan="s"} 8"#,
            r#"scan_last_success_timestamp_seconds{scan="s"} 1767225600"#,
            r#"scan_last_run_timestamp_seconds{scan="s",result="Partial"} 1767312000"#,
        ]
    );
    writer.apply_watcher_event(&Event::Delete(scan("s", &status(true))));
    assert_eq!(series(&shown), [""; 0]);
}

#[test]
fn a_scan_without_figures_or_database_tells_none() {
    let (shown, mut writer) = followed();
    writer.apply_watcher_event(&Event::Apply(scan("new", &json!({"database": status(true)["database"]}))));
    writer.apply_watcher_event(&Event::Apply(scan("away", &status(false))));
    assert_eq!(
        series(&shown),
        [
            r#"scan_last_success_timestamp_seconds{scan="away"} 1767225600"#,
            r#"scan_last_run_timestamp_seconds{scan="away",result="Partial"} 1767312000"#,
        ]
    );
}

fn alert(status: &Value) -> DeserializeGuard<VolumeAlert> {
    let alert = json!({"apiVersion": "volumeviz.io/v1alpha1", "kind": "VolumeAlert", "metadata": {"name": "big", "uid": "big"},
        "spec": {"scope": "Volume", "rule": {"sizeAbove": {"bytes": 1}}, "severity": "Critical"}, "status": status});
    serde_json::from_value(alert).unwrap()
}

#[test]
fn an_alert_is_told_as_its_status_counts_it_until_it_is_gone() {
    let (alerts, mut writer) = reflector::store();
    let shown = Contents::default();
    shown.follow_alerts(alerts);
    writer.apply_watcher_event(&Event::Apply(alert(&json!({}))));
    assert_eq!(series(&shown), [""; 0], "nothing was counted yet");
    let counted = alert(&json!({"counts": {"evaluated": 9, "firing": 3, "pending": 2, "noData": 1}}));
    writer.apply_watcher_event(&Event::Apply(counted.clone()));
    assert_eq!(
        series(&shown),
        [
            r#"alert_subjects{alert="big",severity="critical",state="firing"} 3"#,
            r#"alert_subjects{alert="big",severity="critical",state="pending"} 2"#,
            r#"alert_subjects{alert="big",severity="critical",state="no_data"} 1"#,
        ]
    );
    writer.apply_watcher_event(&Event::Delete(counted));
    assert_eq!(series(&shown), [""; 0]);
}
