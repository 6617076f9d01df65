//! Generated files are committed, and equal to what the code generates.

use std::fs;
use std::path::Path;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn crds_equal_the_types_they_are_generated_from() {
    for manifest in volumeviz::crd::manifests().unwrap() {
        let committed = fs::read_to_string(repository().join("crds").join(&manifest.file_name)).unwrap_or_default();
        assert!(committed == manifest.yaml, "crds/{} is behind its Rust types: run `make crds`", manifest.file_name);
    }
}

/// Helm reads nothing outside its chart, so the chart has copies.
#[test]
fn the_chart_has_the_same_crds_and_bootstrap() {
    let read = |path: &str| fs::read_to_string(repository().join(path)).unwrap_or_default();
    assert!(read("deploy/bootstrap.sql") == read("charts/volumeviz/files/bootstrap.sql"), "run `make crds`");
    for manifest in volumeviz::crd::manifests().unwrap() {
        let copy = read(&format!("charts/volumeviz/files/crds/{}", manifest.file_name));
        assert!(copy == manifest.yaml, "the chart's copy of {} is behind: run `make crds`", manifest.file_name);
    }
}
