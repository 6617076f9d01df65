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
