//! What the chart makes of the ways to one's own database (a pooler, certificates, an image for backups), to receivers of alerts, and of what
//! `/metrics` tells.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use serde_json::{Value, json};

/// Helm, as `make setup` builds it.
fn helm() -> PathBuf {
    let folder = env::var("CLUSTER_BIN").map_or_else(
        |_| {
            let cache = env::var("XDG_CACHE_HOME").map(PathBuf::from);
            cache.unwrap_or_else(|_| Path::new(&env::var("HOME").unwrap()).join(".cache")).join("volumeviz/bin")
        },
        PathBuf::from,
    );
    folder.join("helm")
}

/// All objects of a release with its own database and backups.
pub(crate) fn objects(values: &[&str]) -> Vec<Value> {
    let fixed = [
        "database.mode=external",
        "database.external.host=database.example.com",
        "database.existingSecrets.owner=owner",
        "database.existingSecrets.controller=controller",
        "database.existingSecrets.agent=agent",
        "backup.enabled=true",
    ];
    let mut command = Command::new(helm());
    command.args(["template", "volumeviz"]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/volumeviz"));
    for value in fixed.iter().chain(values) {
        command.args(["--set", value]);
    }
    let output = command.output().expect("helm: `make setup` builds it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let documents = serde_yaml::Deserializer::from_slice(&output.stdout);
    documents.map(|document| <Value as serde::Deserialize>::deserialize(document).unwrap()).collect()
}

/// The containers of such a release, by name, and the volumes of the pod of each; all its objects.
struct Rendered(BTreeMap<String, (Value, Value)>, Vec<Value>);

impl Rendered {
    fn with(values: &[&str]) -> Self {
        let mut containers = BTreeMap::new();
        let objects = objects(values);
        for object in &objects {
            for path in ["/spec/template/spec", "/spec/jobTemplate/spec/template/spec"] {
                let Some(pod) = object.pointer(path) else { continue };
                for container in pod["containers"].as_array().unwrap() {
                    let name = container["name"].as_str().unwrap().to_owned();
                    containers.insert(name, (container.clone(), pod["volumes"].clone()));
                }
            }
        }
        assert_eq!(containers.keys().collect::<Vec<_>>(), ["agent", "backup", "controller", "maintain"]);
        let rendered = Self(containers, objects);
        rendered.every_mount_has_its_volume();
        rendered
    }

    fn every_mount_has_its_volume(&self) {
        for (name, (container, volumes)) in &self.0 {
            for mount in container["volumeMounts"].as_array().unwrap() {
                let there = volumes.as_array().unwrap().iter().any(|volume| volume["name"] == mount["name"]);
                assert!(there, "{name}: {mount}");
            }
        }
    }

    /// A variable of a container; empty when it is not set.
    fn variable(&self, container: &str, name: &str) -> &str {
        let variables = self.0[container].0["env"].as_array().unwrap();
        let found = variables.iter().find(|variable| variable["name"] == name);
        found.map_or("", |variable| variable["value"].as_str().unwrap())
    }

    /// The rules about a resource in the Role of this name.
    fn rules(&self, role: &str, resource: &str) -> Vec<&Value> {
        let named = self.1.iter().filter(|object| object["kind"] == "Role" && object["metadata"]["name"] == role);
        let rules = named.flat_map(|role| role["rules"].as_array().unwrap());
        rules.filter(|rule| rule["resources"].as_array().unwrap().iter().any(|named| named == resource)).collect()
    }

    /// Files of the Secret of this name that the pod of a container has.
    fn files(&self, container: &str, secret: &str) -> Vec<&str> {
        let volumes = self.0[container].1.as_array().unwrap().iter();
        let mounted = volumes.filter(|volume| volume["secret"]["secretName"] == secret);
        mounted
            .flat_map(|volume| volume["secret"]["items"].as_array().unwrap())
            .map(|item| item["path"].as_str().unwrap())
            .collect()
    }
}

/// Containers and the login each has.
const LOGINS: [(&str, &str); 4] =
    [("controller", "controller"), ("agent", "agent"), ("maintain", "owner"), ("backup", "owner")];

#[test]
fn nothing_is_assumed_of_a_database_of_ones_own() {
    let plain = Rendered::with(&[]);
    for container in ["controller", "agent", "maintain"] {
        assert_eq!(plain.variable(container, "DB_HOST"), "database.example.com");
        assert_ne!(plain.variable(container, "DB_POOLER"), "transaction");
        for unset in ["DB_SSLCERT", "DB_SSLKEY", "DB_SSLROOTCERT", "DB_SSLMODE"] {
            assert_eq!(plain.variable(container, unset), "", "{container} {unset}");
        }
    }
    assert_eq!(
        (plain.variable("backup", "PGHOST"), plain.variable("backup", "PGSSLMODE")),
        ("database.example.com", "require")
    );
    for (container, secret) in LOGINS {
        assert_eq!(plain.files(container, secret), ["password"], "{container}");
    }
}

#[test]
fn maintenance_and_backups_go_past_the_pooler() {
    let pooled = Rendered::with(&[
        "database.external.pooler=transaction",
        "database.external.host=pgbouncer.example.com",
        "database.external.port=6432",
        "database.external.direct.host=server.example.com",
        "database.external.direct.port=5433",
    ]);
    for container in ["controller", "agent"] {
        let found = ["DB_HOST", "DB_PORT", "DB_POOLER"].map(|name| pooled.variable(container, name));
        assert_eq!(found, ["pgbouncer.example.com", "6432", "transaction"], "{container}");
    }
    let found = ["DB_HOST", "DB_PORT", "DB_POOLER"].map(|name| pooled.variable("maintain", name));
    assert_eq!(found, ["server.example.com", "5433", ""]);
    assert_eq!(["PGHOST", "PGPORT"].map(|name| pooled.variable("backup", name)), ["server.example.com", "5433"]);
}

#[test]
fn each_login_shows_its_own_certificate() {
    let certified = Rendered::with(&["database.external.clientCertificates=true"]);
    for (container, login) in LOGINS {
        let names = if container == "backup" { ["PGSSLCERT", "PGSSLKEY"] } else { ["DB_SSLCERT", "DB_SSLKEY"] };
        let folder = format!("/etc/volumeviz/database-{login}");
        let expected = [format!("{folder}/tls.crt"), format!("{folder}/tls.key")];
        assert_eq!(names.map(|name| certified.variable(container, name).to_owned()), expected, "{container}");
        assert_eq!(certified.files(container, login), ["password", "tls.crt", "tls.key"], "{container}");
    }
}

#[test]
fn with_an_authority_the_server_is_verified_in_full() {
    let verified = Rendered::with(&["database.external.caSecret=authorities"]);
    for (container, _) in LOGINS {
        let name = if container == "backup" { "PGSSLROOTCERT" } else { "DB_SSLROOTCERT" };
        assert_eq!(verified.variable(container, name), "/etc/volumeviz/database-ca/ca.crt", "{container}");
        assert_eq!(verified.files(container, "authorities"), ["ca.crt"], "{container}");
    }
    assert_eq!(verified.variable("backup", "PGSSLMODE"), "verify-full");
    let asked = Rendered::with(&["database.external.caSecret=authorities", "database.external.sslMode=verify-ca"]);
    for (container, _) in LOGINS {
        let name = if container == "backup" { "PGSSLMODE" } else { "DB_SSLMODE" };
        assert_eq!(asked.variable(container, name), "verify-ca", "{container}");
    }
}

#[test]
fn backups_run_in_the_servers_image_unless_given_one() {
    let image = |values: &[&str]| Rendered::with(values).0["backup"].0["image"].as_str().unwrap().to_owned();
    assert_eq!(image(&["database.bundled.image=postgres:16"]), "postgres:16");
    assert_eq!(image(&["backup.image=registry.example.com/postgres:15"]), "registry.example.com/postgres:15");
}

/// The binary takes what the chart gives it.
#[test]
fn the_series_of_volumes_are_as_many_as_asked_for() {
    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        series: volumeviz::controller::contents::VolumeSeries,
    }
    let given = |values: &[&str]| {
        let rendered = Rendered::with(values);
        let options = ["top", "all", "max"].map(|name| {
            let variable = format!("VOLUMEVIZ_METRICS_{}_VOLUMES", name.to_uppercase());
            format!("--metrics-{name}-volumes={}", rendered.variable("controller", &variable))
        });
        let series = Options::try_parse_from(std::iter::once("volumeviz".to_owned()).chain(options)).unwrap().series;
        (series.top, series.all, series.max)
    };
    assert_eq!(given(&[]), (20, false, 5000));
    let values = ["metrics.volumes.top=3", "metrics.volumes.all=true", "metrics.volumes.max=1000000"];
    assert_eq!(given(&values), (3, true, 1_000_000));
}

#[test]
fn receivers_are_allowed_and_their_secrets_readable_as_the_values_say() {
    let plain = Rendered::with(&[]);
    for unset in ["VOLUMEVIZ_ALERTMANAGER_URL", "VOLUMEVIZ_NOTIFY_ALLOW"] {
        assert_eq!(plain.variable("controller", unset), "", "{unset}");
    }
    let [rule] = plain.rules("volumeviz-controller", "secrets")[..] else { panic!("one rule about Secrets") };
    assert_eq!((&rule["verbs"], &rule["resourceNames"]), (&json!(["get"]), &Value::Null));
    let chosen = Rendered::with(&[
        "alerts.alertmanagerUrl=http://alertmanager.monitoring.svc:9093",
        "alerts.allow={hooks.example.internal:8080,[fd00::5]:80}",
        "alerts.secretNames={chat,pager}",
    ]);
    let set = ["VOLUMEVIZ_ALERTMANAGER_URL", "VOLUMEVIZ_NOTIFY_ALLOW"].map(|name| chosen.variable("controller", name));
    assert_eq!(set, ["http://alertmanager.monitoring.svc:9093", "hooks.example.internal:8080,[fd00::5]:80"]);
    let [rule] = chosen.rules("volumeviz-controller", "secrets")[..] else { panic!("one rule about Secrets") };
    assert_eq!((&rule["verbs"], &rule["resourceNames"]), (&json!(["get"]), &json!(["chat", "pager"])));
}

/// Events about cluster-scoped objects live in the namespace default.
#[test]
fn events_about_alerts_may_be_written() {
    let rendered = Rendered::with(&[]);
    let [rule] = rendered.rules("volumeviz-events", "events")[..] else { panic!("one rule about Events") };
    assert!(rule["verbs"].as_array().unwrap().contains(&json!("create")), "{rule}");
    assert_eq!(rule["apiGroups"], json!(["events.k8s.io"]));
}
