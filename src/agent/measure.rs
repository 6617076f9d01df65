//! From a listed volume to its result: what may be walked, how long, and what the walk's outcome means.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::walk::{
    self, Biggest, CutShort, Details, Handle, Measured, Mount, Options, Outcome, Walker, Wanted, is_mount_point,
};
use crate::domain::contract::InventoryVolume;
use crate::domain::measurement::{
    Completeness, Entry, ErrorCount, Figures, Filesystem, Method, VolumeReason, VolumeResult,
};
use crate::domain::text;
use crate::domain::work::{Mode, WorkOrder};

/// The longest path of a file or directory that the database keeps.
const MAX_PATH_CHARS: usize = 1024;

/// A volume to measure: where it is, or why it is never walked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub volume: String,
    /// Its root.
    pub path: Result<PathBuf, VolumeReason>,
}

/// Measures the volumes of one job; they share one progress and one end.
#[derive(Debug, Clone)]
pub struct Measurer {
    walker: Walker,
    mode: Mode,
    top_entries: usize,
    parallel_volumes: usize,
    volume_timeout: Duration,
    deadline: Instant,
    handle: Handle,
}

impl Target {
    /// A directory as it is given.
    pub fn directory(name: String, path: PathBuf) -> Self {
        Self { volume: name, path: Ok(path) }
    }

    /// A listed volume of an engine whose data root is seen here where the engine has it.
    pub fn new(volume: &InventoryVolume) -> Self {
        Self { volume: volume.name.clone(), path: measurable(volume) }
    }

    /// Whether it is, or would be when it is mounted, measured below Docker's data root.
    pub const fn is_in_data_root(&self) -> bool {
        matches!(self.path, Ok(_) | Err(VolumeReason::NotMounted))
    }
}

/// What may be walked: volumes of the driver `local` on this machine. One with `device=` is a mount that exists only while a container uses
/// it; without it the directory below is empty, which must not be taken for an empty volume.
fn measurable(volume: &InventoryVolume) -> Result<PathBuf, VolumeReason> {
    let path = PathBuf::from(&volume.mountpoint);
    let option = |name: &str| volume.options.get(name).map(String::as_str);
    if volume.driver != "local" {
        return Err(VolumeReason::DriverNotLocal);
    }
    if option("type").is_some_and(|kind| kind.starts_with("nfs") || kind.starts_with("cifs") || kind.starts_with("smb"))
    {
        return Err(VolumeReason::NetworkFilesystem);
    }
    if option("device").is_some_and(|device| !device.is_empty()) && !is_mount_point(&path) {
        return Err(VolumeReason::NotMounted);
    }
    if Mount::of(&path).is_some_and(|mount| mount.is_network()) {
        return Err(VolumeReason::NetworkFilesystem);
    }
    Ok(path)
}

impl Measurer {
    /// Measures by these rules until `deadline`.
    pub fn new(walker: Walker, work: &WorkOrder, deadline: Instant) -> Self {
        let positive = |seconds: i32| u64::try_from(seconds).unwrap_or(1).max(1);
        let budget = work.limits.entries_per_second.and_then(|entries| u64::try_from(entries).ok());
        Self {
            walker,
            mode: work.mode,
            top_entries: usize::try_from(work.top_entries).unwrap_or(0),
            parallel_volumes: usize::try_from(work.limits.parallel_volumes).unwrap_or(1).max(1),
            volume_timeout: Duration::from_secs(positive(work.limits.volume_timeout_seconds)),
            deadline,
            handle: budget.map_or_else(Handle::default, Handle::with_budget),
        }
    }

    /// How many volumes at a time.
    pub const fn parallel_volumes(&self) -> usize {
        self.parallel_volumes
    }

    /// Entries seen so far, over all volumes.
    pub fn entries(&self) -> i64 {
        i64::try_from(self.handle.entries()).unwrap_or(i64::MAX)
    }

    /// Bytes allocated to them.
    pub fn bytes(&self) -> i64 {
        i64::try_from(self.handle.bytes()).unwrap_or(i64::MAX)
    }

