//! Alerts from volumes that grow and shrink to a real Alertmanager, a webhook and Events; and of the database itself.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};

use super::tool::tool;
use super::*;

/// The machine's own address in the cluster's network.
const MACHINE: &str = "10.90.0.1";

/// What a webhook was told: the id in the header, and the body.
type Told = Arc<Mutex<Vec<(String, Value)>>>;

/// Answers at an address of the machine until the test ends.
fn webhook() -> (String, Told) {
    let listener = TcpListener::bind((MACHINE, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let told = Told::default();
    let heard = Arc::clone(&told);
    let take = async move |headers: HeaderMap, Json(body): Json<Value>| {
        let id = headers["idempotency-key"].to_str().unwrap().to_owned();
        heard.lock().unwrap().push((id, body));
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, Router::new().route("/hook", post(take))).await.unwrap();
        });
    });
    (address, told)
}

struct Alertmanager {
    address: String,
    _process: Running,
    _folder: tempfile::TempDir,
}

impl Alertmanager {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.yaml");
        fs::write(&config, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n").unwrap();
        let address = port::free(MACHINE).to_string();
        let process = Command::new(tool("alertmanager"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", folder.path().display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("alertmanager: `make setup` builds it");
        Self { address, _process: Running(process), _folder: folder }
    }

    /// Names of the alerts' volumes that it takes for firing.
    fn firing(&self) -> Vec<String> {
        let (_, alerts) = database::http(&self.address, "/api/v2/alerts?active=true", "");
        let names = alerts.as_array().into_iter().flatten();
        names
            .map(|alert| format!("{}: {}", alert["labels"]["alertname"], alert["labels"]["volume"]).replace('"', ""))
            .collect()
    }
}

/// An alert that is deleted with this value.
struct Alert(&'static str);

impl Alert {
    fn new(name: &'static str, spec: &Value) -> Self {
        let manifest = json!({"apiVersion": "volumeviz.io/v1alpha1", "kind": "VolumeAlert", "metadata": {"name": name}, "spec": spec});
        apply(&manifest).unwrap_or_else(|error| panic!("{manifest}: {error}"));
        Self(name)
    }

    fn status(&self) -> Value {
        get(&format!("volumealert {}", self.0))["status"].clone()
    }

    fn until(&self, seconds: u64, state: &str) -> Value {
        wait(seconds, &format!("{} to be {state}", self.0), || {
            let status = self.status();
            (status["state"] == state).then_some(status)
        })
    }

    /// Reasons of its Events, in their order.
    fn events(&self) -> Vec<String> {
        let field = format!("involvedObject.kind=VolumeAlert,involvedObject.name={}", self.0);
        let order = "--sort-by=.metadata.creationTimestamp";
        let listed =
            ["get", "events", "-n", "default", "--field-selector", &field, order, "-o", "jsonpath={.items[*].reason}"];
        run("kubectl", &listed).split_whitespace().map(str::to_owned).collect()
    }
}

impl Drop for Alert {
    fn drop(&mut self) {
        drop(try_run("kubectl", &["delete", "volumealert", self.0, "--ignore-not-found"]));
    }
}

fn resize(mebibytes: u32) {
    let file = "/var/lib/docker/volumes/growing/_data/file";
    in_node("node-1", &format!("rm -f {file}; dd if=/dev/urandom of={file} bs=1M count={mebibytes} 2>/dev/null"));
}

/// Measures once more.
fn measure(scan: &Scan) {
    let before = scan.status()["lastRun"]["id"].clone();
    let trigger = format!("after-{before}");
    run(
        "kubectl",
        &["patch", "volumescan", &scan.0, "--type=merge", "-p", &json!({"spec": {"trigger": trigger}}).to_string()],
    );
    wait(60, "the next run", || (scan.status()["lastRun"]["id"] != before).then_some(()));
}

fn judged(alert: &Alert, scan: &Scan) -> Value {
    let run = scan.status()["lastRun"]["id"].clone();
    wait(15, "the run to be judged", || {
        let status = alert.status();
        (status["lastEvaluatedRun"]["id"] == run).then_some(status)
    })
}

fn secret(name: &str, address: &str, labels: &Value) {
    let manifest = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "volumeviz", "labels": labels},
        "stringData": {"url": format!("http://{address}/hook")},
    });
    apply(&manifest).unwrap();
}

