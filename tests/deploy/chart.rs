//! The chart, linted and rendered with Helm's own code.

use std::fs;

use serde_json::{Value, json};

use crate::manifests::{
    Variant, check_command, check_privileges, check_references, documents, of_kind, single_of_kind,
    validate,
};
use crate::programs::{read, root, stdout_of, tool_path};

/// Renders the chart with each of the values (a JSON list) and an image: `{"documents", "notes"}` or `{"error"}`.
pub(crate) fn render_chart(values: &Value) -> Vec<Value> {
    let mut values = values.clone();
    for one in values.as_array_mut().unwrap() {
        let image = one.as_object_mut().unwrap().entry("image").or_insert_with(|| json!({}));
        let repository = image.as_object_mut().unwrap().entry("repository");
        repository.or_insert_with(|| json!("nvml-exporter"));
    }
    let script = root().join("tests/clients/manifests.py").display().to_string();
    let chart = root().join("daemonset/chart").display().to_string();
    let arguments = [script.as_str(), "chart", &chart];
    let output = stdout_of(&tool_path("python/bin/python"), &arguments, &values.to_string());
    serde_json::from_str(&output).unwrap()
}

pub(crate) fn documents_of_release(release: &Value) -> Vec<Value> {
    release["documents"].as_array().unwrap_or_else(|| panic!("{}", release["error"])).clone()
}

pub(crate) fn container(documents: &[Value]) -> Value {
    single_of_kind(documents, "DaemonSet")["spec"]["template"]["spec"]["containers"][0].clone()
}

#[test]
fn chart_variants_have_the_privileges_of_the_manifests() {
    let monitor = json!({"enabled": true, "additionalLabels": {"release": "prometheus"}});
    let cases = [
        ("defaults", json!({}), Variant::default()),
        ("mig", json!({"mig": {"enabled": true}}), Variant { mig: true, ..Variant::default() }),
        ("mock", json!({"mock": {"enabled": true}}), Variant { mock: true, ..Variant::default() }),
        ("node only", json!({"nodeOnly": true}), Variant { node_only: true, ..Variant::default() }),
        ("service monitor", json!({"serviceMonitor": monitor}), Variant::default()),
        ("pod monitor", json!({"podMonitor": monitor}), Variant::default()),
        ("rules", json!({"prometheusRule": {"enabled": true}}), Variant::default()),
        (
            "dcgm-exporter",
            json!({"dialect": "dcgm-exporter"}),
            Variant { devices_only: true, ..Variant::default() },
        ),
        (
            "ack",
            json!({
                "ownMetricsPath": "/metrics/own",
                "service": {
                    "port": 9445, "portName": "http-metrics",
                    "labels": {"k8s-app": "ack-prometheus-gpu-exporter"},
                },
            }),
            Variant::default(),
        ),
    ];
    let values: Vec<&Value> = cases.iter().map(|(_, values, _)| values).collect();
    let releases = render_chart(&json!(values));
    let mut all = Vec::new();
    for ((name, _, variant), release) in cases.iter().zip(&releases) {
        let documents = documents_of_release(release);
        check_privileges(name, &documents, *variant);
        check_references(name, &documents);
        check_command(name, &documents);
        let notes = release["notes"].as_str().unwrap();
        assert!(notes.contains("every sum would double"), "{name}: {notes}");
        all.extend(documents);
    }
    validate("chart", &all);

    // The chart has the same alerts as the kustomization.
    let rule = documents(&read("daemonset/rules/prometheus-rule.yaml"));
    assert_eq!(single_of_kind(&all, "PrometheusRule")["spec"], rule[0]["spec"]);
}

