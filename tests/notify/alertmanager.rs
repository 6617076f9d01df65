//! A real Alertmanager, as `make setup` builds it.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::port;
use crate::tool::tool;
use crate::*;

/// It ends with this value.
struct Alertmanager {
    url: String,
    process: Child,
    folder: TempDir,
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Alertmanager {
    /// On a private address, as in a cluster.
    async fn start() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.yaml"), "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
            .unwrap();
        let free = port::free("10.99.0.1");
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(tool("alertmanager"))
            .arg(format!("--config.file={}", folder.path().join("config.yaml").display()))
            .arg(format!("--storage.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={free}"))
            .arg("--web.route-prefix=/prefix")
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("alertmanager: `make setup` builds it");
        let alertmanager = Self { url: format!("http://private.test:{}/prefix", free.port()), process, folder };
        wait("Alertmanager to be ready", async || {
            let log = fs::read_to_string(alertmanager.folder.path().join("log")).unwrap();
            assert!(!log.contains("level=ERROR"), "{log}");
            alertmanager.get("/-/ready").await.filter(|answer| answer.status().is_success())
        })
        .await;
        alertmanager
    }

    async fn get(&self, path: &str) -> Option<reqwest::Response> {
        reqwest::Client::new().get(format!("{}{path}", self.url)).send().await.ok()
    }

    /// What it takes for firing.
    async fn alerts(&self) -> Vec<Value> {
        self.get("/api/v2/alerts").await.unwrap().json().await.unwrap()
    }
}

fn alertmanager(secret: Option<&str>) -> Receiver {
    Receiver {
        name: "am".to_owned(),
        channel: Channel::Alertmanager,
        secret_name: secret.map(str::to_owned),
        repeat_every_seconds: None,
        send_resolved: true,
    }
}

#[tokio::test]
async fn what_fires_is_there_once_and_gone_when_it_is_over() {
    let real = Alertmanager::start().await;
    let operator = Operator::new(&[&format!("--alertmanager-url={}", real.url)]).await;
    let _leading = operator.lead();
    assert_eq!(operator.notifier.check(&[alertmanager(None)]).await, None);
    let firing = told("big", Occasion::Firing);
    operator.put(&alertmanager(None), &firing).await;
    operator.delivered(&firing).await;
    let alerts = wait("the alert", async || Some(real.alerts().await).filter(|alerts| !alerts.is_empty())).await;
    assert_eq!(alerts.len(), 1);
    let expected = serde_json::json!({"alertname": "big", "severity": "critical", "rule": "sizeAbove", "scope": "Volume", "node": "node-1",
        "volume": "shop-db", "volumeviz_alert_uid": "big-uid"});
    assert_eq!(
        (&alerts[0]["labels"], &alerts[0]["annotations"]["summary"]),
        (&expected, &Value::from("big: node-1/shop-db"))
    );

    let again = told("big", Occasion::Reminder);
    operator.put(&alertmanager(None), &again).await;
    operator.delivered(&again).await;
    assert_eq!(real.alerts().await.len(), 1, "it is the same alert");

    let resolved = told("big", Occasion::Resolved);
    operator.put(&alertmanager(None), &resolved).await;
    operator.delivered(&resolved).await;
    wait("the alert to be over", async || real.alerts().await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn what_fires_is_told_again_until_it_is_over() {
    let real = Alertmanager::start().await;
    let operator = Operator::new(&[&format!("--alertmanager-url={}", real.url)]).await;
    let _leading = operator.lead();
    let receivers = || vec![Receiver::event(), alertmanager(None)];
    operator.notifier.keep_telling("big-uid", receivers(), vec![told("big", Occasion::Firing)]);
    // Nothing is in the outbox: what is there was told from memory.
    wait("the alert to be told again", async || (!real.alerts().await.is_empty()).then_some(())).await;
    let resolved = told("big", Occasion::Resolved);
    operator.put(&alertmanager(None), &resolved).await;
    operator.delivered(&resolved).await;
    wait("the alert to be over", async || real.alerts().await.is_empty().then_some(())).await;
}

/// Told again from memory, it would fire for another hour.
#[tokio::test]
async fn what_is_over_is_not_told_again() {
    let real = Alertmanager::start().await;
    let operator = Operator::new(&[&format!("--alertmanager-url={}", real.url)]).await;
    let _leading = operator.lead();
    operator.notifier.keep_telling("big-uid", vec![alertmanager(None)], vec![told("big", Occasion::Firing)]);
    let resolved = told("big", Occasion::Resolved);
    operator.put(&alertmanager(None), &resolved).await;
    operator.delivered(&resolved).await;
    // Handed in later, it is told again later.
    operator.notifier.keep_telling("other-uid", vec![alertmanager(None)], vec![told("other", Occasion::Firing)]);
    wait("the other to be told again", async || (!real.alerts().await.is_empty()).then_some(())).await;
    let third = told("third", Occasion::Firing);
    operator.put(&alertmanager(None), &third).await;
    operator.delivered(&third).await;
    let mut names: Vec<_> = real.alerts().await.iter().map(|alert| alert["labels"]["alertname"].to_string()).collect();
    names.sort_unstable();
    assert_eq!(names, [r#""other""#, r#""third""#]);
}

#[tokio::test]
async fn a_secret_may_name_another_alertmanager() {
    let real = Alertmanager::start().await;
    let endpoint = real.url.trim_start_matches("http://").trim_end_matches("/prefix").to_owned();
    let operator = Operator::new(&[&format!("--notify-allow={endpoint}")]).await;
    let _leading = operator.lead();
    let none = operator.notifier.check(&[alertmanager(None)]).await.unwrap();
    assert_eq!(none.reason, "ReceiverNotConfigured");
    operator.secret("body", &[("url", &real.url), ("body", "mine")]).await;
    assert_eq!(operator.notifier.check(&[alertmanager(Some("body"))]).await.unwrap().reason, "SecretInvalid");
    operator.secret("am", &[("url", &real.url)]).await;
    let firing = told("big", Occasion::Firing);
    operator.put(&alertmanager(Some("am")), &firing).await;
    operator.delivered(&firing).await;
    wait("the alert", async || (!real.alerts().await.is_empty()).then_some(())).await;
}
