//! The chart's own scripts for backup and restore, on a real server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use volumeviz::migrate;

use super::*;

/// A folder that the user postgres, which servers must run as, may write to.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// Runs a script of the chart; its exit code and everything it said.
fn script(name: &str, database: &str, folder: &Path, more: &[(&str, &str)]) -> (Option<i32>, String) {
    let files = folder.join("scripts");
    fs::create_dir_all(&files).unwrap();
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/volumeviz/files");
    for file in [name, "bootstrap.sql"] {
        fs::copy(chart.join(file), files.join(file)).unwrap();
    }
    fs::write(files.join("password"), database::variable("TEST_PG_PASSWORD")).unwrap();
    let path = format!("{}:{}", database::variable("TEST_PG_BIN"), database::variable("PATH"));
    let output = Command::new("setpriv")
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "sh"])
        .arg(files.join(name))
        .env("PATH", path)
        .env("HOME", folder)
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", database::port().to_string())
        .env("PGUSER", database::OWNER)
        .env("PGDATABASE", database)
        .env("PGSSLMODE", "verify-full")
        .env("PGSSLROOTCERT", database::ca())
        .env("PASSWORD_FILE", files.join("password"))
        .env("SCRIPTS", &files)
        .env("BACKUPS", folder)
        .env("SCRATCH", folder)
        .env("KEEP", "2")
        .env("RESTORE_CHECK", "true")
        .envs(more.iter().copied())
        .current_dir(folder)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn dumps(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut dumps: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|extension| extension == "dump")).collect();
    dumps.sort();
    dumps
}

/// A database with a finished run in it.
async fn measured() -> Database {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1"]).await;
    let ticket = ticket(&database, run, "n1").await;
    Agent::on(&database, "n1").measure(ticket, &[("a", 100), ("b", 200)]).await;
    database
}

