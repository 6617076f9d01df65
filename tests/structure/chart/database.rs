//! The ways to one's own database: a pooler, certificates, an image for backups.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use super::{BUNDLED, Rendered, list, parsed, refusal, template};

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
fn backups_run_in_an_image_of_the_servers_version() {
    let chosen = ["database.bundled.image=postgres:15", "database.bundled.imagePullPolicy=Never"];
    let bundled = [&BUNDLED[..], &chosen].concat();
    let image = |values: &[&str]| {
        let container = &Rendered::with(values).0["backup"].0;
        ["image", "imagePullPolicy"].map(|field| container[field].as_str().unwrap().to_owned())
    };
    assert_eq!(image(&[&bundled[..], &["backup.image="]].concat()), ["postgres:15", "Never"]);
    let own = ["backup.image=registry.example.com/postgres:14", "backup.imagePullPolicy=Always"];
    assert_eq!(image(&[&bundled[..], &own].concat()), ["registry.example.com/postgres:14", "Always"]);
    assert_eq!(image(&own)[0], "registry.example.com/postgres:14");
    let refused = refusal(&["backup.image="]);
    assert!(refused.contains("backup.image: backups of a database of yours need an image"), "{refused}");
}

/// Stands in for a command in `folder`.
pub(super) fn stub(folder: &Path, name: &str, script: &str) {
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// `pg_restore` 17 begins with a setting that servers before do not know; a row that looks like it stays.
#[test]
fn a_dump_by_17_can_be_restored_into_an_older_server() {
    let folder = tempfile::tempdir().unwrap();
    let setting = "SET transaction_timeout = 0;";
    let dump = format!("SET lock_timeout = 0;\n{setting}\nCOPY public.notes (text) FROM stdin;\n{setting}\n\\.\n");
    fs::write(folder.path().join("sql"), &dump).unwrap();
    fs::write(folder.path().join("password"), "").unwrap();
    stub(
        folder.path(),
        "pg_restore",
        r#"case $1 in --list) echo '1; 0 0 TABLE public notes';; *) cat "$FOLDER/sql";; esac"#,
    );
    let psql = r#"for last; do :; done; case $* in *SHOW*) echo "$VERSION";; *) cat "$last" > "$FOLDER/taken";; esac"#;
    stub(folder.path(), "psql", psql);
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    for (version, kept) in [("160009", 1), ("170000", 2)] {
        let status = Command::new("sh")
            .arg(super::chart().join("files/restore.sh"))
            .envs([("PATH", path.as_str()), ("VERSION", version), ("DUMP", "a.dump")])
            .env("FOLDER", folder.path())
            .env("PASSWORD_FILE", folder.path().join("password"))
            .status();
        assert!(status.unwrap().success());
        let taken = fs::read_to_string(folder.path().join("taken")).unwrap();
        assert_eq!(taken.matches(setting).count(), kept, "{version}: {taken}");
        assert!(taken.ends_with("\\.\n") && !taken.contains("the dump cannot be"), "{taken}");
    }
}

/// The Cluster and the values beside it speak of the same Service, Secrets, logins and groups.
#[test]
fn the_example_with_cloudnative_pg_fits_together() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cloudnative-pg");
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
    let cluster = Value::deserialize(serde_yaml::Deserializer::from_str(&read("cluster.yaml"))).unwrap();
    let rendered = Rendered::of(parsed(&template(&["--values".into(), folder.join("values.yaml").into_os_string()])));
    let most = cluster["spec"]["postgresql"]["parameters"]["max_connections"].as_str().unwrap();
    assert!(most.parse::<u32>().unwrap() > 154, "docs/database.md counts so many: {most}");
    let name = cluster["metadata"]["name"].as_str().unwrap();
    let initdb = &cluster["spec"]["bootstrap"]["initdb"];
    for (container, login) in LOGINS.into_iter().filter(|(container, _)| *container != "backup") {
        assert_eq!(rendered.variable(container, "DB_HOST"), format!("{name}-rw"));
        assert_eq!(rendered.variable(container, "DB_NAME"), initdb["database"]);
        assert_eq!(rendered.files(container, &format!("{name}-ca")), ["ca.crt"]);
        let roles = list(&cluster["spec"]["managed"]["roles"]);
        let role = roles.iter().find(|role| role["inRoles"][0] == format!("volumeviz_{login}")).unwrap();
        assert_eq!(rendered.files(container, role["passwordSecret"]["name"].as_str().unwrap()), ["password"]);
        if login == "owner" {
            assert_eq!((&initdb["owner"], &initdb["secret"]), (&role["name"], &role["passwordSecret"]));
        } else {
            let made = format!("CREATE ROLE {};", role["name"].as_str().unwrap());
            assert!(read("logins.sql").contains(&made), "{made}");
        }
    }
    let files = list(&initdb["postInitApplicationSQLRefs"]["configMapRefs"]);
    let keys: Vec<_> = files.iter().map(|file| file["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["bootstrap.sql", "logins.sql"]);
}
