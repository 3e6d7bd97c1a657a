//! Components and installations in several namespaces.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::chart::{documents_of_release, render_chart};
use crate::manifests::{
    Variant, check_command, check_privileges, check_references, of_kind, render_files,
    render_kustomization, render_text, single_of_kind, validate,
};

fn pod_spec(documents: &[Value]) -> &Value {
    &single_of_kind(documents, "DaemonSet")["spec"]["template"]["spec"]
}

fn environment<'a>(documents: &'a [Value], name: &str) -> Option<&'a Value> {
    let variables = pod_spec(documents)["containers"][0]["env"].as_array().unwrap();
    variables.iter().find(|variable| variable["name"] == name).map(|found| &found["value"])
}

const REQUIRE_GPU: &str = "NVML_EXPORTER_REQUIRE_GPU";

/// The labels by which clusters and tools mark nodes with NVIDIA GPUs.
const GPU_LABELS: [(&str, &str); 12] = [
    ("nvidia.com/gpu.present", "true"),
    ("feature.node.kubernetes.io/pci-10de.present", "true"),
    ("feature.node.kubernetes.io/pci-0302_10de.present", "true"),
    ("feature.node.kubernetes.io/pci-0300_10de.present", "true"),
    ("feature.node.kubernetes.io/cpu-model.vendor_id", "NVIDIA"),
    ("aliyun.accelerator/nvidia_name", "Tesla-T4"),
    ("cloud.google.com/gke-accelerator", "nvidia-l4"),
    ("kubernetes.azure.com/accelerator", "nvidia"),
    ("karpenter.azure.com/sku-gpu-manufacturer", "nvidia"),
    ("k8s.amazonaws.com/accelerator", "nvidia-tesla-t4"),
    ("karpenter.k8s.aws/instance-gpu-manufacturer", "nvidia"),
    ("eks.amazonaws.com/instance-gpu-manufacturer", "nvidia"),
];

/// Whether a node with this label only is admitted by a required node affinity.
fn admits(affinity: &Value, key: &str, value: &str) -> bool {
    let required = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = required["nodeSelectorTerms"].as_array().unwrap();
    let matches = |expression: &Value| match expression["operator"].as_str().unwrap() {
        "In" => {
            expression["key"] == key
                && expression["values"].as_array().unwrap().contains(&json!(value))
        }
        "Exists" => expression["key"] == key,
        "NotIn" => {
            expression["key"] != key
                || !expression["values"].as_array().unwrap().contains(&json!(value))
        }
        operator => panic!("{operator}"),
    };
    terms.iter().any(|term| term["matchExpressions"].as_array().unwrap().iter().all(matches))
}

#[test]
fn pods_run_on_every_node_unless_restricted() {
    for folder in ["base", "overlays/dcgm-exporter", "overlays/mig", "overlays/prometheus-operator"]
    {
        let documents = render_kustomization(folder);
        assert_eq!(pod_spec(&documents)["affinity"], Value::Null, "{folder}");
        assert_eq!(pod_spec(&documents)["priorityClassName"], Value::Null, "{folder}");
        assert_eq!(environment(&documents, REQUIRE_GPU), None, "{folder}");
    }
    let ack = render_kustomization("overlays/ack");
    let affinity = &pod_spec(&ack)["affinity"];
    assert!(admits(affinity, "aliyun.accelerator/nvidia_name", "Tesla-T4"));
    assert!(!admits(affinity, "kubernetes.io/os", "linux"));
    let arguments = pod_spec(&ack)["containers"][0]["args"].as_array().unwrap();
    assert!(arguments.contains(&json!("--require-gpu")));
}

