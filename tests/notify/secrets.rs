//! Secrets of receivers: which are used, what is wrong with one, and that nothing of it is told.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::webhook::{Answer, Webhook};
use crate::*;

#[tokio::test]
async fn a_secret_that_is_missing_or_not_labelled_is_named_and_waited_for() {
    let (operator, hook) = (Operator::new(&[]).await, Webhook::on("11.0.0.1").await);
    let (_leading, url) = (operator.lead(), hook.url("public.test"));
    let firing = told("big", Occasion::Firing);
    let problem = async || operator.notifier.check(&[webhook("late")]).await;
    let missing = problem().await.unwrap();
    assert_eq!(missing.reason, "SecretMissing");
    assert_eq!(missing.message, format!("spec.notify[late]: Secret {}/late does not exist", operator.namespace));
    operator.put(&webhook("late"), &firing).await;
    assert!(operator.failed(&firing).await.ends_with("/late does not exist"));
    operator.secret_labelled("late", &[("url", &url)], None).await;
    assert_eq!(problem().await.unwrap().reason, "SecretNotLabelled");
    operator.pass_backoff().await;
    let unlabelled = operator.until(&firing, |row| row.attempts == 2).await;
    assert!(unlabelled.last_error.unwrap().ends_with("has no label volumeviz.io/notify=true"));
    assert_eq!(hook.seen().len(), 0);
    operator.secret("late", &[("url", &url)]).await;
    assert_eq!(problem().await, None);
    operator.pass_backoff().await;
    operator.delivered(&firing).await;
}

#[tokio::test]
async fn a_secret_of_another_namespace_is_not_found() {
    let (here, there) = (Operator::new(&[]).await, Operator::new(&[]).await);
    there.secret("theirs", &[("url", "http://public.test/")]).await;
    assert_eq!(there.notifier.check(&[webhook("theirs")]).await, None);
    assert_eq!(here.notifier.check(&[webhook("theirs")]).await.unwrap().reason, "SecretMissing");
}

#[tokio::test]
async fn what_a_template_could_not_tell_is_told_in_order_once_it_is_mended() {
    let (operator, hook) = (Operator::new(&[]).await, Webhook::on("11.0.0.1").await);
    let _leading = operator.lead();
    operator.secret("hook", &[("url", &hook.url("public.test")), ("body", "\n{{ allert }}")]).await;
    let wrong = operator.notifier.check(&[webhook("hook")]).await.unwrap();
    assert_eq!(wrong.reason, "SecretInvalid");
    assert!(wrong.message.ends_with("key body has a mistake in line 2: undefined value"), "{}", wrong.message);
    let (firing, over) = (told("big", Occasion::Firing), told("big", Occasion::Resolved));
    operator.put(&webhook("hook"), &firing).await;
    operator.put(&webhook("hook"), &over).await;
    let error = operator.failed(&firing).await;
    assert!(error.starts_with("spec.notify[hook]: ") && error.contains("key body has a mistake in line 2"), "{error}");
    operator.secret("hook", &[("url", &hook.url("public.test")), ("body", "{{ event }}")]).await;
    operator.pass_backoff().await;
    operator.delivered(&over).await;
    let bodies: Vec<_> = hook.seen().into_iter().map(|told| told.body).collect();
    assert_eq!(bodies, ["Firing", "Resolved"]);
}

#[tokio::test]
async fn each_receiver_that_cannot_be_told_is_named() {
    let operator = Operator::new(&[]).await;
    operator.secret_labelled("open", &[("url", "http://public.test/")], None).await;
    operator.secret("well", &[("url", "http://public.test/")]).await;
    let all = operator.notifier.check(&[webhook("well"), webhook("gone"), webhook("open")]).await.unwrap();
    assert_eq!(all.reason, "SecretMissing");
    let named: Vec<_> = all.message.split("; ").map(|of| of.split(": ").next().unwrap()).collect();
    assert_eq!(named, ["spec.notify[gone]", "spec.notify[open]"], "{}", all.message);
}

/// In errors, logs and metrics, however it fails, and whatever the receiver answers.
#[tokio::test]
async fn no_value_of_a_secret_is_told() {
    logs::keep();
    let (operator, hook) = (Operator::new(&[]).await, Webhook::on("11.0.0.1").await);
    let _leading = operator.lead();
    hook.answers([Answer::Status(400), Answer::Redirect("http://public.test/canary-of-the-answer".to_owned())]);
    let good = format!("http://public.test:{}/canary", hook.port());
    let cases: [&[(&str, &str)]; 9] = [
        &[("url", &good), ("headers", "Authorization: canary"), ("body", "canary {{ text }}")],
        &[("url", &good), ("headers", "Authorization: canary")],
        &[("url", "http://canary.canary/canary")],
        &[("url", "http://dead.test:1/canary")],
        &[("url", "https://other.test:1/canary")],
        &[("url", "canary")],
        &[("url", &good), ("headers", "canary")],
        &[("url", &good), ("body", "{{ 'canary'|canary }}")],
        &[("url", &good), ("ca.crt", "canary")],
    ];
    let (mut texts, mut last) = (String::new(), None);
    for (n, entries) in cases.iter().enumerate() {
        let (name, firing) = (format!("hook-{n}"), told(&format!("big-{n}"), Occasion::Firing));
        operator.secret(&name, entries).await;
        writeln!(texts, "{:?}", operator.notifier.check(&[webhook(&name)]).await).unwrap();
        operator.put(&webhook(&name), &firing).await;
        let row = operator.until(&firing, |row| row.attempts > 0).await;
        writeln!(texts, "{}", row.last_error.expect("each fails")).unwrap();
        last = Some(firing);
    }
    operator.pass_a_day().await;
    operator.pass_backoff().await;
    operator.until(&last.unwrap(), |row| row.given_up).await;
    texts += &operator.metrics();
    for seen in ["answered 400", "answered 302", "no connection", "key url", "key headers", "key body", "key ca.crt"] {
        assert!(texts.contains(seen), "{seen}: {texts}");
    }
    assert!(!texts.contains("canary"), "{texts}");
    let logged = logs::text();
    assert!(logged.contains("gave a notification up"), "logs are kept:\n{logged}");
    let told: Vec<_> = logged.lines().filter(|line| line.contains("canary")).collect();
    assert_eq!(told, [""; 0]);
}

/// Their URLs have a host that nobody knows here; all else is tried.
#[tokio::test]
async fn the_examples_can_be_used() {
    let operator = Operator::new(&[]).await;
    let secrets: Api<Secret> = Api::namespaced(operator.client.clone(), &operator.namespace);
    let examples = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")).unwrap();
    let mut count = 0;
    for path in examples.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.starts_with("notify-") {
            continue;
        }
        let mut secret: Secret = serde_yaml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        secret.metadata.namespace = None;
        let created = secrets.create(&PostParams::default(), &secret).await.unwrap();
        assert_eq!(operator.notifier.check(&[webhook(&created.metadata.name.unwrap())]).await, None, "{name}");
        count += 1;
    }
    assert_eq!(count, 3);
}
