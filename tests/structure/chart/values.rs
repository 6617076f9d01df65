//! Values that are wrong are refused with their names, and those that are right arrive.

use serde_json::json;

use super::{Rendered, list, parsed, refusal, set, template, template_with_file, why};

#[test]
fn what_the_schema_does_not_know_is_refused() {
    let wrong = [
        ("agents.tolerations=null", "agents"),
        ("agent.maxUnavailable=1", "maxUnavailable"),
        ("agent.updateStrategy.type=Recreate", "/agent/updateStrategy/type"),
        (
            "agent.updateStrategy.rollingUpdate.maxUnavailable=many",
            "/agent/updateStrategy/rollingUpdate/maxUnavailable",
        ),
        ("agent.seLinuxOptions.kind=spc_t", "kind"),
        ("agent.docker.dataRoot=var", "/agent/docker/dataRoot"),
        ("agent.tolerations[0].operator=Exist", "/agent/tolerations/0/operator"),
        ("agent.resources.limit.memory=1Gi", "limit"),
        ("controller.resources.limits.memory=1 GB", "/controller/resources/limits/memory"),
        ("controller.replicas=two", "/controller/replicas"),
        ("controller.podLabels.app\\.kubernetes\\.io/name=other", "app.kubernetes.io/name"),
        ("commonLabels.helm\\.sh/chart=other", "helm.sh/chart"),
        ("controller.topologySpreadConstraints[0].maxSkew=1", "/controller/topologySpreadConstraints/0"),
        ("controller.extraEnv[0].value=a", "/controller/extraEnv/0"),
        ("controller.extraVolumeMounts[0].name=a", "/controller/extraVolumeMounts/0"),
        ("controller.nodeSelector.ssd=true", "/controller/nodeSelector/ssd"),
        ("agent.nodeSelector.kubernetes\\.io/os=windows", "/agent/nodeSelector"),
        ("backup.activeDeadlineSeconds=0", "/backup/activeDeadlineSeconds"),
        ("maintain.extraVolumes=null", "extraVolumes"),
        ("crds.keep=yes", "/crds/keep"),
        ("nameOverride=Disks", "/nameOverride"),
        ("fullnameOverride=disks.example", "/fullnameOverride"),
        ("fullnameOverride=1disk", "/fullnameOverride"),
        ("image.digest=sha256:abc", "/image/digest"),
        ("tests.timeout=soon", "/tests/timeout"),
        ("database.mode=mysql", "/database/mode"),
        ("backup.persistence.size=big", "/backup/persistence/size"),
    ];
    for (value, named) in wrong {
        let refused = refusal(&[value]);
        assert!(refused.contains("values don't meet") && refused.contains(named), "{value}: {refused}");
    }
}

/// As after `helm upgrade --reuse-values` from a chart that did not have them.
#[test]
fn missing_values_are_refused_by_name() {
    let missing = [
        ("crds.keep=null", "keep"),
        ("log=null", "log"),
        ("serviceMonitor.interval=null", "interval"),
        ("agent.docker.dataRoot=null", "dataRoot"),
        ("networkPolicy.dnsPorts=null", "dnsPorts"),
        ("backup.persistence.size=null", "size"),
    ];
    for (value, named) in missing {
        let refused = refusal(&[value]);
        assert!(refused.contains(&format!("missing property '{named}'")), "{value}: {refused}");
    }
    // Any port would be let through.
    for list in ["dnsPorts", "kubernetesApiPorts"] {
        let refused = why(template_with_file(&format!("networkPolicy: {{{list}: []}}")), list);
        assert!(refused.contains(&format!("/networkPolicy/{list}")), "{refused}");
    }
}

/// Whoever took such a name in a public registry would be root on the nodes.
#[test]
fn no_image_is_assumed() {
    let refused = refusal(&["image.repository="]);
    assert!(refused.contains("image.repository: where is the image?"), "{refused}");
}

