//! The chart with many sets of values: each renders, matches the schemas, and is consistent.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::chart::{container, documents_of_release, render_chart};
use crate::manifests::{check_command, of_kind, single_of_kind, validate};
use crate::programs::read;

const COUNTERS: &str = "DCGM_FI_DEV_GPU_UTIL, gauge, util\n";

/// Sets of values, and the objects that each refers to and does not contain: `kind/name`.
#[expect(clippy::too_many_lines, reason = "a table")]
fn sets() -> Vec<(&'static str, Value, &'static [&'static str])> {
    let relabeling =
        json!([{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}]);
    let text_certificate = json!({
        "enabled": true, "cert": "CERT", "key": "KEY", "ca": "CA",
        "clientAuthType": "RequireAndVerifyClientCert",
    });
    vec![
        ("defaults", json!({}), &[]),
        ("dcgm-exporter", json!({"dialect": "dcgm-exporter"}), &[]),
        ("mig", json!({"mig": {"enabled": true}}), &[]),
        (
            "mig with own capabilities",
            json!({
                "mig": {"enabled": true}, "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}},
            }),
            &[],
        ),
        ("mock", json!({"mock": {"enabled": true, "scenario": "idle-t4"}}), &[]),
        ("mock on GPU nodes", json!({"mock": {"enabled": true}, "gpuNodesOnly": true}), &[]),
        ("GPU nodes", json!({"gpuNodesOnly": true}), &[]),
        ("GPU nodes of a pool", json!({"gpuNodesOnly": true, "nodeSelector": {"pool": "a"}}), &[]),
        ("critical", json!({"priorityClassName": "system-node-critical"}), &[]),
        (
            "in kube-system",
            json!({
                "priorityClassName": "system-node-critical", "namespaceOverride": "kube-system",
            }),
            &[],
        ),
        (
            "own path",
            json!({
                "ownMetricsPath": "/metrics/own", "serviceMonitor": {"enabled": true},
            }),
            &[],
        ),
        (
            "image",
            json!({
                "image": {"repository": "registry.example.com:5000/a/b", "tag": "1", "pullPolicy": "Always"},
                "imagePullSecrets": [{"name": "pull"}],
            }),
            &["Secret/pull"],
        ),
        ("names", json!({"nameOverride": "dcgm-exporter", "component": "dcgm-exporter"}), &[]),
        ("full name", json!({"fullnameOverride": "x", "namespaceOverride": "gpus"}), &[]),
        ("long name", json!({"fullnameOverride": "n".repeat(70)}), &[]),
        ("no host PIDs", json!({"hostPID": false}), &[]),
        ("host PIDs", json!({"dialect": "dcgm-exporter", "hostPID": true}), &[]),
        ("host network", json!({"hostNetwork": true}), &[]),
        ("runtime class", json!({"runtimeClassName": "nvidia"}), &[]),
        (
            "existing service account",
            json!({"serviceAccount": {"create": false, "name": "mine"}}),
            &["ServiceAccount/mine"],
        ),
        (
            "default service account",
            json!({"serviceAccount": {"create": false}}),
            &["ServiceAccount/default"],
        ),
        (
            "annotated service account",
            json!({
                "serviceAccount": {"create": true, "name": "reader", "annotations": {"a": "b"}},
            }),
            &[],
        ),
        ("rolling update", json!({"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}), &[]),
        (
            "labels and annotations",
            json!({
                "podLabels": {"team": "infra", "app.kubernetes.io/component": "gpu"},
                "podAnnotations": {"prometheus.io/scrape": "true"},
            }),
            &[],
        ),
        ("no service", json!({"service": {"enable": false}, "podMonitor": {"enabled": true}}), &[]),
        ("port", json!({"service": {"port": 9401}}), &[]),
        ("address", json!({"service": {"address": "[::1]:9402"}}), &[]),
        ("port and address", json!({"service": {"port": 9403, "address": "0.0.0.0:9403"}}), &[]),
        (
            "node port",
            json!({
                "service": {
                    "type": "NodePort", "clusterIP": "", "internalTrafficPolicy": "Local",
                    "labels": {"a": "b"}, "annotations": {"c": "d"},
                },
            }),
            &[],
        ),
        ("no resources", json!({"resources": null}), &[]),
        ("resources", json!({"resources": {"limits": {"cpu": "100m", "memory": "96Mi"}}}), &[]),
        (
            "service monitor",
            json!({
                "serviceMonitor": {
                    "enabled": true, "interval": "1m", "scrapeTimeout": "500ms", "honorLabels": true,
                    "additionalLabels": {"release": "p"}, "relabelings": relabeling,
                    "metricRelabelings": [{"action": "drop", "regex": "x", "sourceLabels": ["__name__"]}],
                },
            }),
            &[],
        ),
        (
            "Azure",
            json!({
                "podMonitor": {"enabled": true, "apiVersion": "azmonitoring.coreos.com/v1"},
            }),
            &[],
        ),
        (
            "Azure by service",
            json!({
                "serviceMonitor": {"enabled": true, "apiVersion": "azmonitoring.coreos.com/v1"},
            }),
            &[],
        ),
        ("Google", json!({"podMonitoring": {"enabled": true}}), &[]),
        (
            "Google with TLS",
            json!({
                "podMonitoring": {
                    "enabled": true, "interval": "1m", "timeout": "5s",
                    "endpoint": {"tls": {"insecureSkipVerify": true}},
                },
                "tlsServerConfig": {"enabled": true, "existingSecret": "mine"},
            }),
            &["Secret/mine"],
        ),
        (
            "rules",
            json!({"prometheusRule": {"enabled": true, "additionalLabels": {"a": "b"}}}),
            &[],
        ),
        ("no network policy", json!({"networkPolicy": {"enabled": false}}), &[]),
        ("API server", json!({"networkPolicy": {"apiServerPorts": [16443]}}), &[]),
        ("one pool", json!({"nodeSelector": {"gpu": "true"}, "tolerations": []}), &[]),
        (
            "affinity",
            json!({
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}],
                }}},
            }),
            &[],
        ),
        (
            "additional volumes",
            json!({
                "extraHostVolumes": [{"name": "lib", "hostPath": "/opt/nvidia"}],
                "extraConfigMapVolumes": [{"name": "more", "configMap": {"name": "more"}}],
                "extraVolumeMounts": [
                    {"name": "lib", "mountPath": "/opt/nvidia", "readOnly": true},
                    {"name": "more", "mountPath": "/more"},
                ],
            }),
            &["ConfigMap/more"],
        ),
        (
            "variables and init containers",
            json!({
                "extraEnv": [{"name": "NVML_EXPORTER_MAX_AGE", "value": "30000"}],
                "initContainers": [{"name": "wait", "image": "registry.example.com/wait:1"}],
            }),
            &[],
        ),
        (
            "paths",
            json!({
                "kubeletPath": "/var/snap/microk8s/common/var/lib/kubelet/pod-resources",
                "podsApiPath": "/var/snap/microk8s/common/var/lib/kubelet/pods-api",
                "logPaths": {"pods": "/data/pods", "containers": "/data/containers"},
            }),
            &[],
        ),
        ("node only", json!({"nodeOnly": true}), &[]),
        ("no rights", json!({"kubernetes": {"rbac": {"create": false}}}), &[]),
        (
            "pod labels",
            json!({
                "kubernetes": {
                    "enablePodLabels": true, "enablePodUID": true, "podLabelAllowlistRegex": ["^app"],
                },
                "kubernetesDRA": {"enabled": true},
            }),
            &[],
        ),
        ("counters", json!({"customMetrics": COUNTERS}), &[]),
        (
            "counters of processes",
            json!({
                "dialect": "dcgm-exporter",
                "customMetrics": "DCGM_CUSTOM_PROCESS_SM_UTIL, gauge, sm\n",
            }),
            &[],
        ),
        (
            "counters from the API server",
            json!({
                "customMetrics": COUNTERS, "arguments": ["-m", "monitoring:exporter-metrics-config-map"],
            }),
            &[],
        ),
        (
            "existing certificate",
            json!({
                "tlsServerConfig": {
                    "enabled": true, "existingSecret": "mine", "certFilename": "a.crt",
                    "keyFilename": "a.key", "caFilename": "a.ca",
                },
                "serviceMonitor": {"enabled": true, "tlsConfig": {"insecureSkipVerify": true}},
            }),
            &["Secret/mine"],
        ),
        ("certificate", json!({"tlsServerConfig": text_certificate}), &[]),
        (
            "passwords",
            json!({
                "basicAuth": {"users": {"alice": "secret", "bob": "other"}},
                "podMonitor": {
                    "enabled": true, "basicAuth": {"username": {"name": "p", "key": "user"}},
                },
            }),
            &[],
        ),
        (
            "probes",
            json!({
                "livenessProbe": {"initialDelaySeconds": 45, "periodSeconds": 5},
                "readinessProbe": {"initialDelaySeconds": 45},
            }),
            &[],
        ),
        ("dumps", json!({"debugDump": {"enabled": true}, "arguments": ["--debug"]}), &[]),
        (
            "own seccomp profile",
            json!({
                "podSecurityContext": {
                    "seccompProfile": {"type": "Localhost", "localhostProfile": "nvml-exporter.json"},
                },
            }),
            &[],
        ),
        (
            "ACK",
            json!({
                "ownMetricsPath": "/metrics/own", "gpuNodesOnly": true,
                "service": {
                    "port": 9445, "portName": "http-metrics",
                    "labels": {"k8s-app": "ack-prometheus-gpu-exporter"},
                },
            }),
            &[],
        ),
        (
            "all together",
            json!({
                "dialect": "dcgm-exporter", "fullnameOverride": "dcgm-exporter", "gpuNodesOnly": true,
                "priorityClassName": "system-node-critical", "runtimeClassName": "nvidia",
                "mig": {"enabled": true}, "ownMetricsPath": "/own", "customMetrics": COUNTERS,
                "tlsServerConfig": {"enabled": true, "cert": "CERT", "key": "KEY"},
                "basicAuth": {"users": {"alice": "secret"}}, "prometheusRule": {"enabled": true},
                "serviceMonitor": {"enabled": true, "honorLabels": true},
            }),
            &[],
        ),
    ]
}

