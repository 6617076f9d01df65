//! The chart's own database.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::{BUNDLED, Rendered, database::stub, list};

fn rendered(values: &[&str]) -> Rendered {
    Rendered::with(&[&BUNDLED[..], values].concat())
}

fn server(values: &[&str]) -> Value {
    rendered(values).object("StatefulSet", "volumeviz-database").unwrap()["spec"].clone()
}

fn max_connections(values: &[&str]) -> u32 {
    let arguments = list(&server(values)["template"]["spec"]["containers"][0]["args"]).to_vec();
    let found = arguments.iter().find_map(|argument| argument.as_str().unwrap().strip_prefix("max_connections="));
    found.unwrap().parse().unwrap()
}

/// The sum of docs/database.md, and what a rollout adds to the replicas.
#[test]
fn it_has_a_connection_for_everybody() {
    assert!(max_connections(&[]) >= 200);
    let few = ["controller.maxRunningJobs=1", "database.pool.maxOpenConns=4"];
    assert_eq!(max_connections(&few), 200);
    for (replicas, jobs, open) in [(2, 50, 25), (5, 500, 25), (5, 65535, 1000)] {
        let values = [
            format!("controller.replicas={replicas}"),
            format!("controller.maxRunningJobs={jobs}"),
            format!("database.pool.maxOpenConns={open}"),
        ];
        let most = max_connections(&values.each_ref().map(String::as_str));
        let surge = u32::div_ceil(replicas, 4);
        let (needed, backup) = ((replicas + surge) * (open + 1 + 1) + 2 * jobs, 1);
        assert!(most > needed + backup && most <= 262_143, "{values:?}: {most}");
    }
}

/// As before and after a restore.
#[test]
fn another_number_of_replicas_leaves_it_alone() {
    assert_eq!(server(&["controller.replicas=0"]), server(&["controller.replicas=5"]));
}

#[test]
fn it_is_given_time_to_end() {
    let seconds = |values: &[&str]| server(values)["template"]["spec"]["terminationGracePeriodSeconds"].clone();
    let chosen = seconds(&["database.bundled.terminationGracePeriodSeconds=600"]);
    assert_eq!((seconds(&[]), chosen), (json!(120), json!(600)));
    assert_eq!(server(&["revisionHistoryLimit=9"])["revisionHistoryLimit"], 9);
}

#[test]
fn its_account_has_the_annotations_of_the_values() {
    let rendered = rendered(&["database.bundled.serviceAccount.annotations.role=database"]);
    let account = rendered.object("ServiceAccount", "volumeviz-database").unwrap();
    assert_eq!(account["metadata"]["annotations"]["role"], "database");
}

/// A short name means what the node's runtime says, or nothing.
#[test]
fn its_image_is_named_in_full_and_may_be_named_by_digest() {
    let image = |values: &[&str]| rendered(values).0["postgres"].0["image"].as_str().unwrap().to_owned();
    assert_eq!(image(&[]), "docker.io/library/postgres:17");
    let exact = format!("docker.io/library/postgres:17@sha256:{}", "0123456789abcdef".repeat(4));
    assert_eq!(image(&[&format!("database.bundled.image={exact}")]), exact);
}

#[test]
fn its_logins_are_made_by_a_script_that_can_be_executed() {
    let rendered = rendered(&[]);
    let map = &rendered.object("ConfigMap", "volumeviz-database-init").unwrap()["data"];
    assert!(map["20-logins.sh"].as_str().unwrap().starts_with("#!/bin/sh\n"));
    let volume = list(&rendered.pod("postgres")["volumes"]).iter().find(|volume| volume["name"] == "init").unwrap();
    // As it is written, which YAML 1.1 reads as octal.
    let mode = volume["configMap"]["defaultMode"].as_str().unwrap();
    assert_eq!(u32::from_str_radix(mode, 8).unwrap() & 0o111, 0o111, "{mode}");
}

/// Has a shell source the script, and say how it goes on: an empty variable is an error to who took its options over.
fn source(folder: &Path) -> Output {
    let script = super::chart().join("files/logins.sh");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let go_on = format!(". {}; echo \"ended $? $- $NOT_SET\"", script.display());
    let mut command = Command::new("sh");
    command.args(["-c", &go_on]).env_remove("NOT_SET").env("PATH", path);
    command.envs([("POSTGRES_USER", "postgres"), ("POSTGRES_DB", "volumeviz")]).env("LOGINS", folder);
    command.output().unwrap()
}

#[test]
fn who_sources_that_script_goes_on_as_before_and_is_told_of_failures() {
    let folder = tempfile::tempdir().unwrap();
    stub(folder.path(), "psql", r#"echo "$*""#);
    for login in ["owner", "controller", "agent"] {
        fs::create_dir(folder.path().join(login)).unwrap();
        fs::write(folder.path().join(login).join("username"), format!("vv_{login}\n")).unwrap();
        fs::write(folder.path().join(login).join("password"), "secret").unwrap();
    }
    let said = String::from_utf8(source(folder.path()).stdout).unwrap();
    for login in ["owner", "controller", "agent"] {
        assert!(
            said.contains(&format!("group=volumeviz_{login} --set user=vv_{login} --set password=secret")),
            "{said}"
        );
    }
    let options = said.lines().last().unwrap().strip_prefix("ended 0 ");
    assert!(options.is_some_and(|options| !options.contains(['e', 'u'])), "{said}");
    fs::remove_file(folder.path().join("controller/username")).unwrap();
    let said = String::from_utf8(source(folder.path()).stdout).unwrap();
    assert!(said.lines().last().unwrap().starts_with("ended 1 ") && !said.contains("volumeviz_agent"), "{said}");
}
