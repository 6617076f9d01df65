//! What may not be read is an error that is counted, and makes the figures a lower bound.

use super::*;

#[test]
fn a_folder_that_cannot_be_read_makes_it_partial() {
    let root = tree();
    fs::create_dir_all(root.path().join("secret/inside")).unwrap();
    fs::write(root.path().join("open"), "1").unwrap();
    set_mode(&root.path().join("secret"), 0);
    set_mode(root.path(), 0o755);
    let binary = tree();
    fs::copy(env!("CARGO_BIN_EXE_volumeviz"), binary.path().join("volumeviz")).unwrap();
    run("chmod", &["-R", "755", binary.path().to_str().unwrap()]);
    let output = Command::new("setpriv")
        .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"])
        .arg(binary.path().join("volumeviz"))
        .args(["scan", "--output", "json"])
        .arg(root.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let volume = &report["volumes"][0];
    assert_eq!((&volume["completeness"], &volume["files"]), (&"Partial".into(), &1.into()));
    assert_eq!(volume["directories"], 2, "its own blocks are counted");
    assert_eq!(volume["errors"], serde_json::json!([{"kind": "PermissionDenied", "count": 1}]));
}

#[test]
fn each_thing_that_may_not_be_read_is_one_error_and_the_rest_is_exact() {
    let root = tree();
    let inside = |name: &str| root.path().join(name);
    for folder in ["closed", "entered-only", "listed-only", "open"] {
        fs::create_dir_all(inside(folder).join("below")).unwrap();
        fs::write(inside(folder).join("file"), "12").unwrap();
        fs::write(inside(folder).join("below/file"), "3").unwrap();
    }
    // Who owns a file looks at it without a right to its contents.
    fs::write(inside("mode-0"), "4567").unwrap();
    for (name, mode) in [("closed", 0), ("entered-only", 0o111), ("listed-only", 0o444), ("mode-0", 0)] {
        set_mode(&inside(name), mode);
    }
    both_ways(|| {
        let measured = unprivileged(|| walk(root.path()));
        // Of the listed folder: its file and its folder; of the other two: themselves.
        assert_eq!(measured.errors, BTreeMap::from([("PermissionDenied".to_owned(), 4)]));
        // The root, the four, and what is below the open one.
        assert_eq!(counts(&measured), (3, 6, 7));
        assert_eq!(measured.vanished, 0);
    });
    both_ways(|| drop(complete(root.path(), (9, 9, 16))));
}

#[test]
fn files_of_others_are_read_without_a_right_to_their_access_times() {
    let root = tree();
    fs::create_dir(root.path().join("of-another")).unwrap();
    fs::write(root.path().join("of-another/file"), "1").unwrap();
    run("chown", &["-R", "12345", root.path().to_str().unwrap()]);
    run("chmod", &["-R", "a+rX", root.path().to_str().unwrap()]);
    let measured = unprivileged(|| walk(root.path()));
    assert_eq!(counts(&measured), (1, 2, 1));
    assert!(measured.errors.is_empty(), "{:?}", measured.errors);
}
