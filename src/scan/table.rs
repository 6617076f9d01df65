//! A scan's report for people. Whatever comes from a disk is shown without being obeyed by the terminal.

use super::du::Comparison;
use super::report::{Files, Histogram, Kind, Report, Row, Totals};
use crate::agent::walk::Share;
use crate::domain::bytes::HumanBytes;
use crate::domain::measurement::Entry;
use crate::domain::text::showable;

/// Owners and extensions that are listed; JSON has them all.
const MAX_LISTED: usize = 20;

/// Its lines: the volumes, what was asked for beside, and the sums.
pub(super) fn lines(report: &Report) -> Vec<String> {
    let name_width =
        report.volumes.iter().map(|row| showable(&row.name).chars().count()).max().unwrap_or(0).clamp(6, 64);
    let line = |name: &str, [allocated, apparent, files, directories]: [&str; 4], state: &str| {
        format!("{name:<name_width$}  {allocated:>11}  {apparent:>11}  {files:>10}  {directories:>9}  {state}")
    };
    let rows = report.volumes.iter().map(|row| {
        let cells = [size(row.allocated_bytes), size(row.apparent_bytes), number(row.files), number(row.directories)];
        line(&showable(&row.name), cells.each_ref().map(String::as_str), &state(row))
    });
    std::iter::once(line("VOLUME", ["SIZE", "APPARENT", "FILES", "DIRS"], "STATE"))
        .chain(rows)
        .chain(report.volumes.iter().flat_map(details))
        .chain([String::new(), summary(&report.totals)])
        .collect()
}

fn summary(totals: &Totals) -> String {
    let bound = if totals.partial + totals.unknown > 0 { "at least " } else { "" };
    let du = match totals.du_differences {
        None => String::new(),
        Some(0) => "; du agrees".to_owned(),
        Some(volumes) => format!("; du differs on {volumes}"),
    };
    format!(
        "{} volume{}: {} complete, {} partial, {} unknown; {bound}{} on disk, {} files{du}",
        totals.volumes,
        if totals.volumes == 1 { "" } else { "s" },
        totals.complete,
        totals.partial,
        totals.unknown,
        human(totals.allocated_bytes),
        totals.files
    )
}

fn state(row: &Row) -> String {
    let errors: Vec<String> = row.errors.iter().map(|error| format!("{} {}", error.count, error.kind)).collect();
    let mut state = match row.reason {
        None => row.completeness.as_str().to_owned(),
        Some(reason) => format!("{} ({})", row.completeness.as_str(), reason.as_str()),
    };
    if !errors.is_empty() {
        state = format!("{state}: {}", errors.join(", "));
    }
    if !row.skipped_mounts.is_empty() {
        state = format!("{state}; {} mounts inside not entered", row.skipped_mounts.len());
    }
    if let Some(du) = &row.du {
        state = format!("{state}; {}", compared(du));
    }
    showable(&state)
}

fn compared(du: &Comparison) -> String {
    let complaint = du.error.as_ref().map_or_else(String::new, |error| format!(" ({error})"));
    match du.difference_bytes {
        Some(0) => format!("du: equal{complaint}"),
        Some(more) if more > 0 => format!("du: {more} bytes less{complaint}"),
        Some(less) => format!("du: {} bytes more{complaint}", less.unsigned_abs()),
        None => format!("du: no figure{complaint}"),
    }
}

/// What was asked for beside the totals of a volume.
fn details(row: &Row) -> Vec<String> {
    let lists = [("Biggest files", &row.top_files), ("Biggest directories", &row.top_directories)];
    let lists = lists.into_iter().filter_map(|(title, list)| Some(biggest(title, list.as_ref()?)));
    let lines: Vec<String> = lists.flatten().chain(row.histogram.iter().flat_map(histogram)).collect();
    if lines.is_empty() {
        return lines;
    }
    [String::new(), format!("{}:", showable(&row.name))].into_iter().chain(lines).collect()
}

fn biggest(title: &str, list: &[Entry]) -> Vec<String> {
    let line = |one: &Entry| format!("  {:>11}  {}", human(one.allocated_bytes), showable(&one.path));
    std::iter::once(format!("  {title}")).chain(list.iter().map(line)).collect()
}

fn histogram(histogram: &Histogram) -> Vec<String> {
    let Histogram { sizes, ages, owners, other_owners, extensions, other_extensions } = histogram;
    let none = Share::default();
    [
        spread("Sizes", sizes, none),
        spread("Ages", ages, none),
        spread("Owners", owners, *other_owners),
        spread("Extensions", extensions, *other_extensions),
    ]
    .concat()
}

/// The first kinds, and the sum of those that are not listed.
fn spread(title: &str, kinds: &[Files], mut others: Share) -> Vec<String> {
    let (listed, rest) = kinds.split_at(kinds.len().min(MAX_LISTED));
    for kind in rest {
        others.add(kind.share);
    }
    let line = |name: &str, share: Share| {
        format!("  {:>11}  {:>10} files  {name}", human(share.allocated_bytes).to_string(), share.files)
    };
    let listed = listed.iter().map(|kind| line(&name(&kind.kind), kind.share));
    let others = (others.files > 0).then(|| line("all others", others));
    std::iter::once(format!("  {title}")).chain(listed).chain(others).collect()
}

fn name(kind: &Kind) -> String {
    match kind {
        Kind::BelowBytes(Some(1)) => "empty".to_owned(),
        Kind::BelowBytes(Some(bytes)) => format!("below {}", human(*bytes)).replace(".00 ", " ").replace(".0 ", " "),
        Kind::BelowBytes(None) => "bigger".to_owned(),
        Kind::BelowDays(Some(0)) => "written after the scan began".to_owned(),
        Kind::BelowDays(Some(days)) => format!("below {days} d"),
        Kind::BelowDays(None) => "older".to_owned(),
        Kind::Uid(uid) => format!("uid {uid}"),
        Kind::Extension(Some(extension)) => showable(&format!(".{extension}")),
        Kind::Extension(None) => "without".to_owned(),
    }
}

fn human(bytes: u64) -> HumanBytes {
    HumanBytes(i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "?".to_owned(), |bytes| human(bytes).to_string())
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "?".to_owned(), |number| number.to_string())
}