    /// Ends every walk.
    pub fn cancel(&self) {
        self.handle.cancel();
    }

    /// Measures one volume.
    pub async fn measure(&self, target: Target) -> VolumeResult {
        let wanted = Wanted { top: self.top_entries, histogram: None };
        match self.measure_in_detail(target, wanted).await {
            (result, Some(Details { top_files, top_directories, .. })) => VolumeResult {
                top_files: Some(top_files.into_iter().map(short_entry).collect()),
                top_directories: Some(top_directories.into_iter().map(short_entry).collect()),
                ..result
            },
            (result, None) => result,
        }
    }

    /// Measures one volume, and collects these details of it.
    pub async fn measure_in_detail(&self, target: Target, details: Wanted) -> (VolumeResult, Option<Details>) {
        let Target { volume, path } = target;
        let path = match path {
            Ok(_) if self.mode == Mode::Inventory => {
                return (VolumeResult::unknown(volume, VolumeReason::NotMeasured), None);
            }
            Ok(path) => path,
            Err(reason) => return (VolumeResult::unknown(volume, reason), None),
        };
        let started = Instant::now();
        let options = Options {
            fast: self.mode == Mode::Fast,
            deadline: Some(self.deadline.min(started + self.volume_timeout)),
            handle: self.handle.clone(),
            details,
        };
        let (mut outcome, took) = self.walk(&path, &options).await;
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let details = match &mut outcome {
            Outcome::Measured(measured) => measured.details.take(),
            _ => None,
        };
        (VolumeResult { duration_ms, ..result(volume, outcome) }, details)
    }

    /// Walks; and how long it took.
    async fn walk(&self, path: &Path, options: &Options) -> (Outcome, Duration) {
        let begin = Instant::now();
        let (sender, mut told) = oneshot::channel();
        let mut started = match self.walker.start(path, options, move |outcome, took| _ = sender.send((outcome, took)))
        {
            Ok(started) => started,
            Err(refused) => return (refused.into(), Duration::ZERO),
        };
        loop {
            match timeout(started.next_look(), &mut told).await {
                Ok(Ok((outcome, took))) => return (started.ended(outcome), took),
                Ok(Err(_)) => return (started.panicked(), begin.elapsed()),
                Err(_) => {
                    if let Some(outcome) = started.look() {
                        return (outcome, begin.elapsed());
                    }
                }
            }
        }
    }
}

impl From<Biggest> for Entry {
    fn from(Biggest { path, allocated_bytes }: Biggest) -> Self {
        let path = if path.is_empty() { ".".to_owned() } else { text::from_bytes(&path) };
        Self { path, allocated_bytes }
    }
}

/// One whose path is no longer than what the database keeps of it.
fn short_entry(found: Biggest) -> Entry {
    let entry = Entry::from(found);
    Entry { path: text::end_of(&entry.path, MAX_PATH_CHARS), ..entry }
}

/// What an outcome means for its volume.
fn result(volume: String, outcome: Outcome) -> VolumeResult {
    match outcome {
        Outcome::Vanished => VolumeResult::unknown(volume, VolumeReason::Vanished),
        Outcome::DeviceHung => VolumeResult::unknown(volume, VolumeReason::DeviceHung),
        Outcome::Unreadable { kind } => VolumeResult {
            errors: vec![ErrorCount { kind, count: 1 }],
            ..VolumeResult::unknown(volume, VolumeReason::Unreadable)
        },
        // The walk ended before even the root was looked at: nothing is known, which is not zero.
        Outcome::Measured(Measured { ref totals, cut_short, ref errors, .. }) if totals.directories == Some(0) => {
            let reason = if cut_short.is_some() { VolumeReason::VolumeTimeout } else { VolumeReason::Unreadable };
            VolumeResult { errors: counts(errors), ..VolumeResult::unknown(volume, reason) }
        }
        Outcome::Measured(measured) => figures(volume, measured),
    }
}