#[test]
fn gpu_nodes_only_admits_the_labels_of_every_platform() {
    let text = "resources: [DAEMONSET/base]\ncomponents: [DAEMONSET/components/gpu-nodes-only]\n";
    let component = render_text(text);
    let values = json!([{"gpuNodesOnly": true}, {}, {"gpuNodesOnly": true, "affinity": {"a": {}}}]);
    let releases = render_chart(&values);
    let release = documents_of_release(&releases[0]);
    for (name, documents) in [("component", &component), ("chart", &release)] {
        validate(name, documents);
        check_references(name, documents);
        check_command(name, documents);
        check_privileges(name, documents, Variant::default());
        let affinity = &pod_spec(documents)["affinity"];
        for (key, value) in GPU_LABELS {
            assert!(admits(affinity, key, value), "{name}: {key}");
        }
        for (key, value) in [
            ("kubernetes.io/os", "linux"),
            ("nvidia.com/gpu.present", "false"),
            ("kubernetes.azure.com/accelerator", "amd"),
            ("karpenter.k8s.aws/instance-gpu-manufacturer", "amd"),
        ] {
            assert!(!admits(affinity, key, value), "{name}: {key}={value}");
        }
        assert_eq!(environment(documents, REQUIRE_GPU), Some(&json!("true")), "{name}");
    }
    assert_eq!(pod_spec(&component)["affinity"], pod_spec(&release)["affinity"]);
    let unrestricted = documents_of_release(&releases[1]);
    assert_eq!(pod_spec(&unrestricted)["affinity"], Value::Null);
    assert_eq!(environment(&unrestricted, REQUIRE_GPU), None);
    let error = releases[2]["error"].as_str().unwrap();
    assert!(error.contains("gpuNodesOnly and affinity are both set"), "{error}");
}

#[test]
fn critical_priority_has_the_quota_that_some_clusters_require() {
    let text = "namespace: gpus\nresources: [DAEMONSET/base]\n\
                components: [DAEMONSET/components/system-node-critical]\n\
                transformers: [DAEMONSET/cluster-names]\n";
    let component = render_text(text);
    let critical = |class: &str| json!({"priorityClassName": class});
    let in_kube_system =
        json!({"priorityClassName": "system-node-critical", "namespaceOverride": "kube-system"});
    let values = json!([
        critical("system-node-critical"),
        critical("system-cluster-critical"),
        in_kube_system,
        critical("batch"),
        {},
    ]);
    let releases: Vec<Vec<Value>> =
        render_chart(&values).iter().map(documents_of_release).collect();
    for documents in [&component, &releases[0], &releases[1]] {
        validate("priority", documents);
        let quota = &single_of_kind(documents, "ResourceQuota");
        let class = &pod_spec(documents)["priorityClassName"];
        let scope = &quota["spec"]["scopeSelector"]["matchExpressions"][0];
        assert_eq!(
            (&scope["scopeName"], &scope["values"]),
            (&json!("PriorityClass"), &json!([class]))
        );
        let daemonset = single_of_kind(documents, "DaemonSet");
        assert_eq!(quota["metadata"]["namespace"], daemonset["metadata"]["namespace"]);
    }
    for documents in &releases[2..] {
        assert_eq!(of_kind(documents, "ResourceQuota").len(), 0);
    }
    assert_eq!(pod_spec(&releases[4])["priorityClassName"], Value::Null);
}

/// The kinds and names of cluster-scoped objects, without namespaces, which belong to their cluster.
fn cluster_scoped(documents: &[Value]) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let scoped = documents.iter().filter(|document| {
        document["metadata"]["namespace"] == Value::Null && document["kind"] != "Namespace"
    });
    scoped.map(|document| (text(&document["kind"]), text(&document["metadata"]["name"]))).collect()
}

/// Checks that the binding of the role refers to it and to the service account.
fn check_binding(name: &str, documents: &[Value]) {
    check_references(name, documents);
    let variant = Variant {
        devices_only: pod_spec(documents)["hostPID"] == Value::Null,
        ..Variant::default()
    };
    check_privileges(name, documents, variant);
}

