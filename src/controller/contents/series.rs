//! The series themselves. Every name is told, also while it has no series.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Contents, Known};
use crate::crd::{Totals, VolumeAlert, VolumeScan, VolumeScanStatus};
use crate::store::contents::{NodeContents, VolumeContents};

/// A gauge's name and description, and its value of one `T`, where it has one.
type Figure<T> = (&'static str, &'static str, fn(&T) -> Option<i64>);

impl Collector for Contents {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Known { contents, scans, alerts } = self.known().clone();
        let contents = contents.as_deref();
        nodes(&mut encoder, contents.map_or(&[], |contents| &contents.nodes))?;
        volumes(&mut encoder, contents.map_or(&[], |contents| &contents.volumes))?;
        let omitted = describe(&mut encoder, "volume_series_omitted", "Measured volumes without series of their own")?;
        if let Some(contents) = contents {
            ConstGauge::new(contents.omitted()).encode(omitted)?;
        }
        let scans = scans.map(|scans| scans.state()).unwrap_or_default();
        let scans: Vec<&VolumeScan> = scans.iter().filter_map(|scan| scan.0.as_ref().ok()).collect();
        self::scans(&mut encoder, &scans)?;
        let alerts = alerts.map(|alerts| alerts.state()).unwrap_or_default();
        let alerts: Vec<&VolumeAlert> = alerts.iter().filter_map(|alert| alert.0.as_ref().ok()).collect();
        self::alerts(&mut encoder, &alerts)
    }
}

fn nodes(encoder: &mut DescriptorEncoder<'_>, nodes: &[NodeContents]) -> fmt::Result {
    let counts = nodes.iter().flat_map(|of| {
        let counts = [("measured", of.measured), ("partial", of.partial), ("unknown", of.unknown)];
        counts.map(|(completeness, count)| ([("node", of.node.as_str()), ("completeness", completeness)], Some(count)))
    });
    gauge(
        encoder,
        "node_volumes",
        "Volumes of a node: measured, partial (figures are lower bounds) or unknown (not measured when looked at last, or never)",
        counts,
    )?;
    let figures: [Figure<NodeContents>; 3] = [
        (
            "node_allocated_bytes",
            "Disk space of a node's measured and partial volumes; a lower bound while any are partial or unknown",
            |of| of.allocated_bytes,
        ),
        ("node_apparent_bytes", "Sum of the file sizes of these", |of| of.apparent_bytes),
        ("node_files", "Files of these", |of| of.files),
    ];
    for (name, help, figure) in figures {
        gauge(encoder, name, help, nodes.iter().map(|of| ([("node", of.node.as_str())], figure(of))))?;
    }
    Ok(())
}

fn volumes(encoder: &mut DescriptorEncoder<'_>, volumes: &[VolumeContents]) -> fmt::Result {
    let figures: [Figure<VolumeContents>; 4] = [
        ("volume_allocated_bytes", "Disk space of a volume", |of| Some(of.allocated_bytes)),
        ("volume_files", "Files of a volume", |of| of.files),
        (
            "volume_growth_bytes_per_day",
            "Growth of a volume; absent below five daily samples, negative when it shrinks",
            |of| of.growth_bytes_per_day,
        ),
        ("volume_lower_bound", "1 where a volume was measured in part, so that its figures are lower bounds", |of| {
            of.partial.then_some(1)
        }),
    ];
    for (name, help, figure) in figures {
        gauge(encoder, name, help, volumes.iter().map(|of| (volume(of), figure(of))))?;
    }
    Ok(())
}

fn volume(of: &VolumeContents) -> [(&str, &str); 2] {
    [("node", &of.node), ("volume", &of.name)]
}

