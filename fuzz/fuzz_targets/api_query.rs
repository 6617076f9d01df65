//! The HTTP API: a line of the query of `/api/v1/volumes`, then lines of cursors.

#![no_main]

use libfuzzer_sys::fuzz_target;
use volumeviz::api::volumes::asked;
use volumeviz::store::page::{InvalidCursor, Page, VolumeList, VolumeSort};
use volumeviz::store::{containers, sizes};

const PARAMETERS: [&str; 17] = [
    "name",
    "node",
    "driver",
    "label",
    "active",
    "orphaned",
    "anonymous",
    "min_bytes",
    "max_bytes",
    "scanned_before",
    "scanned_after",
    "sort",
    "direction",
    "limit",
    "offset",
    "cursor",
    "count",
];

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let query = lines.next().unwrap_or_default();
    match asked(query) {
        Ok((list, page)) => {
            let (limit, offset) = match page {
                Page::Offset { limit, offset } => (limit, offset),
                Page::After { limit, .. } => (limit, 0),
            };
            assert!((1..=500).contains(&limit) && offset >= 0, "{limit} rows after {offset}");
            let bytes = [list.filter.min_bytes, list.filter.max_bytes];
            assert!(bytes.iter().flatten().all(|bytes| *bytes >= 0), "{bytes:?}");
            lines.by_ref().take(4).for_each(|line| cursor(line, &list));
        }
        Err(problem) => {
            let detail = problem.into_detail();
            let named = PARAMETERS.iter().any(|name| detail.starts_with(name)) || detail.contains("unknown field");
            assert!(named, "{query:?}: {detail:?} names no parameter");
        }
    }
    lines.take(4).for_each(|line| cursor(line, &VolumeList::default()));
});

/// A cursor is good for one list, one volume, one resolution.
fn cursor(text: &str, list: &VolumeList) {
    if list.decode(text).is_ok() {
        let other = if list.sort == VolumeSort::Name { VolumeSort::Node } else { VolumeSort::Name };
        let other = VolumeList { sort: other, ..list.clone() };
        assert_eq!(other.decode(text), Err(InvalidCursor::OtherList));
    }
    if containers::Cursor::decode(text, 7).is_ok() {
        assert_eq!(containers::Cursor::decode(text, 8), Err(InvalidCursor::OtherList));
    }
    if sizes::Cursor::decode(text, 7, sizes::Resolution::Auto).is_ok() {
        assert_eq!(sizes::Cursor::decode(text, 8, sizes::Resolution::Auto), Err(InvalidCursor::OtherList));
        let fits =
            [sizes::Resolution::Raw, sizes::Resolution::Daily].map(|fine| sizes::Cursor::decode(text, 7, fine).is_ok());
        assert!(fits[0] != fits[1]);
    }
}
