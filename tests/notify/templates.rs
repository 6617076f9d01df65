//! Templates that would be the end of whoever fills them in.

use crate::webhook::Webhook;
use crate::*;

#[path = "../templates/harmful.rs"]
mod harmful;

/// The controller lives, says what is wrong, tells the others meanwhile, and this one once it is mended.
#[tokio::test]
async fn a_template_that_would_kill_the_controller_is_a_mistake_like_any_other() {
    let (operator, hook, other) =
        (Operator::new(&[]).await, Webhook::on("11.0.0.1").await, Webhook::on("11.0.0.1").await);
    let _leading = operator.lead();
    let filling = ("body", "{{ event }}");
    operator.secret("other", &[("url", &other.url("public.test")), filling]).await;
    let mut waiting = Vec::new();
    for (n, (template, _)) in harmful::templates().into_iter().enumerate() {
        let (name, firing) = (format!("hook-{n}"), told(&format!("big-{n}"), Occasion::Firing));
        operator.secret(&name, &[("url", &hook.url("public.test")), ("body", &template)]).await;
        operator.put(&webhook(&name), &firing).await;
        waiting.push((name, firing));
    }
    let firing = told("other", Occasion::Firing);
    operator.put(&webhook("other"), &firing).await;
    operator.delivered(&firing).await;
    for ((name, firing), (template, words)) in waiting.iter().zip(harmful::templates()) {
        let problem = wait("it to be found out", async || {
            operator.notifier.check(&[webhook(name)]).await.filter(|problem| problem.reason == "SecretInvalid")
        });
        let message = problem.await.message;
        let secret = format!("spec.notify[{name}]: Secret {}/{name}: filling in its templates ", operator.namespace);
        let cause = message.strip_prefix(&secret).unwrap_or_else(|| panic!("{message}"));
        assert!(words.contains(&cause), "{cause}: {template:.60}");
        operator.pass_backoff().await;
        let told = async || operator.row(firing).await.last_error.filter(|error| *error == message);
        wait("the delivery to fail by that", told).await;
    }
    assert_eq!((hook.seen().len(), other.seen()[0].body.as_str()), (0, "Firing"));
    for (name, _) in &waiting {
        operator.secret(name, &[("url", &hook.url("public.test")), filling]).await;
    }
    operator.pass_backoff().await;
    for (_, firing) in &waiting {
        operator.delivered(firing).await;
    }
}