#[test]
fn installations_in_two_namespaces_share_nothing() {
    let overlay = |namespace: &str| {
        render_text(&format!(
            "namespace: {namespace}\nresources: [DAEMONSET/overlays/prometheus-operator]\n\
             transformers: [DAEMONSET/cluster-names]\n"
        ))
    };
    let releases = render_chart(&json!([{"namespaceOverride": "c"}, {"namespaceOverride": "d"}]));
    let installations = [
        ("a", overlay("a")),
        ("b", overlay("b")),
        ("chart in c", documents_of_release(&releases[0])),
        ("chart in d", documents_of_release(&releases[1])),
        ("ack", render_kustomization("overlays/ack")),
        ("dcgm-exporter", render_kustomization("overlays/dcgm-exporter")),
    ];
    let mut all = BTreeSet::new();
    for (name, documents) in &installations {
        check_binding(name, documents);
        let scoped = cluster_scoped(documents);
        assert_eq!(scoped.len(), 2, "{name}: {scoped:?}");
        for object in scoped {
            assert!(
                all.insert(object.clone()),
                "{name}: {object:?} belongs to another installation"
            );
        }
    }
}

/// A suffix or another namespace in the user's own kustomization.
#[test]
fn binding_and_role_agree_in_kustomizations_of_users() {
    let text = "namespace: team\nnameSuffix: -mig\nresources: [DAEMONSET/overlays/mig]\n";
    let with_names = format!("{text}transformers: [DAEMONSET/cluster-names]\n");
    for (text, prefix) in [(text, "gpu-monitoring"), (with_names.as_str(), "team")] {
        let documents = render_text(text);
        let role = single_of_kind(&documents, "ClusterRole");
        assert_eq!(role["metadata"]["name"], format!("{prefix}:nvml-exporter-mig"));
        check_privileges(prefix, &documents, Variant { mig: true, ..Variant::default() });
    }
}

#[test]
fn roles_of_others_keep_their_names() {
    let other = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\n\
                 metadata: {name: \"other:nvml\"}\nrules: []\n";
    let text = "namespace: team\nresources: [DAEMONSET/base, other.yaml]\n\
                transformers: [DAEMONSET/cluster-names]\n";
    let documents = render_files(&[("kustomization.yaml", text), ("other.yaml", other)]);
    let names: BTreeSet<_> = cluster_scoped(&documents).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, BTreeSet::from(["other:nvml", "team:nvml-exporter"].map(str::to_owned)));
}

#[test]
fn labels_of_dcgm_exporter_are_available_for_its_monitors() {
    let values = json!([
        {"nameOverride": "dcgm-exporter", "component": "dcgm-exporter", "dialect": "dcgm-exporter"},
        {"podLabels": {"app.kubernetes.io/name": "other", "app.kubernetes.io/part-of": "ours"}},
    ]);
    let releases = render_chart(&values);
    let overlay = render_kustomization("overlays/dcgm-exporter");
    let release = documents_of_release(&releases[0]);
    for documents in [&overlay, &release] {
        let daemonset = single_of_kind(documents, "DaemonSet");
        let service = single_of_kind(documents, "Service");
        let pod_labels = &daemonset["spec"]["template"]["metadata"]["labels"];
        for labels in [&daemonset["metadata"]["labels"], &service["metadata"]["labels"], pod_labels]
        {
            assert_eq!(labels["app.kubernetes.io/name"], "dcgm-exporter");
            assert_eq!(labels["app.kubernetes.io/component"], "dcgm-exporter");
            assert_eq!(labels["app.kubernetes.io/part-of"], "nvml-exporter");
        }
    }
    // The user's labels of pods replace all but those of the selector.
    let documents = documents_of_release(&releases[1]);
    let labels = &single_of_kind(&documents, "DaemonSet")["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["app.kubernetes.io/name"], "nvml-exporter");
    assert_eq!(labels["app.kubernetes.io/part-of"], "ours");
}

#[test]
fn node_only_has_no_access_to_the_api_server() {
    let text = "resources: [DAEMONSET/base]\ncomponents: [DAEMONSET/components/node-only]\n";
    let documents = render_text(text);
    let variant = Variant { node_only: true, ..Variant::default() };
    check_privileges("node-only", &documents, variant);
    check_references("node-only", &documents);
    validate("node-only", &documents);
}