#[test]
fn a_digest_takes_the_place_of_the_tag() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let rendered = Rendered::with(&["image.repository=ours", "image.tag=v1", &format!("image.digest={digest}")]);
    for container in ["controller", "maintain", "agent", "docker-proxy", "check-installation"] {
        assert_eq!(rendered.0[container].0["image"], format!("ours@{digest}"), "{container}");
    }
    assert_eq!(Rendered::with(&["image.repository=ours", "image.tag=v1"]).0["agent"].0["image"], "ours:v1");
}

/// Else Helm gives up first, and says nothing of what was waited for.
#[test]
fn the_test_waits_no_longer_than_helm() {
    let rendered = Rendered::with(&[]);
    let timeout = rendered.variable("check-installation", "VOLUMEVIZ_CHECK_TIMEOUT");
    let minutes: u32 = timeout.strip_suffix('m').unwrap().parse().unwrap();
    assert!(minutes < 5, "{timeout}");
}

/// In a values file a number is a floating-point one, and would become 5e+06.
#[test]
fn big_numbers_stay_whole() {
    let values =
        "metrics: {volumes: {top: 4000000, max: 5000000}}\nprometheusRule: {enabled: true, noSuccessHours: 10000000}";
    let rendered = Rendered::of(parsed(&template_with_file(values)));
    let told = ["TOP", "MAX"].map(|name| rendered.variable("controller", &format!("VOLUMEVIZ_METRICS_{name}_VOLUMES")));
    assert_eq!(told, ["4000000", "5000000"]);
    let rule = rendered.object("PrometheusRule", "volumeviz").unwrap().to_string();
    assert!(rule.contains("3600 * 10000000") && !rule.contains("e+07"), "{rule}");
}

#[test]
fn what_is_extra_is_there_beside_what_the_chart_needs() {
    let mut values = vec!["extraObjects[0]=kind: ConfigMap\nmetadata: {name: \"{{ .Release.Name }}-more\"}".to_owned()];
    for container in ["controller", "maintain", "agent"] {
        values.push(format!("{container}.extraEnv[0].name=MORE,{container}.extraEnv[0].value={container}"));
        values.push(format!(
            "{container}.extraVolumeMounts[0].name=more,{container}.extraVolumeMounts[0].mountPath=/more"
        ));
    }
    for pod in ["controller", "agent"] {
        values.push(format!("{pod}.extraVolumes[0].name=more,{pod}.extraVolumes[0].configMap.name=more"));
        values.push(format!("{pod}.priorityClassName=high"));
    }
    let rendered = Rendered::with(&values.iter().map(String::as_str).collect::<Vec<_>>());
    for container in ["controller", "maintain", "agent"] {
        assert_eq!(rendered.variable(container, "MORE"), container);
        assert!(!rendered.variable(container, "DB_HOST").is_empty(), "{container}");
        let (container, pod) = &rendered.0[container];
        let more = list(&container["volumeMounts"]).iter().find(|mount| mount["name"] == "more").unwrap();
        assert_eq!(more["mountPath"], "/more");
        assert!(list(&pod["volumes"]).contains(&json!({"name": "more", "configMap": {"name": "more"}})));
        assert_eq!(pod["priorityClassName"], "high");
    }
    assert!(rendered.object("ConfigMap", "volumeviz-more").is_some());
}

#[test]
fn crds_are_kept_unless_the_values_say_otherwise() {
    let kept = |values: &[&str]| -> Vec<bool> {
        let objects = parsed(&template(&[set(values), vec!["--skip-schema-validation".to_owned()]].concat()));
        let crds = objects.iter().filter(|object| object["kind"] == "CustomResourceDefinition");
        crds.map(|crd| crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep").collect()
    };
    assert_eq!(kept(&[]), [true, true]);
    assert_eq!(kept(&["crds.keep=null"]), [true, true]);
    assert_eq!(kept(&["crds.keep=false"]), [false, false]);
    assert_eq!(kept(&["crds.enabled=false"]), [false; 0]);
}
