//! What Chart.yaml and README.md say of the chart.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};
use volumeviz::crd::{VolumeAlertSpec, VolumeScanSpec};

use super::{BUNDLED, Rendered, chart, list, tool};

fn metadata() -> Value {
    serde_yaml::from_str(&fs::read_to_string(chart().join("Chart.yaml")).unwrap()).unwrap()
}

/// An annotation for Artifact Hub, which is a list of objects.
fn annotation(name: &str) -> Vec<Value> {
    let metadata = metadata();
    let text = metadata["annotations"][format!("artifacthub.io/{name}")].as_str().unwrap();
    serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_images_are_those_of_the_pods() {
    let told: BTreeSet<String> =
        annotation("images").iter().map(|image| image["image"].as_str().unwrap().to_owned()).collect();
    let used = Rendered::with(&[&BUNDLED[..], &["backup.image="]].concat())
        .0
        .into_values()
        .map(|(container, _)| container["image"].as_str().unwrap().to_owned());
    let published = used.filter(|image| !image.starts_with("registry.example.com/volumeviz:"));
    assert_eq!(told, published.collect());
}

#[test]
fn the_crds_are_those_of_the_code() {
    let told: BTreeSet<String> =
        annotation("crds").iter().map(|crd| json!([crd["name"], crd["kind"], crd["version"]]).to_string()).collect();
    let ours = volumeviz::crd::manifests().unwrap().into_iter().map(|manifest| {
        let crd: Value = serde_yaml::from_str(&manifest.yaml).unwrap();
        json!([crd["metadata"]["name"], crd["spec"]["names"]["kind"], crd["spec"]["versions"][0]["name"]]).to_string()
    });
    assert_eq!(told, ours.collect());
    for example in annotation("crdsExamples") {
        match example["kind"].as_str().unwrap() {
            "VolumeScan" => drop(VolumeScanSpec::deserialize(&example["spec"]).unwrap()),
            "VolumeAlert" => drop(VolumeAlertSpec::deserialize(&example["spec"]).unwrap()),
            other => panic!("no example is known for {other}"),
        }
    }
}

#[test]
fn versions_that_are_told_as_tested_are_those_of_the_tests() {
    let read = |file: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let build = read("tests/cluster/build");
    for name in ["KUBERNETES", "HELM"] {
        let version = build.split(&format!("{name}=v")).nth(1).unwrap().split_whitespace().next().unwrap();
        for file in ["charts/volumeviz/README.md", "docs/how-to/upgrade.md"] {
            assert!(read(file).contains(version), "{file}: {name} {version}");
        }
        let (minor, _) = version.rsplit_once('.').unwrap();
        assert!(read("README.md").contains(minor), "README.md: {name} {minor}");
    }
}

/// `tests/chart/conform` holds all objects against its schemas.
#[test]
fn the_oldest_kubernetes_is_the_one_whose_schemas_are_looked_at() {
    let build = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/build")).unwrap();
    let oldest = build.lines().find_map(|line| line.strip_prefix("OLDEST=v")).unwrap();
    let (minor, _) = oldest.rsplit_once('.').unwrap();
    assert_eq!(metadata()["kubeVersion"], format!(">={minor}.0-0"));
}

/// For chart-testing; the package has no use for them.
#[test]
fn values_for_chart_testing_are_enough_and_stay_behind() {
    let mut lint = Command::new(tool("helm"));
    let said =
        lint.arg("lint").arg(chart()).arg("--values").arg(chart().join("ci/default-values.yaml")).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(!said.contains("WARN"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let packaged =
        Command::new(tool("helm")).arg("package").arg(chart()).arg("--destination").arg(folder.path()).output();
    assert!(packaged.unwrap().status.success());
    let package = folder.path().join(format!("volumeviz-{}.tgz", env!("CARGO_PKG_VERSION")));
    let listed = Command::new("tar").arg("--list").arg("--file").arg(package).output().unwrap();
    let files = String::from_utf8(listed.stdout).unwrap();
    assert!(files.contains("volumeviz/values.yaml\n") && !files.contains("volumeviz/ci"), "{files}");
}

/// README.md is generated from values.yaml; `make lint` says when it is behind.
#[test]
fn every_value_is_described() {
    let readme = fs::read_to_string(chart().join("README.md")).unwrap();
    let (_, table) = readme.split_once("| Key | Type | Default | Description |\n").unwrap();
    let rows: Vec<&str> = table.lines().skip(1).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 80, "{}", rows.len());
    for row in rows {
        let description = row.trim_end_matches('|').rsplit_once(" | ").unwrap().1.trim();
        assert!(description.len() > 3 && description.ends_with(['.', ')']), "{row}");
    }
}

/// A value that templates use and values.yaml does not name would be neither described nor checked. One that the schema does not require could be
/// missing after `helm upgrade --reuse-values`, and what it stands for be rendered wrong.
#[test]
fn the_schema_requires_the_values_that_there_are_and_knows_no_others() {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let values: Value = serde_yaml::from_str(&text).unwrap();
    let schema: Value = serde_json::from_str(&fs::read_to_string(chart().join("values.schema.json")).unwrap()).unwrap();
    let mut unlike = Vec::new();
    compare("", &values, &schema, &schema["definitions"], &mut unlike);
    let helms = ["enabled is in the schema alone", "global is in the schema alone"];
    assert_eq!(unlike, helms, "a chart that has this one as a dependency sets them");
}

/// Kubernetes' own types are not described by values.yaml: these definitions are whatever a user gives.
fn compare(path: &str, values: &Value, schema: &Value, definitions: &Value, unlike: &mut Vec<String>) {
    let schema = if schema["$ref"] == "#/definitions/monitor" { &definitions["monitor"] } else { schema };
    let Some(properties) = schema["properties"].as_object() else { return };
    let none = serde_json::Map::new();
    let there = values.as_object().unwrap_or(&none);
    for name in there.keys().chain(properties.keys()).collect::<BTreeSet<_>>() {
        let path = format!("{path}{}{name}", if path.is_empty() { "" } else { "." });
        match (there.get(name), properties.get(name)) {
            (Some(value), Some(of)) => {
                if !list(&schema["required"]).contains(&json!(name)) {
                    unlike.push(format!("{path} is not required"));
                }
                compare(&path, value, of, definitions, unlike);
            }
            (Some(_), None) => unlike.push(format!("{path} is a value alone")),
            (None, _) => unlike.push(format!("{path} is in the schema alone")),
        }
    }
}