fn figures(volume: String, measured: Measured) -> VolumeResult {
    let Measured { totals, from_filesystem, errors, vanished: _, skipped_mounts, cut_short, filesystem, details: _ } =
        measured;
    let reason = match cut_short {
        Some(CutShort::Deadline | CutShort::Cancelled) => Some(VolumeReason::VolumeTimeout),
        None if errors.is_empty() => None,
        None => Some(VolumeReason::ReadErrors),
    };
    VolumeResult {
        volume,
        completeness: if reason.is_none() { Completeness::Complete } else { Completeness::Partial },
        reason,
        method: Some(if from_filesystem { Method::Statvfs } else { Method::Walk }),
        figures: Some(Figures {
            allocated_bytes: totals.allocated_bytes,
            apparent_bytes: totals.apparent_bytes,
            files: totals.files,
            directories: totals.directories,
        }),
        filesystem: filesystem
            .map(|walk::Filesystem { capacity_bytes, available_bytes }| Filesystem { capacity_bytes, available_bytes }),
        errors: counts(&errors),
        skipped_mounts: skipped_mounts.iter().map(|path| text::from_bytes(path)).collect(),
        top_files: None,
        top_directories: None,
        duration_ms: 0,
        age_ms: 0,
    }
}

fn counts(errors: &BTreeMap<String, u64>) -> Vec<ErrorCount> {
    errors.iter().map(|(kind, count)| ErrorCount { kind: kind.clone(), count: *count }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::walk::Totals;
    use super::*;
    use crate::domain::selector::VolumeKind;

    fn volume(driver: &str, options: &[(&str, &str)]) -> InventoryVolume {
        InventoryVolume {
            name: "v".to_owned(),
            driver: driver.to_owned(),
            mountpoint: "/var/lib/docker/volumes/v/_data".to_owned(),
            scope: "local".to_owned(),
            labels: std::collections::BTreeMap::new(),
            options: options.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect(),
            kind: VolumeKind::Named,
            selected: true,
            created_at: None,
            inode: None,
            birth_time_ns: None,
        }
    }

    #[test]
    fn what_is_never_walked_has_its_reason() {
        let of = |driver: &str, options: &[(&str, &str)]| measurable(&volume(driver, options)).err();
        assert_eq!(of("local", &[]), None);
        assert_eq!(of("rclone", &[]), Some(VolumeReason::DriverNotLocal));
        assert_eq!(of("local", &[("type", "nfs4")]), Some(VolumeReason::NetworkFilesystem));
        assert_eq!(of("local", &[("type", "cifs")]), Some(VolumeReason::NetworkFilesystem));
        assert_eq!(of("local", &[("type", "none"), ("device", "/srv")]), Some(VolumeReason::NotMounted));
    }

    #[test]
    fn only_a_walk_without_errors_is_complete() {
        let totals = Totals { allocated_bytes: 5, apparent_bytes: Some(4), files: 1, directories: Some(1) };
        let of = |measured: Measured| {
            let result = result("v".to_owned(), Outcome::Measured(measured));
            (result.completeness, result.reason)
        };
        let clean = Measured { totals, vanished: 3, ..Measured::default() };
        let errors = std::collections::BTreeMap::from([("InputOutput".to_owned(), 1)]);
        assert_eq!(of(clean.clone()), (Completeness::Complete, None));
        assert_eq!(of(Measured { errors, ..clean.clone() }), (Completeness::Partial, Some(VolumeReason::ReadErrors)));
        let cut = Measured { cut_short: Some(CutShort::Deadline), ..clean };
        assert_eq!(of(cut), (Completeness::Partial, Some(VolumeReason::VolumeTimeout)));
        let nothing = Measured {
            cut_short: Some(CutShort::Deadline),
            totals: Totals { directories: Some(0), ..Totals::default() },
            ..Measured::default()
        };
        assert_eq!(of(nothing.clone()), (Completeness::Unknown, Some(VolumeReason::VolumeTimeout)));
        let panicked = Measured { cut_short: None, ..nothing };
        assert_eq!(of(panicked), (Completeness::Unknown, Some(VolumeReason::Unreadable)));
    }
}
