//! What is released fits together: versions, the two ways to the image, and the users that the chart runs it as.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::chart::objects;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
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