#[test]
fn values_of_the_dcgm_exporter_chart_are_applied() {
    // Every key of the dcgm-exporter chart that this chart supports, with a distinct value.
    let values = json!({
        "image": {"repository": "registry.example.com/gpu/exporter", "tag": "1.2.3"},
        "arguments": ["--debug"],
        "imagePullSecrets": [{"name": "pull"}],
        "fullnameOverride": "dcgm-exporter",
        "namespaceOverride": "gpus",
        "hostPID": true,
        "hostNetwork": false,
        "runtimeClassName": "nvidia",
        "priorityClassName": "system-cluster-critical",
        "serviceAccount": {"create": true, "annotations": {"a": "b"}, "name": "gpu-reader"},
        "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0},
        "podLabels": {"team": "infra"},
        "podAnnotations": {"prometheus.io/scrape": "true"},
        "podSecurityContext": {"fsGroup": 2000},
        "service": {
            "enable": true, "type": "ClusterIP", "clusterIP": "", "port": 9401,
            "address": ":9401", "internalTrafficPolicy": "Local", "annotations": {"c": "d"},
        },
        "resources": {"limits": {"memory": "96Mi"}},
        "serviceMonitor": {
            "enabled": true, "interval": "30s", "scrapeTimeout": "25s", "honorLabels": true,
            "additionalLabels": {"release": "prometheus"},
            "relabelings": [{"action": "labeldrop", "regex": "pod"}],
            "metricRelabelings": [{"action": "drop", "regex": "DCGM_FI_PROF_.*",
                                   "sourceLabels": ["__name__"]}],
        },
        "nodeSelector": {"gpu": "true"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "affinity": {},
        "extraHostVolumes": [{"name": "lib", "hostPath": "/opt/nvidia"}],
        "extraConfigMapVolumes": [{"name": "more", "configMap": {"name": "more"}}],
        "extraVolumeMounts": [{"name": "lib", "mountPath": "/opt/nvidia", "readOnly": true}],
        "extraEnv": [{"name": "NVML_EXPORTER_MAX_AGE", "value": "30000"}],
        "initContainers": [{"name": "wait", "image": "registry.example.com/wait:1"}],
        "kubeletPath": "/var/snap/microk8s/common/var/lib/kubelet/pod-resources",
        "kubernetes": {"enablePodLabels": false, "enablePodUID": false,
                       "podLabelAllowlistRegex": [], "rbac": {"create": true}},
        "kubernetesDRA": {"enabled": false},
        "tlsServerConfig": {"enabled": false, "autoGenerated": true, "certFilename": "tls.crt"},
        "basicAuth": {"users": {}},
        "debugDump": {"enabled": false, "directory": "/tmp/dumps", "retention": 24},
        "livenessProbe": {"initialDelaySeconds": 45, "periodSeconds": 5},
        "readinessProbe": {"initialDelaySeconds": 45},
    });
    let releases = render_chart(&json!([values]));
    let documents = documents_of_release(&releases[0]);
    validate("values of dcgm-exporter", &documents);
    let daemonset = single_of_kind(&documents, "DaemonSet");
    assert_eq!(daemonset["metadata"]["name"], "dcgm-exporter");
    assert_eq!(daemonset["metadata"]["namespace"], "gpus");
    // Every distinct value appears in the manifests.
    let text = json!(documents).to_string();
    for value in [
        "registry.example.com/gpu/exporter:1.2.3",
        "--debug",
        "\"pull\"",
        "\"nvidia\"",
        "system-cluster-critical",
        "gpu-reader",
        "\"infra\"",
        "prometheus.io/scrape",
        "2000",
        "9401",
        "\"Local\"",
        "96Mi",
        "30s",
        "25s",
        "labeldrop",
        "DCGM_FI_PROF_",
        "/opt/nvidia",
        "\"more\"",
        "NVML_EXPORTER_MAX_AGE",
        "wait:1",
        "microk8s",
        "\"initialDelaySeconds\":45",
    ] {
        assert!(text.contains(value), "{value} is not applied");
    }
    assert_eq!(daemonset["spec"]["template"]["spec"]["affinity"], Value::Null);
}

#[test]
fn counters_and_pod_labels_are_applied() {
    let counters = "# Format\nDCGM_FI_DEV_GPU_UTIL, gauge, util\n";
    let labels = json!({
        "enablePodLabels": true, "enablePodUID": true, "podLabelAllowlistRegex": ["^app$", "^team"],
    });
    let values = json!([
        {"customMetrics": counters, "kubernetes": labels, "kubernetesDRA": {"enabled": true}},
        {"dialect": "dcgm-exporter"},
        {},
    ]);
    let documents: Vec<Vec<Value>> =
        render_chart(&values).iter().map(documents_of_release).collect();
    let environment = |documents: &[Value]| {
        let list = container(documents)["env"].as_array().unwrap().clone();
        let pair = |variable: &Value| {
            format!("{}={}", variable["name"].as_str().unwrap(), variable["value"])
        };
        list.iter().map(pair).filter(|pair| pair.contains("KUBERNETES")).collect::<Vec<_>>()
    };
    assert_eq!(
        environment(&documents[0]),
        [
            "DCGM_EXPORTER_KUBERNETES=\"true\"",
            "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_LABELS=\"true\"",
            "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_UID=\"true\"",
            "DCGM_EXPORTER_KUBERNETES_POD_LABEL_ALLOWLIST_REGEX=\"^app$,^team\"",
            "KUBERNETES_ENABLE_DRA=\"true\"",
        ]
    );
    assert_eq!(environment(&documents[1]), ["DCGM_EXPORTER_KUBERNETES=\"true\""]);
    assert_eq!(environment(&documents[2]), Vec::<String>::new(), "not needed in the ack dialect");

    let map = single_of_kind(&documents[0], "ConfigMap");
    assert_eq!(map["data"]["metrics"], counters);
    let mounts = container(&documents[0])["volumeMounts"].to_string();
    assert!(mounts.contains("\"/etc/dcgm-exporter\"") && !mounts.contains("subPath"), "{mounts}");
    let arguments = container(&documents[0])["args"].to_string();
    let flag = "--collectors=/etc/dcgm-exporter/default-counters.csv";
    assert!(arguments.contains(flag), "{arguments}");
    for (name, documents) in ["counters", "dcgm-exporter"].iter().zip(&documents) {
        validate(name, documents);
        check_references(name, documents);
        check_command(name, documents);
    }
    assert_eq!(of_kind(&documents[2], "ConfigMap").len(), 0);
}

#[test]
fn certificates_and_passwords_are_applied() {
    let tls = json!({"enabled": true, "cert": "CERT", "key": "KEY", "ca": "CA"});
    let mutual = json!({
        "enabled": true, "existingSecret": "mine", "clientAuthType": "RequireAndVerifyClientCert",
    });
    let values = json!([
        {
            "tlsServerConfig": tls,
            "basicAuth": {"users": {"alice": "secret"}},
            "podMonitor": {"enabled": true, "tlsConfig": {"insecureSkipVerify": true}},
        },
        {"tlsServerConfig": mutual},
        {},
    ]);
    let documents: Vec<Vec<Value>> =
        render_chart(&values).iter().map(documents_of_release).collect();
    let secrets = of_kind(&documents[0], "Secret");
    let web_config = secrets[0]["stringData"]["web-config.yaml"].as_str().unwrap();
    assert!(web_config.contains("cert_file: /etc/nvml-exporter-tls/tls.crt"), "{web_config}");
    let hash = web_config.split("\"alice\": \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(hash.starts_with("$2a$") && !web_config.contains("secret"), "{web_config}");
    assert!(bcrypt::verify("secret", hash).unwrap(), "{hash}");
    assert_eq!(secrets[1]["stringData"]["tls.key"], "KEY\n");
    let probe = |documents: &[Value], name: &str| container(documents)[name].clone();
    assert_eq!(probe(&documents[0], "livenessProbe")["httpGet"]["scheme"], "HTTPS");
    let monitor =
        single_of_kind(&documents[0], "PodMonitor")["spec"]["podMetricsEndpoints"][0].clone();
    assert_eq!(monitor["scheme"], "https");
    assert_eq!(monitor["tlsConfig"]["insecureSkipVerify"], true);

    // With client certificates the kubelet cannot send HTTP requests, so the probes only connect.
    assert!(probe(&documents[1], "livenessProbe")["tcpSocket"].is_object());
    assert_eq!(
        of_kind(&documents[1], "Secret").len(),
        1,
        "the certificate is in an existing Secret"
    );
    assert!(container(&documents[1])["args"].to_string().contains("--web-config-file="));
    assert_eq!(of_kind(&documents[2], "Secret").len(), 0);
    check_references("web", &documents[0]);
}

#[test]
fn unsupported_values_are_rejected_by_name() {
    let cases = [
        (json!({"tlsServerConfig": {"enabled": true}}), "tlsServerConfig.enabled"),
        (json!({"tlsServerConfig": {"clientAuthType": "Always"}}), "clientAuthType"),
        (
            json!({"serviceMonitor": {"enabled": true}, "podMonitoring": {"enabled": true}}),
            "serviceMonitor.enabled and podMonitoring.enabled are set",
        ),
        (json!({"image": {"repository": ""}}), "build one and push it"),
        (json!({"image": {"repository": "nvcr.io/nvidia/k8s/dcgm-exporter"}}), "image.repository"),
        (
            json!({"service": {"port": 9445, "address": ":9400"}}),
            "does not end in service.port 9445",
        ),
        (json!({"serviceMonitors": {}}), "serviceMonitors"),
        (json!({"dialect": "nvidia"}), "dialect"),
        (json!({"rollingUpdate": {"maxUnavailable": "some"}}), "maxUnavailable"),
    ];
    let values: Vec<&Value> = cases.iter().map(|(values, _)| values).collect();
    for ((values, text), release) in cases.iter().zip(render_chart(&json!(values))) {
        let error = release["error"].as_str().unwrap_or_else(|| panic!("{values} is accepted"));
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn default_values_match_the_schema_and_are_used() {
    let schema: Value = serde_json::from_str(&read("daemonset/chart/values.schema.json")).unwrap();
    let values = documents(&read("daemonset/chart/values.yaml")).remove(0);
    let known: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    for key in known.iter().filter(|key| **key != "global") {
        assert!(values.get(key.as_str()).is_some(), "{key} has no default");
    }
    // Every key is used by a template.
    let mut templates = String::new();
    for entry in fs::read_dir(root().join("daemonset/chart/templates")).unwrap() {
        templates += &fs::read_to_string(entry.unwrap().path()).unwrap();
    }
    for key in values.as_object().unwrap().keys() {
        assert!(templates.contains(&format!(".Values.{key}")), "{key} is not used");
    }
}

#[test]
fn notes_say_what_is_scraped_and_what_is_missing() {
    let users = json!({"users": {"alice": "secret"}});
    let cases = [
        (
            json!({}),
            vec!["every node; on nodes without", "Scraped: nothing. Enable", "containers: yes"],
        ),
        (
            json!({"podMonitor": {"enabled": true}, "ownMetricsPath": "/own", "gpuNodesOnly": true}),
            vec![
                "with a GPU label",
                "/metrics and /own every 15s, by a PodMonitor of monitoring.coreos",
            ],
        ),
        (
            json!({"podMonitoring": {"enabled": true}}),
            vec!["every 30s, by a PodMonitoring of Google"],
        ),
        (json!({"hostPID": false}), vec!["containers: no, hostPID is off"]),
        (
            json!({"dialect": "dcgm-exporter"}),
            vec!["containers: no, select them with customMetrics"],
        ),
        (
            json!({"runtimeClassName": "nvidia"}),
            vec!["do not start on nodes without the runtime class"],
        ),
        (
            json!({"basicAuth": users, "serviceMonitor": {"enabled": true}}),
            vec!["serviceMonitor.basicAuth is empty", "alerts: no, set prometheusRule.enabled"],
        ),
        (json!({"kubernetes": {"rbac": {"create": false}}}), vec!["are withheld"]),
    ];
    let values: Vec<&Value> = cases.iter().map(|(values, _)| values).collect();
    for ((values, texts), release) in cases.iter().zip(render_chart(&json!(values))) {
        let notes = release["notes"].as_str().unwrap();
        for text in texts {
            assert!(notes.contains(text), "{values}: no {text:?} in\n{notes}");
        }
    }
}

#[test]
fn chart_version_matches_the_program() {
    let chart = documents(&read("daemonset/chart/Chart.yaml")).remove(0);
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    let releases = render_chart(&json!([{}]));
    let image =
        container(&documents_of_release(&releases[0]))["image"].as_str().unwrap().to_owned();
    assert_eq!(image, format!("nvml-exporter:{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(of_kind(&documents_of_release(&releases[0]), "ServiceMonitor").len(), 0);
}
