//! The HTTP API behind its Service, and the database lost and brought back.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

/// A forwarded port of the controller's Service.
fn forwarded() -> (Running, String) {
    let mut child = Command::new("kubectl")
        .args(["port-forward", "-n", "volumeviz", "service/volumeviz-controller", ":8080"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    // It tells of each connection, and would end with whoever listens.
    std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(drop));
    let address = line.split_whitespace().nth(2).unwrap_or_else(|| panic!("{line:?}")).to_owned();
    (Running(child), address)
}

/// Status and body of a GET.
pub(super) fn http(address: &str, path: &str, token: &str) -> (u16, Value) {
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let answer =
            reqwest::Client::new().get(format!("http://{address}{path}")).bearer_auth(token).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    })
}

#[test]
fn readers_of_the_api_see_what_scans_found() {
    make_volumes();
    let scan = Scan::new("api", &json!({}));
    let totals = scan.complete(60)["totals"].clone();
    let (_forwarding, address) = forwarded();
    kubectl("create serviceaccount reader -n default");
    let token = kubectl("create token reader -n default");
    let (status, problem) = http(&address, "/api/v1/volumes", &token);
    assert_eq!((status, &problem["reason"]), (403, &json!("Forbidden")), "{problem}");
    kubectl("create clusterrolebinding reader --clusterrole=volumeviz-reader --serviceaccount=default:reader");
    wait(30, "the right to be seen", || (http(&address, "/api/v1/volumes", &token).0 == 200).then_some(()));
    let (_, page) = http(&address, "/api/v1/volumes?sort=size&direction=desc&count=true", &token);
    assert_eq!(page["total"], totals["volumes"]);
    let web = page["items"].as_array().unwrap().iter().find(|volume| volume["volume_id"] == "node-1/web").unwrap();
    assert_eq!((&web["origin"]["container"], &web["origin"]["image"]), (&json!("web"), &json!("busybox")));
    assert!(web["capacity_bytes"].as_i64().unwrap() > web["available_bytes"].as_i64().unwrap());
    let (_, nodes) = http(&address, "/api/v1/nodes", &token);
    assert_eq!(nodes["items"].as_array().unwrap().len(), 3);
    let run = &scan.status()["lastRun"]["id"];
    let (_, results) = http(&address, &format!("/api/v1/runs/{run}/results"), &token);
    assert_eq!(json!(results["items"].as_array().unwrap().len()), totals["volumes"]);
    let (_, health) = http(&address, "/api/v1/database/health", &token);
    assert_eq!(health["status"], "healthy");
    let audited = kubectl(
        "exec -n volumeviz deployment/volumeviz-controller -c maintain -- /volumeviz audit --subject volumescan/api",
    );
    assert!(audited.contains("SpecSeen"), "{audited}");
    kubectl("delete clusterrolebinding reader");
    kubectl("delete serviceaccount reader -n default");
    remove_volumes();
}

/// Every status that a scan goes through until it is dropped.
fn statuses_of(name: &str) -> (Running, std::sync::mpsc::Receiver<Value>) {
    let mut child = Command::new("kubectl")
        .args(["get", "volumescan", name, "--watch", "--output", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let output = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        for scan in serde_json::Deserializer::from_reader(output).into_iter::<Value>().map_while(Result::ok) {
            if sender.send(scan["status"].clone()).is_err() {
                return;
            }
        }
    });
    (Running(child), receiver)
}

fn job(name: &str, script: &str) {
    let manifest =
        kubectl(&format!("create job {name} -n volumeviz --from=cronjob/volumeviz-backup --dry-run=client -o json"));
    apply(&serde_json::from_str(&manifest.replace("/scripts/backup.sh", script)).unwrap()).unwrap();
    wait(120, &format!("job {name} to end"), || {
        let status = get(&format!("job {name} -n volumeviz"))["status"].clone();
        assert_eq!(status.get("failed"), None, "{}", kubectl(&format!("logs -n volumeviz job/{name}")));
        (status["succeeded"] == 1).then_some(())
    });
}

#[test]
fn a_lost_database_comes_back_from_its_backup() {
    install(&["--set", "backup.enabled=true,backup.persistence.storageClass=local", "--wait"]).unwrap();
    in_node(
        "node-1",
        "docker volume create kept >/dev/null; head -c 1000000 /dev/zero > /var/lib/docker/volumes/kept/_data/file",
    );
    let scan = Scan::new("lost", &json!({"trigger": "before"}));
    scan.complete(60);
    job("backup-1", "/scripts/backup.sh");
    let log = kubectl("logs -n volumeviz job/backup-1");
    assert!(log.contains("restored: schema") && log.contains("kept /backups/volumeviz-"), "{log}");
    // A run that the backup does not hold.
    in_node("node-1", "head -c 3000000 /dev/zero > /var/lib/docker/volumes/kept/_data/more");
    kubectl(r#"patch volumescan lost --type=merge -p {"spec":{"trigger":"after"}}"#);
    let told = wait(60, "the second run", || {
        let status = scan.status();
        (status["lastHandledTrigger"] == "after"
            && status["activeRun"].is_null()
            && status["lastRun"]["result"] == "Succeeded")
            .then_some(status)
    });

    let (_watching, statuses) = statuses_of("lost");
    scale("deployment/volumeviz-controller", 0);
    scale("statefulset/volumeviz-database", 0);
    in_node("node-1", "rm -rf /var/lib/kubelet/database/*");
    scale("statefulset/volumeviz-database", 1);
    job("restore-1", "/scripts/restore.sh");
    assert_eq!(sql("SELECT count(*) FROM scan_runs WHERE run_key = 't:after'"), "0", "the second run is lost");
    // Until it is looked at: on a machine that is quick enough the run would be made again before anybody is told that it is missing.
    kubectl(r#"patch volumescan lost --type=merge -p {"spec":{"suspend":true}}"#);
    scale("deployment/volumeviz-controller", 2);
    wait(60, "the status to say what is missing", || {
        (condition(&scan.status(), "DatabaseReady").1 == "ResultsMissing").then_some(())
    });
    kubectl(r#"patch volumescan lost --type=merge -p {"spec":{"suspend":false}}"#);
    wait(60, "the lost run to be made again", || {
        let again = sql("SELECT count(*) FROM scan_runs WHERE run_key = 't:after' AND result = 'Succeeded'") == "1";
        (again && condition(&scan.status(), "DatabaseReady").1 == "Connected").then_some(())
    });
    let seen: Vec<Value> = statuses.try_iter().collect();
    let reasons: Vec<String> = seen.iter().map(|status| condition(status, "DatabaseReady").1).collect();
    assert!(reasons.iter().any(|reason| reason == "ResultsMissing"), "what was watched has it all: {reasons:?}");
    assert!(
        !reasons.iter().any(|reason| reason == "Unreachable"),
        "it was there whenever a controller was: {reasons:?}"
    );
    for status in &seen {
        assert_eq!(status["totals"]["volumes"], told["totals"]["volumes"], "never zeros, never nothing: {status}");
    }
    assert_eq!(scan.status()["totals"]["allocatedBytes"], told["totals"]["allocatedBytes"], "measured again");
    kubectl("delete job -n volumeviz backup-1 restore-1");
    install(&["--wait"]).unwrap();
    remove_volumes();
}
