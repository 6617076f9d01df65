//! What GNU du says of the same directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use crate::domain::text;

/// How its count compares with ours.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    /// Disk usage by `du -sxB1`; `None`: it told none.
    allocated_bytes: Option<u64>,
    /// What we count more, or less when negative.
    pub(super) difference_bytes: Option<i64>,
    /// What it complained of.
    pub(super) error: Option<String>,
}

/// du is missing, or one that cannot count bytes.
#[derive(Debug, thiserror::Error)]
#[error("--compare-du needs GNU du: {0}")]
pub(super) struct Error(String);

impl Comparison {
    /// Of a directory that we say has so many bytes.
    pub(super) async fn of(path: PathBuf, ours: u64) -> Self {
        let counted = tokio::task::spawn_blocking(move || count(&path)).await;
        let (allocated_bytes, error) = counted.unwrap_or_else(|error| (None, Some(error.to_string())));
        let difference = |du: u64| i64::try_from(i128::from(ours) - i128::from(du)).unwrap_or(i64::MAX);
        Self { allocated_bytes, difference_bytes: allocated_bytes.map(difference), error }
    }

    pub(super) fn is_equal(&self) -> bool {
        self.difference_bytes == Some(0)
    }
}

/// Whether there is a du to compare with.
pub(super) fn check() -> Result<(), Error> {
    match count(Path::new("/dev/null")) {
        (Some(_), _) => Ok(()),
        (None, error) => Err(Error(error.unwrap_or_default())),
    }
}

/// Its count, and what it complained of: it counts what it can.
fn count(path: &Path) -> (Option<u64>, Option<String>) {
    let output = match Command::new("du").arg("-sxB1").arg("--").arg(path).output() {
        Ok(output) => output,
        Err(error) => return (None, Some(format!("failed to run du: {error}"))),
    };
    let told = String::from_utf8_lossy(&output.stdout);
    let counted = told.split_whitespace().next().and_then(|bytes| bytes.parse().ok());
    let complaint = text::from_bytes(output.stderr.split(|byte| *byte == b'\n').next().unwrap_or_default());
    let complaint = match complaint {
        _ if output.status.success() && counted.is_some() => None,
        complaint if complaint.is_empty() => Some(format!("du ended with {}", output.status)),
        complaint => Some(complaint),
    };
    (counted, complaint)
}