#[tokio::test]
async fn what_was_dumped_is_restored_into_an_empty_database_and_works() {
    let database = measured().await;
    let folder = folder();
    let (code, said) = script("backup.sh", &database.name, folder.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("restored: schema 6, 2 volumes, 1 runs, 2 results"), "the dump was tried: {said}");
    assert_eq!(dumps(folder.path()).len(), 1);
    assert!(!folder.path().join("data").exists(), "the scratch server is gone");

    let empty = Database::bare().await;
    let (code, said) = script("restore.sh", &empty.name, folder.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(empty.number("SELECT sum(allocated_bytes)::bigint FROM volume_sizes").await, 300);
    let mut owner = empty.owner().await;
    let verified = migrate::verify(&mut owner).await.unwrap();
    assert_eq!(verified, migrate::Verified::default(), "schema and rights are those of a migrated database");
    assert_eq!(migrate::up(&mut owner).await.unwrap(), 0);
    let run = plan(&empty, "t:2", &["n1"]).await;
    let ticket = ticket(&empty, run, "n1").await;
    Agent::on(&empty, "n1").measure(ticket, &[("a", 500)]).await;
    assert_eq!(
        empty
            .number("SELECT latest.allocated_bytes FROM volume_latest AS latest JOIN volumes ON volumes.id = latest.volume_id WHERE name = 'a'")
            .await,
        500
    );
}

#[tokio::test]
async fn a_database_is_taken_back_to_an_earlier_time() {
    let database = measured().await;
    let folder = folder();
    assert_eq!(script("backup.sh", &database.name, folder.path(), &[("RESTORE_CHECK", "false")]).0, Some(0));
    let later = plan(&database, "t:later", &["n1"]).await;
    let (code, said) = script("restore.sh", &database.name, folder.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(database.number("SELECT count(*) FROM scan_runs").await, 1, "the later run is gone");
    assert_eq!(plan(&database, "t:again", &["n1"]).await, later, "its number is used again");
}

/// A run that was under way then is under way again: its agent goes on, or its lease expires; nothing waits for ever.
#[tokio::test]
async fn a_run_under_way_in_a_dump_is_not_stuck_after_the_restore() {
    let database = Database::new().await;
    let run = plan(&database, "once", &["n1", "n2"]).await;
    let (held, other) = (ticket(&database, run, "n1").await, ticket(&database, run, "n2").await);
    let agent = Agent::on(&database, "n1");
    agent.claimed(held).await;
    agent.inventory(held, &[volume("a"), volume("b")], &[]).await;
    agent.report(held, &[result("a", 100)]).await;
    Agent::on(&database, "n2").claimed(other).await;
    let folder = folder();
    assert_eq!(script("backup.sh", &database.name, folder.path(), &[("RESTORE_CHECK", "false")]).0, Some(0));

    let restored = Database::bare().await;
    let (code, said) = script("restore.sh", &restored.name, folder.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    let mut controller = restored.controller().await;
    let active = store::runs::active(&mut controller, "scan-uid").await.unwrap().expect("it is under way");
    assert_eq!((active.id, active.nodes.running), (run, 2));

    // The agent that is still there goes on where it was.
    let agent = Agent { database: &restored, instance: agent.instance, node: "n1".to_owned() };
    assert_eq!(agent.report(held, &[result("a", 100), result("b", 200)]).await, Reply::Ok);
    assert_eq!(agent.complete(held, 2).await, Reply::Ok);
    // The other is not: its job is given to its successor.
    restored.expire_leases().await;
    let job = &store::jobs::open(&mut controller, run).await.unwrap()[0];
    assert!(job.running && job.lease_expired, "{job:?}");
    assert!(store::jobs::re_ticket(&mut controller, job.id, other, 3).await.unwrap());
    Agent::on(&restored, "n2").measure(ticket(&restored, run, "n2").await, &[("c", 1)]).await;
    assert!(store::jobs::open(&mut controller, run).await.unwrap().is_empty(), "nothing is left to wait for");
    let ended = store::runs::finish(&mut controller, run, volumeviz::domain::run::RunResult::Succeeded, "RunSucceeded");
    assert!(ended.await.unwrap());
    assert_eq!(restored.number("SELECT count(*) FROM scan_results").await, 3);
}

#[tokio::test]
async fn a_dump_that_is_cut_short_changes_nothing() {
    let database = measured().await;
    let folder = folder();
    assert_eq!(script("backup.sh", &database.name, folder.path(), &[("RESTORE_CHECK", "false")]).0, Some(0));
    plan(&database, "t:later", &["n1"]).await;
    let dump = &dumps(folder.path())[0];
    let whole = fs::read(dump).unwrap();
    fs::write(dump, &whole[..whole.len() - whole.len() / 20]).unwrap();
    let (code, said) = script("restore.sh", &database.name, folder.path(), &[]);
    assert_ne!(code, Some(0), "{said}");
    assert_eq!(database.number("SELECT count(*) FROM scan_runs").await, 2, "as before");
    let verified = migrate::verify(&mut database.owner().await).await.unwrap();
    assert_eq!(verified, migrate::Verified::default());
}

#[tokio::test]
async fn the_newest_dumps_are_kept_and_a_failed_one_leaves_nothing() {
    let database = measured().await;
    let folder = folder();
    for day in ["20260101", "20260102", "20260103"] {
        fs::write(folder.path().join(format!("volumeviz-{day}T000000Z.dump")), "old").unwrap();
    }
    fs::write(folder.path().join("other.dump"), "not ours").unwrap();
    // Of a pod that was killed, and of another that dumps at the same time.
    let partial = |name: &str| folder.path().join(format!("volumeviz-{name}.dump.partial"));
    fs::write(partial("20260101T000000Z"), "half").unwrap();
    fs::write(partial("20260102T000000Z"), "half").unwrap();
    let killed = fs::File::options().write(true).open(partial("20260101T000000Z")).unwrap();
    killed.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(7 * 3600)).unwrap();
    let (code, said) = script("backup.sh", "no_such_database", folder.path(), &[]);
    assert!(code != Some(0) && said.contains("no_such_database"), "{said}");
    assert_eq!(dumps(folder.path()).len(), 4, "nothing came and nothing went");
    let (code, said) = script("backup.sh", &database.name, folder.path(), &[("RESTORE_CHECK", "false")]);
    assert_eq!(code, Some(0), "{said}");
    let left = dumps(folder.path());
    let names: Vec<_> = left.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!((names.len(), names[0], names[1]), (3, "other.dump", "volumeviz-20260103T000000Z.dump"));
    assert!(left[2].metadata().unwrap().len() > 1000);
    assert!(!partial("20260101T000000Z").exists() && partial("20260102T000000Z").exists());
}
