//! All that `tests/chart` renders.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::documents;

/// The values there say again what the chart says by itself.
#[test]
fn no_combination_of_values_makes_a_key_come_twice() {
    let folder = tempfile::tempdir().unwrap();
    let render = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chart/render");
    assert!(Command::new(render).arg(folder.path()).status().unwrap().success());
    let mut objects = 0;
    for file in fs::read_dir(folder.path()).unwrap() {
        objects += documents(&fs::read(file.unwrap().path()).unwrap()).len();
    }
    assert!(objects > 1000, "{objects}");
}
