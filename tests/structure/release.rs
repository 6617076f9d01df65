//! What is released fits together: versions, the two ways to the image, and the users that the chart runs it as.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::chart::objects;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

#[test]
fn the_chart_has_the_version_of_the_binary() {
    let chart: serde_json::Value = serde_yaml::from_str(&read("charts/volumeviz/Chart.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((&chart["version"], &chart["appVersion"]), (&version.into(), &version.into()));
}

/// What follows `prefix`, up to a quotation mark.
fn quoted<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    text.split(prefix).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

#[test]
fn the_dockerfile_and_make_release_say_the_same_of_the_image() {
    let (dockerfile, script) = (read("Dockerfile"), read("release/image"));
    let labels = |text: &str, prefix: &str, end: char| -> BTreeSet<String> {
        text.split(prefix).skip(1).map(|rest| rest.split(end).next().unwrap().to_owned()).collect()
    };
    assert_eq!(labels(&dockerfile, "org.opencontainers.image.", '='), labels(&script, "'$label.", '\''));
    assert_eq!(quoted(&dockerfile, ".description=\""), quoted(&script, "'$label.description'\":\""));
    assert_eq!(quoted(&dockerfile, ".licenses=\""), quoted(&script, "'$label.licenses'\":\""));
    assert_eq!(quoted(&dockerfile, "ENTRYPOINT [\""), quoted(&script, "\"Entrypoint\":[\""));
    let user = quoted(&script, "\"User\":\"");
    assert!(
        user.len() == 1
            && dockerfile.lines().any(|line| line.strip_prefix("USER ").is_some_and(|is| user.contains(is)))
    );
}

/// As below `docker build`, to which the repository's history is not sent.
#[test]
fn a_bill_of_materials_needs_no_repository() {
    let folder = tempfile::tempdir().unwrap();
    let release = folder.path().join("release");
    fs::create_dir(&release).unwrap();
    for script in ["sbom", "arch"] {
        fs::copy(repository().join("release").join(script), release.join(script)).unwrap();
    }
    let cargo = r#"while [ "$1" != --manifest-path ]; do shift; done
        printf '{"metadata":{"component":{"bom-ref":"%s"}},"components":[],"dependencies":[]}' "$SOURCE_DATE_EPOCH" > "${2%/*}/volumeviz_bin.cdx.json""#;
    for (name, script) in [("cargo", cargo), ("linked", "")] {
        let file = release.join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (given, expected) in [(None, "0"), (Some(""), "0"), (Some("86400"), "86400")] {
        let bill = folder.path().join("bill.json");
        let mut command = Command::new(release.join("sbom"));
        command.arg("amd64").arg(&bill).env("GIT_DIR", "/nonexistent").env_remove("SOURCE_DATE_EPOCH");
        command.envs(given.map(|time| ("SOURCE_DATE_EPOCH", time)));
        assert!(command.status().unwrap().success());
        let bill: serde_json::Value = serde_json::from_slice(&fs::read(bill).unwrap()).unwrap();
        assert_eq!(bill["metadata"]["component"]["bom-ref"], expected, "{given:?}");
    }
}

#[test]
fn a_folder_of_something_else_is_not_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("theirs");
    fs::write(&theirs, "").unwrap();
    let mut command = Command::new(repository().join("release/package"));
    // Were it emptied, nothing would be built all the same.
    let output = command.arg(folder.path()).env("GIT_DIR", "/nonexistent").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("other files than those of a release"), "{said}");
    assert!(theirs.exists());
}

/// The image's own user would keep agents from reading volumes.
#[test]
fn the_chart_says_as_whom_each_container_runs() {
    let mut containers = 0;
    for object in objects(&["image.repository=ours"]) {
        let Some(pod) = object.pointer("/spec/template/spec") else { continue };
        for container in pod["containers"].as_array().unwrap() {
            let ours = container["image"].as_str().unwrap().starts_with("ours:");
            let user = [container, pod].iter().find_map(|of| of["securityContext"]["runAsUser"].as_u64());
            assert!(!ours || user.is_some(), "{}", container["name"]);
            containers += usize::from(ours);
        }
    }
    assert_eq!(containers, 4, "controller, maintain, agent, docker-proxy");
}
