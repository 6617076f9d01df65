//! The figures of a scan as its status tells them.

use super::status::{omitted, time};
use crate::crd::conditions::{MAX_NODE_CHARS, shorten};
use crate::crd::{Candidate, GrowingVolume, Growth, TopEntry, TopVolume, Totals, VolumeScanStatus};
use crate::domain::bytes::HumanBytes;
use crate::domain::growth::full_in_days;
use crate::domain::text::{end_of, showable};
use crate::store::figures::{CandidateRow, EntryRow, Figures, GrowingRow, VolumeRow};

/// The longest name of a volume in a list.
const MAX_NAME_CHARS: usize = 255;
const MAX_ORIGIN_CHARS: usize = 256;
const MAX_PATH_CHARS: usize = 256;

/// Puts the figures into the status; with none there is nothing to tell, which is not zero.
pub(super) fn tell(status: &mut VolumeScanStatus, figures: Option<&Figures>) {
    status.totals = figures.map(totals);
    status.growth = figures.and_then(|figures| figures.growth).map(growth);
    status.top_volumes = figures.iter().flat_map(|figures| &figures.top).map(top_volume).collect();
    status.fastest_growing = figures.iter().flat_map(|figures| &figures.fastest).map(growing).collect();
    status.candidates = figures.iter().flat_map(|figures| &figures.removable).map(candidate).collect();
    status.top_files = figures.iter().flat_map(|figures| &figures.top_files).map(top_entry).collect();
    status.top_directories = figures.iter().flat_map(|figures| &figures.top_directories).map(top_entry).collect();
    let count = |of: fn(&Figures) -> i64| figures.map_or(0, of);
    let measured = count(|figures| figures.counts.measured + figures.counts.partial);
    status.top_volumes_omitted = omitted(measured, status.top_volumes.len());
    status.fastest_growing_omitted = omitted(count(|figures| figures.growing), status.fastest_growing.len());
    let candidates = count(|figures| figures.candidates + figures.candidates_held);
    status.candidates_omitted = omitted(candidates, status.candidates.len());
}

fn totals(figures: &Figures) -> Totals {
    Totals {
        counts: figures.counts,
        allocated_bytes: figures.allocated_bytes,
        apparent_bytes: figures.apparent_bytes,
        files: figures.files,
        candidates: figures.candidates,
        candidate_bytes: figures.candidate_bytes,
        candidates_held_by_stopped: figures.candidates_held,
        stale_nodes: figures.stale_nodes,
        oldest_data_time: figures.oldest_data_time.map(time),
    }
}

fn growth(growth: crate::store::figures::Growth) -> Growth {
    Growth {
        bytes_per_day: growth.bytes_per_day,
        window_days: growth.window_days,
        samples: growth.samples,
        volumes: growth.volumes,
    }
}

fn top_volume(volume: &VolumeRow) -> TopVolume {
    TopVolume {
        node: shorten(&volume.node, MAX_NODE_CHARS),
        name: shorten(&volume.name, MAX_NAME_CHARS),
        allocated_bytes: volume.allocated_bytes,
        apparent_bytes: volume.apparent_bytes,
        size: HumanBytes(volume.allocated_bytes).to_string(),
        completeness: volume.completeness,
        used_by_running: volume.used_by_running,
        used_by_stopped: volume.used_by_stopped,
        measured_time: time(volume.measured_at),
    }
}

fn top_entry(entry: &EntryRow) -> TopEntry {
    TopEntry {
        node: shorten(&entry.node, MAX_NODE_CHARS),
        name: shorten(&entry.name, MAX_NAME_CHARS),
        path: end_of(&showable(&entry.path), MAX_PATH_CHARS),
        allocated_bytes: entry.allocated_bytes,
        size: HumanBytes(entry.allocated_bytes).to_string(),
    }
}

fn growing(volume: &GrowingRow) -> GrowingVolume {
    // Whole days, rounded down: an early warning errs on the safe side.
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and days are shown whole")]
    let full_in_days = full_in_days(volume.available_bytes, Some(volume.bytes_per_day)).map(|days| days as i64);
    GrowingVolume {
        node: shorten(&volume.node, MAX_NODE_CHARS),
        name: shorten(&volume.name, MAX_NAME_CHARS),
        bytes_per_day: volume.bytes_per_day,
        allocated_bytes: volume.allocated_bytes,
        full_in_days,
    }
}

fn candidate(volume: &CandidateRow) -> Candidate {
    Candidate {
        node: shorten(&volume.node, MAX_NODE_CHARS),
        name: shorten(&volume.name, MAX_NAME_CHARS),
        unused_since: time(volume.unused_since),
        seen_used: volume.seen_used,
        held_by_stopped: volume.held_by_stopped,
        origin: origin(&volume.origin),
        allocated_bytes: volume.allocated_bytes,
        size: volume.allocated_bytes.map(|bytes| HumanBytes(bytes).to_string()),
        seen_time: time(volume.last_seen_at),
    }
}

/// `container shop-1, image shop:2, compose project shop`, as far as it is known.
fn origin(origin: &serde_json::Value) -> Option<String> {
    let parts =
        [("pod", "pod"), ("container", "container"), ("image", "image"), ("compose_project", "compose project")];
    let known = parts.iter().filter_map(|(key, word)| Some(format!("{word} {}", origin.get(key)?.as_str()?)));
    let text = known.collect::<Vec<_>>().join(", ");
    (!text.is_empty()).then(|| shorten(&text, MAX_ORIGIN_CHARS))
}