fn scans(encoder: &mut DescriptorEncoder<'_>, scans: &[&VolumeScan]) -> fmt::Result {
    let counts = scans.iter().filter_map(|scan| Some((name(scan), totals(scan)?.counts)));
    let counts = counts.flat_map(|(scan, of)| {
        let counts =
            [("measured", of.measured), ("partial", of.partial), ("failed", of.failed), ("unknown", of.unknown)];
        counts.map(|(completeness, count)| ([("scan", scan), ("completeness", completeness)], Some(count)))
    });
    gauge(
        encoder,
        "scan_volumes",
        "Volumes of a VolumeScan: measured, partial, failed (something went wrong) or unknown (never measured: other \
         drivers, network file systems)",
        counts,
    )?;
    let figures: [Figure<VolumeScan>; 6] = [
        (
            "scan_allocated_bytes",
            "Disk space of a VolumeScan's volumes; a lower bound while there are others than measured",
            |scan| Some(totals(scan)?.allocated_bytes),
        ),
        ("scan_candidates", "Volumes unused for unusedAfterDays and held by no container", |scan| {
            Some(totals(scan)?.candidates)
        }),
        ("scan_candidate_bytes", "Disk space of these, as far as it is known", |scan| {
            Some(totals(scan)?.candidate_bytes)
        }),
        ("scan_growth_bytes_per_day", "Growth of all volumes of a VolumeScan whose growth is known", |scan| {
            Some(figures(scan)?.growth.as_ref()?.bytes_per_day)
        }),
        ("scan_stale_nodes", "Nodes of a VolumeScan whose figures are of an earlier run than the last", |scan| {
            Some(totals(scan)?.stale_nodes)
        }),
        ("scan_last_success_timestamp_seconds", "When the last run of a VolumeScan that succeeded ended", |scan| {
            Some(scan.status.as_ref()?.last_successful_time.as_ref()?.0.as_second())
        }),
    ];
    for (name, help, figure) in figures {
        gauge(encoder, name, help, scans.iter().map(|scan| ([("scan", self::name(scan))], figure(scan))))?;
    }
    let ended = scans.iter().filter_map(|scan| {
        let run = scan.status.as_ref()?.last_run.as_ref()?;
        Some(([("scan", name(scan)), ("result", run.result.as_str())], Some(run.completion_time.0.as_second())))
    });
    let help = "When the last run of a VolumeScan ended, by its result: Succeeded, Partial, Failed or Cancelled";
    gauge(encoder, "scan_last_run_timestamp_seconds", help, ended)
}

/// As the statuses have them: what fired before the database went away is not over.
fn alerts(encoder: &mut DescriptorEncoder<'_>, alerts: &[&VolumeAlert]) -> fmt::Result {
    let counts = alerts.iter().filter_map(|alert| {
        let severity = alert.spec.severity.as_str().to_lowercase();
        Some((alert.metadata.name.clone()?, severity, alert.status.as_ref()?.counts?))
    });
    let counts = counts.flat_map(|(alert, severity, of)| {
        [("firing", of.firing), ("pending", of.pending), ("no_data", of.no_data)].map(|(state, count)| {
            let state = ("state", state.to_owned());
            ([("alert", alert.clone()), ("severity", severity.clone()), state], Some(count))
        })
    });
    gauge(
        encoder,
        "alert_subjects",
        "Subjects (volumes, nodes, or 1 for the cluster) of a VolumeAlert, whose severity is info, warning or critical: firing, \
         pending (for less than forSeconds) or no_data (without a figure; it may fire as well)",
        counts,
    )
}

fn name(scan: &VolumeScan) -> &str {
    scan.metadata.name.as_deref().unwrap_or_default()
}

fn totals(scan: &VolumeScan) -> Option<&Totals> {
    figures(scan)?.totals.as_ref()
}

/// The status, whose figures are old ones while the database is away.
fn figures(scan: &VolumeScan) -> Option<&VolumeScanStatus> {
    scan.status.as_ref().filter(|status| status.database.as_ref().is_some_and(|database| database.connected))
}

/// One gauge; what has no value has no series.
fn gauge<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (L, Option<i64>)>,
) -> fmt::Result {
    let mut metric = describe(encoder, name, help)?;
    for (labels, value) in series {
        if let Some(value) = value {
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn describe<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, &format!("{help}."), None, MetricType::Gauge)
}

#[cfg(test)]
mod tests {
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
}
