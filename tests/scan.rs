//! `volumeviz scan` as its users call it: exit codes, JSON, table.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn volumeviz(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_volumeviz")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    for arguments in [&["crds"][..], &["scan", "/etc/apt"], &["scan", "--output", "json", "/etc/apt"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_volumeviz")).args(arguments).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{arguments:?}");
    }
}

#[test]
fn json_has_the_documented_shape() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "12345").unwrap();
    let output = volumeviz(&["scan", "--output", "json", path(root.path())]);
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let volume = report["volumes"][0].as_object().unwrap();
    let keys = [
        "name",
        "path",
        "driver",
        "allocated_bytes",
        "apparent_bytes",
        "files",
        "directories",
        "completeness",
        "errors",
        "skipped_mounts",
        "method",
        "duration_ms",
    ];
    for key in keys {
        assert!(volume.contains_key(key), "{key} is missing");
    }
    assert_eq!(
        (&volume["apparent_bytes"], &volume["files"], &volume["directories"]),
        (&5.into(), &1.into(), &1.into())
    );
    assert_eq!((&volume["completeness"], &volume["method"]), (&"Complete".into(), &"Walk".into()));
    assert_eq!(report["totals"]["allocated_bytes"], volume["allocated_bytes"]);
}

#[test]
fn exit_codes_tell_how_complete_it_is() {
    let root = tempfile::tempdir().unwrap();
    let code = |arguments: &[&str]| volumeviz(arguments).status.code();
    assert_eq!(code(&["scan", path(root.path())]), Some(0));
    assert_eq!(code(&["scan", path(root.path()), "/does/not/exist"]), Some(1));
    assert_eq!(code(&["scan", "/does/not/exist"]), Some(2));
    assert_eq!(code(&["scan", "--output", "xml"]), Some(2));
    assert_eq!(code(&["scan", "--docker", "/does/not/exist.sock"]), Some(2));
}

#[test]
fn without_docker_it_says_what_to_do() {
    let output = volumeviz(&["scan", "--docker", "/does/not/exist.sock"]);
    let told = text(&output.stderr);
    assert!(told.contains("/does/not/exist.sock") && told.contains("volumeviz scan /srv"), "{told}");
}

#[test]
fn the_table_is_sorted_by_size_and_obeys_no_name() {
    let root = tempfile::tempdir().unwrap();
    let (small, big) = (root.path().join("small\u{1b}[31m"), root.path().join("big"));
    fs::create_dir(&small).unwrap();
    fs::create_dir(&big).unwrap();
    fs::write(big.join("file"), vec![1; 100_000]).unwrap();
    let output = volumeviz(&["scan", path(&small), path(&big), "/does/not/exist"]);
    let table = text(&output.stdout);
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[1].contains("/big") && lines[2].contains("small\\u{1b}[31m") && lines[3].contains("Unknown (Vanished)"),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'));
    assert!(lines[5].starts_with("3 volumes: 2 complete, 0 partial, 1 unknown; at least "), "{table}");
}