#[test]
fn every_set_of_values_renders_valid_and_consistent_objects() {
    let sets = sets();
    assert!(sets.len() >= 30);
    let values: Vec<&Value> = sets.iter().map(|(_, values, _)| values).collect();
    let releases = render_chart(&json!(values));
    let mut all = Vec::new();
    for ((name, values, external), release) in sets.iter().zip(&releases) {
        let documents = documents_of_release(release);
        check_command(name, &documents);
        check_namespaces(name, values, &documents);
        check_pod(name, &documents, external);
        check_port(name, &documents);
        assert!(!release["notes"].as_str().unwrap().contains("%!"), "{name}");
        all.extend(documents);
    }
    validate("sets of values", &all);
}

/// Every key of the values is set by a set, so that a new one is not forgotten.
#[test]
fn sets_of_values_contain_every_key() {
    let schema: Value = serde_json::from_str(&read("daemonset/chart/values.schema.json")).unwrap();
    let sets = sets();
    let used: BTreeSet<&String> =
        sets.iter().flat_map(|(_, values, _)| values.as_object().unwrap().keys()).collect();
    for key in schema["properties"].as_object().unwrap().keys().filter(|key| *key != "global") {
        assert!(used.contains(key), "{key} is in no set");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Checks that every object is in the namespace of the release, and that no name stands twice.
fn check_namespaces(name: &str, values: &Value, documents: &[Value]) {
    let namespace = values["namespaceOverride"].as_str().unwrap_or("monitoring");
    let mut names = BTreeSet::new();
    for document in documents {
        let (kind, metadata) = (text(&document["kind"]), &document["metadata"]);
        let wanted = if kind.starts_with("Cluster") { "" } else { namespace };
        assert_eq!(text(&metadata["namespace"]), wanted, "{name}: {kind}");
        assert!(names.insert((kind, text(&metadata["name"]))), "{name}: two {kind}");
        assert!(text(&metadata["name"]).len() <= 90, "{name}: {kind}");
    }
}

/// Checks that the pod refers only to existing objects, and defines nothing twice.
fn check_pod(name: &str, documents: &[Value], external: &[&str]) {
    let daemonset = single_of_kind(documents, "DaemonSet");
    let template = &daemonset["spec"]["template"];
    let spec = &template["spec"];
    let labels = template["metadata"]["labels"].as_object().unwrap();
    for (key, value) in daemonset["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(labels.get(key), Some(value), "{name}");
    }
    let by_name = |list: &Value| -> BTreeMap<String, Value> {
        let items = list.as_array().cloned().unwrap_or_default();
        let named: BTreeMap<_, _> =
            items.iter().map(|item| (text(&item["name"]).to_owned(), item.clone())).collect();
        assert_eq!(named.len(), items.len(), "{name}: a name stands twice in {list}");
        named
    };
    by_name(&container(documents)["env"]);
    let volumes = by_name(&spec["volumes"]);
    let mounts = by_name(&container(documents)["volumeMounts"]);
    assert_eq!(volumes.keys().collect::<Vec<_>>(), mounts.keys().collect::<Vec<_>>(), "{name}");

    let mut references = vec![("ServiceAccount", spec["serviceAccountName"].clone())];
    for volume in volumes.values() {
        references.push(("Secret", volume["secret"]["secretName"].clone()));
        references.push(("ConfigMap", volume["configMap"]["name"].clone()));
    }
    for secret in spec["imagePullSecrets"].as_array().into_iter().flatten() {
        references.push(("Secret", secret["name"].clone()));
    }
    for (kind, reference) in references {
        let Some(reference) = reference.as_str() else { continue };
        let is_own =
            of_kind(documents, kind).iter().any(|one| one["metadata"]["name"] == reference);
        let is_external = external.contains(&format!("{kind}/{reference}").as_str());
        assert!(is_own != is_external, "{name}: {kind} {reference}");
    }
}

/// Checks that service, network policy and monitors refer to the port of the container.
fn check_port(name: &str, documents: &[Value]) {
    let port = &container(documents)["ports"][0];
    for service in of_kind(documents, "Service") {
        let of_service = &service["spec"]["ports"][0];
        assert_eq!(of_service["port"], port["containerPort"], "{name}");
        assert_eq!(of_service["targetPort"], port["name"], "{name}");
    }
    for policy in of_kind(documents, "NetworkPolicy") {
        let of_policy = &policy["spec"]["ingress"][0]["ports"][0]["port"];
        assert_eq!(*of_policy, port["containerPort"], "{name}");
    }
    let empty = Map::new();
    for document in documents {
        let spec = document["spec"].as_object().unwrap_or(&empty);
        for endpoints in
            ["endpoints", "podMetricsEndpoints"].iter().filter_map(|key| spec.get(*key))
        {
            for endpoint in endpoints.as_array().unwrap() {
                assert_eq!(endpoint["port"], port["name"], "{name}");
            }
        }
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let probe = &container(documents)[probe];
        let of_probe = probe.get("httpGet").or_else(|| probe.get("tcpSocket")).unwrap();
        assert_eq!(of_probe["port"], port["name"], "{name}");
    }
}
