//! Where notifications do not go, whatever a Secret says.

use std::sync::{Arc, Mutex};

use crate::webhook::{Answer, Webhook};
use crate::*;

/// What `check` says of a webhook with this URL.
async fn checked(operator: &Operator, url: &str) -> Option<&'static str> {
    operator.secret("checked", &[("url", url)]).await;
    let problem = operator.notifier.check(&[Receiver::event(), webhook("checked")]).await?;
    assert!(problem.message.starts_with("spec.notify[checked]: "), "{problem:?}");
    Some(problem.reason)
}

#[tokio::test]
async fn what_is_never_a_receiver_is_refused_by_name_and_by_address() {
    let (loopback, metadata) = (Webhook::on("127.0.0.1").await, Webhook::on("169.254.169.254").await);
    let allowed = format!(
        "--notify-allow=loopback.test:{0},127.0.0.1:{0},mixed.test:{0},metadata.test:{1}",
        loopback.port(),
        metadata.port()
    );
    let operator = Operator::new(&[&allowed]).await;
    let _leading = operator.lead();
    let urls = [
        loopback.url("loopback.test"),
        loopback.url("127.0.0.1"),
        loopback.url("mixed.test"),
        loopback.url("[::ffff:127.0.0.1]"),
        loopback.url("2130706433"),
        metadata.url("metadata.test"),
        metadata.url("169.254.169.254"),
        "http://[fe80::1]/".to_owned(),
    ];
    for (n, url) in urls.iter().enumerate() {
        assert_eq!(checked(&operator, url).await, Some("ReceiverRefused"), "{url}");
        let (name, firing) = (format!("hook-{n}"), told("big", Occasion::Firing));
        operator.secret(&name, &[("url", url)]).await;
        operator.put(&webhook(&name), &firing).await;
        let why = operator.failed(&firing).await;
        assert!(why.contains("key url leads to") && why.ends_with("which is always refused"), "{url}: {why}");
    }
    assert_eq!((loopback.seen().len(), metadata.seen().len()), (0, 0));
}

#[tokio::test]
async fn private_addresses_need_to_be_allowed() {
    for (address, host, allow) in [("10.99.0.1", "private.test", "private.test"), ("fd99::1", "[fd99::1]", "[fd99::1]")]
    {
        let hook = Webhook::on(address).await;
        let url = hook.url(host);
        let strict = Operator::new(&["--notify-allow=private.test:1,other.test:80"]).await;
        let _leading = strict.lead();
        assert_eq!(checked(&strict, &url).await, Some("ReceiverRefused"));
        let firing = told("big", Occasion::Firing);
        strict.put(&webhook("checked"), &firing).await;
        assert!(strict.failed(&firing).await.contains("this installation does not allow"));
        assert_eq!(hook.seen().len(), 0);

        let open = Operator::new(&[&format!("--notify-allow={allow}:{}", hook.port())]).await;
        let _leading = open.lead();
        assert_eq!(checked(&open, &url).await, None);
        open.put(&webhook("checked"), &firing).await;
        open.delivered(&firing).await;
        assert_eq!(hook.seen().len(), 1);
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (hook, elsewhere, inside) =
        (Webhook::on("11.0.0.1").await, Webhook::on("11.0.0.1").await, Webhook::on("127.0.0.1").await);
    let operator = Operator::new(&[]).await;
    let _leading = operator.lead();
    operator.secret("hook", &[("url", &hook.url("public.test"))]).await;
    for to in [elsewhere.url("other.test"), inside.url("127.0.0.1")] {
        hook.answers([Answer::Redirect(to)]);
        let firing = told(&format!("big-{}", Uuid::new_v4()), Occasion::Firing);
        operator.put(&webhook("hook"), &firing).await;
        assert_eq!(
            operator.failed(&firing).await,
            "spec.notify[hook]: the receiver answered 302 Found, and redirects are not followed"
        );
    }
    assert_eq!((hook.seen().len(), elsewhere.seen().len(), inside.seen().len()), (2, 0, 0));
}

#[tokio::test]
async fn an_answer_of_a_gigabyte_is_not_read() {
    let (hook, sent) = (Webhook::on("11.0.0.1").await, Arc::new(Mutex::new(0)));
    hook.answers([Answer::Gigabyte(Arc::clone(&sent))]);
    let operator = Operator::new(&[]).await;
    let _leading = operator.lead();
    operator.secret("hook", &[("url", &hook.url("public.test"))]).await;
    let firing = told("big", Occasion::Firing);
    operator.put(&webhook("hook"), &firing).await;
    operator.delivered(&firing).await;
    let sent = *sent.lock().unwrap();
    assert!(sent < 64 << 20, "{sent} bytes were taken");
}

#[tokio::test]
async fn a_name_that_is_unknown_now_makes_no_alert_unready() {
    let operator = Operator::new(&[]).await;
    let _leading = operator.lead();
    assert_eq!(checked(&operator, "http://nothing.test/").await, None);
    let firing = told("big", Occasion::Firing);
    operator.put(&webhook("checked"), &firing).await;
    assert!(operator.failed(&firing).await.ends_with("key url has a host whose address cannot be found"));
}
