//! What one measurement of one volume says.

use serde::{Deserialize, Serialize};

/// How far a measured size can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(inline)]
pub enum Completeness {
    /// Every entry was seen: the figures are exact as of the walk.
    Complete,
    /// Some entries could not be read: the figures are a lower bound.
    Partial,
    /// Nothing is known: there are no figures, and a reason says why.
    Unknown,
}

impl Completeness {
    /// The name stored in the database and shown to users.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "Complete",
            Self::Partial => "Partial",
            Self::Unknown => "Unknown",
        }
    }
}

/// Where the figures of a result come from; figures of different methods are never mixed in one series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    /// Our own walk over every entry.
    Walk,
    /// `statvfs` of a volume that is a whole file system.
    Statvfs,
}

/// Why a volume has no figures, or only partial ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VolumeReason {
    /// The volume's driver is not `local`: its data need not be on this node.
    DriverNotLocal,
    /// The volume is a network file system (`nfs`, `cifs`, …), which is never walked.
    NetworkFilesystem,
    /// The volume is a mount of its own (`device=`) that no container has mounted now.
    NotMounted,
    /// The volume disappeared while it was being measured.
    Vanished,
    /// The volume's deadline passed before the walk ended.
    VolumeTimeout,
    /// An earlier walk of the same device is stuck in the kernel.
    DeviceHung,
    /// The volume's root directory could not be opened or read.
    Unreadable,
    /// Some entries below the root could not be read.
    ReadErrors,
    /// PostgreSQL refused this one row; its figures are lost.
    Unstorable,
    /// The scan lists volumes and measures none (`mode: Inventory`).
    NotMeasured,
}

impl VolumeReason {
    /// The name stored in the database and shown to users.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DriverNotLocal => "DriverNotLocal",
            Self::NetworkFilesystem => "NetworkFilesystem",
            Self::NotMounted => "NotMounted",
            Self::Vanished => "Vanished",
            Self::VolumeTimeout => "VolumeTimeout",
            Self::DeviceHung => "DeviceHung",
            Self::Unreadable => "Unreadable",
            Self::ReadErrors => "ReadErrors",
            Self::Unstorable => "Unstorable",
            Self::NotMeasured => "NotMeasured",
        }
    }
}

/// How many entries failed in one way, e.g. 3 × `PermissionDenied`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// CamelCase name of the failure.
    pub kind: String,
    /// Entries that failed so.
    pub count: u64,
}

/// The figures of a measured volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Disk space in bytes: `st_blocks × 512` of every inode once, directories and the root among them (POSIX `st_blocks`, 512-byte units on Linux).
    pub allocated_bytes: u64,
    /// Sum of `st_size` over regular files in bytes, each inode once; not known by `Statvfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apparent_bytes: Option<u64>,
    /// Non-directory inodes, each once; by `Statvfs` all inodes in use.
    pub files: u64,
    /// Directories, the root included; not known by `Statvfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directories: Option<u64>,
}

/// The file system a volume is on, when it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// Its size in bytes.
    pub capacity_bytes: u64,
    /// What an unprivileged process may still write, in bytes.
    pub available_bytes: u64,
}

/// A file or directory of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Below the volume's root, escaped; `.` for the root itself. Of a long one the end.
    pub path: String,
    /// `st_blocks × 512`; of a directory its own and those of the files directly in it.
    pub allocated_bytes: u64,
}

/// The outcome of measuring one volume, final for its run.
///
/// Invariant: `figures` is absent exactly when `completeness` is [`Completeness::Unknown`]; use [`Self::unknown`] to build those.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeResult {
    /// Docker's name of the volume, escaped for storage.
    pub volume: String,
    /// How far `figures` can be trusted.
    pub completeness: Completeness,
    /// Absent unless [`Completeness::Complete`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<VolumeReason>,
    /// Absent when nothing was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Absent when nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
    /// Absent when it was not asked or did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
    /// Failures by kind, empty when none.
    #[serde(default)]
    pub errors: Vec<ErrorCount>,
    /// Mounts found inside the volume and not entered, relative to its root, escaped; at most 100.
    #[serde(default)]
    pub skipped_mounts: Vec<String>,
    /// The biggest files, biggest first; absent when they were not asked for, or the file system was asked for the figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_files: Option<Vec<Entry>>,
    /// The biggest directories, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_directories: Option<Vec<Entry>>,
    /// How long measuring took, in milliseconds.
    pub duration_ms: u64,
    /// How long before this report the measurement ended, in milliseconds of the agent's monotonic clock:
    /// the database subtracts it from its own time, so no node's wall clock is trusted.
    #[serde(default)]
    pub age_ms: u64,
}

impl VolumeResult {
    /// A result without figures.
    pub fn unknown(volume: impl Into<String>, reason: VolumeReason) -> Self {
        Self {
            volume: volume.into(),
            completeness: Completeness::Unknown,
            reason: Some(reason),
            method: None,
            figures: None,
            filesystem: None,
            errors: Vec::new(),
            skipped_mounts: Vec::new(),
            top_files: None,
            top_directories: None,
            duration_ms: 0,
            age_ms: 0,
        }
    }
}

/// How many volumes there are of which kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct VolumeCounts {
    /// Selected volumes.
    pub volumes: i64,
    /// Measured completely.
    pub measured: i64,
    /// Measured in part: their figures are lower bounds.
    pub partial: i64,
    /// Not measured because something went wrong.
    pub failed: i64,
    /// Not measured because they never are: other drivers, network file systems, not mounted.
    pub unknown: i64,
    /// Named by Docker, not by a person.
    pub anonymous: i64,
    /// Mounted by at least one running container.
    pub in_use: i64,
    /// Mounted by no container, or by stopped ones only.
    pub unused: i64,
}
