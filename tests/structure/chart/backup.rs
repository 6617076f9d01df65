//! When dumps are made, for how long, and what is kept of it.

use serde_json::{Value, json};

use super::Rendered;

fn cron(values: &[&str]) -> Value {
    Rendered::with(values).object("CronJob", "volumeviz-backup").unwrap()["spec"].clone()
}

#[test]
fn a_restore_can_keep_dumps_from_being_made() {
    assert_eq!((&cron(&[])["suspend"], &cron(&["backup.suspend=true"])["suspend"]), (&json!(false), &json!(true)));
}

/// What a job left that was killed, the next one may take away: not before no job can be at it any more.
#[test]
fn a_job_is_given_up_after_its_deadline() {
    for (values, seconds) in [(&[][..], 21600), (&["backup.activeDeadlineSeconds=60000"], 60000)] {
        assert_eq!(cron(values)["jobTemplate"]["spec"]["activeDeadlineSeconds"], seconds);
        assert_eq!(Rendered::with(values).variable("backup", "DEADLINE_SECONDS"), seconds.to_string());
    }
}

#[test]
fn as_many_jobs_are_kept_as_the_values_say() {
    let kept = |values: &[&str]| {
        let cron = cron(values);
        ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"].map(|limit| cron[limit].as_u64().unwrap())
    };
    assert_eq!(kept(&[]), [3, 1]);
    assert_eq!(kept(&["backup.successfulJobsHistoryLimit=0", "backup.failedJobsHistoryLimit=9"]), [0, 9]);
}

#[test]
fn its_pods_are_where_and_what_the_values_say() {
    let zone = "backup.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    let rendered = Rendered::with(&[
        &format!("{zone}.nodeSelectorTerms[0].matchExpressions[0].key=zone"),
        "backup.podLabels.color=blue",
        "backup.podAnnotations.note=backup",
        "backup.nodeSelector.disk=ssd",
        "backup.tolerations[0].operator=Exists",
        "backup.serviceAccount.annotations.role=backup",
    ]);
    let template = &rendered.object("CronJob", "volumeviz-backup").unwrap()["spec"]["jobTemplate"]["spec"]["template"];
    let metadata = &template["metadata"];
    assert_eq!((&metadata["labels"]["color"], &metadata["annotations"]["note"]), (&json!("blue"), &json!("backup")));
    let pod = &template["spec"];
    assert!(pod["affinity"]["nodeAffinity"].is_object(), "{pod}");
    assert_eq!(pod["nodeSelector"], json!({"disk": "ssd", "kubernetes.io/os": "linux"}));
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
    let account = rendered.object("ServiceAccount", "volumeviz-backup").unwrap();
    assert_eq!(account["metadata"]["annotations"]["role"], "backup");
}
