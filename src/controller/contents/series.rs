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
mod tests;
