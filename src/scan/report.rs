//! What a scan tells of each volume, and of all of them: the JSON, and what the table is made of.

use std::process::ExitCode;

use serde::Serialize;

use super::du::Comparison;
use crate::agent::walk;
use crate::domain::measurement::{Completeness, Entry, ErrorCount, Figures, Method, VolumeReason, VolumeResult};
use crate::domain::text;

/// One volume.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) driver: Option<String>,
    pub(super) allocated_bytes: Option<u64>,
    pub(super) apparent_bytes: Option<u64>,
    pub(super) files: Option<u64>,
    pub(super) directories: Option<u64>,
    pub(super) completeness: Completeness,
    pub(super) reason: Option<VolumeReason>,
    pub(super) errors: Vec<ErrorCount>,
    pub(super) skipped_mounts: Vec<String>,
    pub(super) method: Option<Method>,
    pub(super) duration_ms: u64,
    /// When it was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) du: Option<Comparison>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) top_files: Option<Vec<Entry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) top_directories: Option<Vec<Entry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) histogram: Option<Histogram>,
}

/// How files spread.
#[derive(Serialize)]
pub(super) struct Histogram {
    pub(super) sizes: Vec<Files>,
    pub(super) ages: Vec<Files>,
    /// The biggest first, as are extensions.
    pub(super) owners: Vec<Files>,
    /// Owners beyond those that are told apart.
    pub(super) other_owners: walk::Share,
    pub(super) extensions: Vec<Files>,
    pub(super) other_extensions: walk::Share,
}

/// Files of one kind.
#[derive(Serialize)]
pub(super) struct Files {
    #[serde(flatten)]
    pub(super) kind: Kind,
    #[serde(flatten)]
    pub(super) share: walk::Share,
}

/// What they have in common.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Smaller than this, and no smaller than the kind before; `None`: no end.
    BelowBytes(Option<u64>),
    /// Written less long ago than this; the first kind, of 0 days, is written after the scan began.
    BelowDays(Option<i64>),
    Uid(u32),
    /// `None`: without one.
    Extension(Option<String>),
}

/// Sums over the volumes that have figures, and how many have not.
#[derive(Serialize, Default)]
pub(super) struct Totals {
    pub(super) volumes: usize,
    pub(super) complete: usize,
    pub(super) partial: usize,
    pub(super) unknown: usize,
    pub(super) allocated_bytes: u64,
    pub(super) apparent_bytes: u64,
    pub(super) files: u64,
    pub(super) directories: u64,
    /// Volumes of which du says something else, or nothing; when it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) du_differences: Option<usize>,
}

/// All of it.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) volumes: Vec<Row>,
    pub(super) totals: Totals,
}

/// A line of JSON Lines.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Line<'a> {
    Volume(&'a Row),
    Totals(&'a Totals),
}

impl Row {
    pub(super) fn new(
        result: VolumeResult,
        details: Option<walk::Details>,
        path: String,
        driver: Option<String>,
    ) -> Self {
        let VolumeResult {
            volume,
            completeness,
            reason,
            method,
            figures,
            errors,
            skipped_mounts,
            duration_ms,
            top_files: _,
            top_directories: _,
            age_ms: _,
            filesystem: _,
        } = result;
        Self {
            name: volume,
            path,
            driver,
            allocated_bytes: figures.map(|figures| figures.allocated_bytes),
            apparent_bytes: figures.and_then(|figures| figures.apparent_bytes),
            files: figures.map(|figures| figures.files),
            directories: figures.and_then(|figures| figures.directories),
            completeness,
            reason,
            errors,
            skipped_mounts,
            method,
            duration_ms,
            du: None,
            top_files: None,
            top_directories: None,
            histogram: None,
        }
        .with_details(details)
    }

    fn with_details(self, details: Option<walk::Details>) -> Self {
        let Some(walk::Details { top_files, top_directories, histogram }) = details else { return self };
        let biggest = |list: Vec<walk::Biggest>| {
            let list: Vec<Entry> = list.into_iter().map(Entry::from).collect();
            (!list.is_empty()).then_some(list)
        };
        Self {
            top_files: biggest(top_files),
            top_directories: biggest(top_directories),
            histogram: histogram.map(|histogram| Histogram::from(*histogram)),
            ..self
        }
    }

    fn figures(&self) -> Figures {
        Figures {
            allocated_bytes: self.allocated_bytes.unwrap_or(0),
            apparent_bytes: self.apparent_bytes,
            files: self.files.unwrap_or(0),
            directories: self.directories,
        }
    }
}

impl From<walk::Histogram> for Histogram {
    fn from(histogram: walk::Histogram) -> Self {
        let files = |(kind, share)| Files { kind, share };
        let below_bytes = walk::SIZES.map(Some).into_iter().chain([None]).map(Kind::BelowBytes);
        let below_days = walk::AGES_IN_DAYS.map(Some).into_iter().chain([None]).map(Kind::BelowDays);
        let owners = histogram.owners.biggest_first().into_iter().map(|(uid, share)| (Kind::Uid(uid), share));
        let extensions = histogram.extensions.biggest_first().into_iter();
        let extensions = extensions.map(|(found, share)| (Some(text::from_bytes(found.as_bytes())), share));
        let without = (histogram.without_extension.files > 0).then_some((None, histogram.without_extension));
        let mut extensions: Vec<_> = extensions.chain(without).collect();
        extensions.sort_by_key(|(_, share)| std::cmp::Reverse(share.allocated_bytes));
        Self {
            sizes: below_bytes.zip(histogram.sizes).map(files).collect(),
            ages: below_days.zip(histogram.ages).map(files).collect(),
            owners: owners.map(files).collect(),
            other_owners: histogram.owners.others,
            extensions: extensions.into_iter().map(|(found, share)| files((Kind::Extension(found), share))).collect(),
            other_extensions: histogram.extensions.others,
        }
    }
}

impl Totals {
    pub(super) fn count(&mut self, row: &Row) {
        self.volumes += 1;
        match row.completeness {
            Completeness::Complete => self.complete += 1,
            Completeness::Partial => self.partial += 1,
            Completeness::Unknown => self.unknown += 1,
        }
        let figures = row.figures();
        self.allocated_bytes = self.allocated_bytes.saturating_add(figures.allocated_bytes);
        self.apparent_bytes = self.apparent_bytes.saturating_add(figures.apparent_bytes.unwrap_or(0));
        self.files = self.files.saturating_add(figures.files);
        self.directories = self.directories.saturating_add(figures.directories.unwrap_or(0));
        if let Some(du) = &row.du {
            *self.du_differences.get_or_insert_default() += usize::from(!du.is_equal());
        }
    }

    /// As the command's help documents it.
    pub(super) fn exit_code(&self) -> ExitCode {
        let is_nothing = self.volumes > 0 && self.unknown == self.volumes;
        let is_all = self.complete == self.volumes && self.du_differences.unwrap_or(0) == 0;
        ExitCode::from(if is_nothing { 2 } else { u8::from(!is_all) })
    }
}