#[test]
fn a_volume_that_grows_is_told_once_and_once_when_it_has_shrunk() {
    let (address, told) = webhook();
    let alertmanager = Alertmanager::start();
    let url = format!("alerts.alertmanagerUrl=http://{}", alertmanager.address);
    install(&["--set", &url, "--set", &format!("alerts.allow={{{address}}}"), "--wait", "--timeout", "3m"]).unwrap();
    secret("hook", &address, &json!({"volumeviz.io/notify": "true"}));
    in_node("node-1", "docker volume create growing >/dev/null");
    resize(1);
    let scan = Scan::new("growing", &json!({"volumeSelector": {"names": ["growing"]}}));
    scan.complete(60);
    let alert = Alert::new(
        "growing",
        &json!({
            "scope": "Volume", "scanSelector": {"names": ["growing"]}, "rule": {"sizeAbove": {"bytes": 10 << 20}},
            "clearBelow": 6 << 20, "forSeconds": 12, "severity": "Critical",
            "notify": [{"name": "event", "type": "Event"}, {"name": "hook", "type": "Webhook", "secretName": "hook"},
                {"name": "ops", "type": "Alertmanager"}],
        }),
    );
    let status = alert.until(15, "Inactive");
    assert_eq!(condition(&status, "Ready"), ("True".to_owned(), "Watching".to_owned()), "{status}");
    assert_eq!(condition(&status, "DataAvailable").0, "True", "{status}");

    resize(20);
    measure(&scan);
    let pending = alert.until(12, "Pending");
    assert_eq!((&pending["counts"]["pending"], told.lock().unwrap().len()), (&json!(1), 0), "{pending}");
    let firing = alert.until(30, "Firing");
    assert_eq!((&firing["firing"][0]["node"], &firing["firing"][0]["volume"]), (&json!("node-1"), &json!("growing")));
    wait(15, "the webhook and Alertmanager", || {
        (told.lock().unwrap().len() == 1 && alertmanager.firing() == ["growing: growing"]).then_some(())
    });
    let body = told.lock().unwrap()[0].1.clone();
    assert_eq!(
        (&body["event"], &body["alert"], &body["severity"]),
        (&json!("Firing"), &json!("growing"), &json!("Critical"))
    );
    assert!(body["text"].as_str().unwrap().contains("node-1/growing: 20.0 MiB, limit 10.0 MiB"), "{body}");

    resize(8);
    measure(&scan);
    let still = judged(&alert, &scan);
    assert_eq!(still["state"], "Firing", "8 MiB are within the hysteresis: {still}");
    stays(3, "nothing more is told", || told.lock().unwrap().len());

    resize(1);
    measure(&scan);
    alert.until(15, "Inactive");
    wait(15, "the end to be told", || {
        (told.lock().unwrap().len() == 2 && alertmanager.firing().is_empty()).then_some(())
    });
    assert_eq!(told.lock().unwrap()[1].1["event"], "Resolved");
    let delivered = wait(10, "deliveries in status", || {
        let status = alert.status();
        (condition(&status, "NotificationsDelivered").1 == "AllDelivered").then_some(status)
    });
    assert!(delivered["lastNotificationTime"].is_string(), "{delivered}");
    assert_eq!(alert.events(), ["AlertFiring", "AlertResolved"]);
    in_node("node-1", "docker volume rm growing >/dev/null");
}

#[test]
fn an_alert_whose_secret_is_missing_is_judged_all_the_same_and_its_end_is_told_when_it_is_deleted() {
    in_node(
        "node-1",
        "docker volume create kept >/dev/null; dd if=/dev/urandom of=/var/lib/docker/volumes/kept/_data/file bs=1M count=2 2>/dev/null",
    );
    let scan = Scan::new("kept", &json!({"volumeSelector": {"names": ["kept"]}}));
    scan.complete(60);
    kubectl("delete secret hook -n volumeviz --ignore-not-found");
    let notify = json!([{"name": "event", "type": "Event"}, {"name": "hook", "type": "Webhook", "secretName": "hook"}]);
    let spec = json!({"scope": "Volume", "scanSelector": {"names": ["kept"]}, "rule": {"sizeAbove": {"bytes": 1 << 20}}, "notify": notify});
    let alert = Alert::new("kept", &spec);
    let status = alert.until(15, "Firing");
    let (ready, reason) = condition(&status, "Ready");
    assert_eq!((ready.as_str(), reason.as_str()), ("False", "SecretMissing"), "{status}");
    assert!(status.to_string().contains("spec.notify[hook]"), "{status}");
    let uid = get("volumealert kept")["metadata"]["uid"].as_str().unwrap().to_owned();
    kubectl("delete volumealert kept");
    let over = format!("SELECT message FROM alerts WHERE alert_uid = '{uid}' AND resolved_at IS NOT NULL");
    wait(15, "its state to be over", || (sql(&over) == "the VolumeAlert was deleted").then_some(()));
    wait(15, "its end and what was in its way to be told", || {
        let mut events = alert.events();
        events.sort();
        (events == ["AlertFiring", "AlertResolved", "SecretMissing"]).then_some(())
    });
    in_node("node-1", "docker volume rm kept >/dev/null");
}

#[test]
fn a_database_that_is_down_is_told_without_it() {
    let (address, told) = webhook();
    install(&["--set", &format!("alerts.allow={{{address}}}"), "--wait", "--timeout", "3m"]).unwrap();
    secret("hook", &address, &json!({"volumeviz.io/notify": "true"}));
    let notify = json!([{"name": "event", "type": "Event"}, {"name": "hook", "type": "Webhook", "secretName": "hook"}]);
    let alert = Alert::new("down", &json!({"scope": "Cluster", "rule": {"databaseDown": {}}, "notify": notify}));
    let occasions =
        || told.lock().unwrap().iter().map(|(_, body)| body["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    alert.until(15, "Inactive");
    scale("statefulset/volumeviz-database", 0);
    let status = alert.until(30, "Firing");
    assert_eq!(condition(&status, "DatabaseReady").0, "False", "{status}");
    wait(15, "the Event", || (alert.events() == ["AlertFiring"]).then_some(()));
    wait(15, "the webhook", || (occasions() == ["Firing"]).then_some(()));
    scale("statefulset/volumeviz-database", 1);
    alert.until(60, "Inactive");
    wait(30, "its end", || (alert.events() == ["AlertFiring", "AlertResolved"]).then_some(()));
    wait(15, "its end by the webhook", || (occasions().last()? == "Resolved").then_some(()));
    assert_eq!(occasions(), ["Firing", "Resolved"], "what it heard without the database it does not hear again");
    assert_eq!(
        sql("SELECT state || ' ' || count(*) FROM alerts WHERE alert_name = 'down' GROUP BY state"),
        "Resolved 1"
    );
}
