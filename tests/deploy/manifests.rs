//! The kustomizations: they render, Kubernetes would take them, and they ask for no more than they use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::programs::{brought, errors, read, root, run, said};

/// Every folder that a user applies.
const KUSTOMIZATIONS: [&str; 8] = [
    "base",
    "dashboards",
    "overlays/ack",
    "overlays/dcgm-exporter",
    "overlays/mig",
    "overlays/mock",
    "overlays/prometheus-operator",
    "rules/adapter",
];
/// The folders among them that run the exporter.
const EXPORTERS: [&str; 6] = [
    "base",
    "overlays/ack",
    "overlays/dcgm-exporter",
    "overlays/mig",
    "overlays/mock",
    "overlays/prometheus-operator",
];
/// The oldest and the newest Kubernetes that the manifests are checked against.
const KUBERNETES: &str = "1.27.0,1.34.0";
/// Kinds whose schemas no Kubernetes has.
const OPERATOR: [&str; 3] = ["PodMonitor", "PrometheusRule", "ServiceMonitor"];

/// The documents of a YAML text.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let script = root().join("tests/clients/manifests.py").display().to_string();
    let answer = said(&brought("python/bin/python"), &[&script, "json", "-"], text);
    serde_json::from_str(&answer).unwrap()
}

/// What `kubectl apply --kustomize` would send; each folder is rendered once.
pub(crate) fn rendered(folder: &str) -> Vec<Value> {
    static ONCE: Mutex<BTreeMap<String, Vec<Value>>> = Mutex::new(BTreeMap::new());
    let render = || {
        let path = root().join("daemonset").join(folder).display().to_string();
        documents(&said(&brought("python/bin/kubectl"), &["kustomize", &path], ""))
    };
    ONCE.lock().unwrap().entry(folder.to_owned()).or_insert_with(render).clone()
}

/// Every document fits its schema, and only the operator's kinds have none.
pub(crate) fn validate(name: &str, documents: &[Value]) {
    let script = root().join("tests/clients/manifests.py").display().to_string();
    let input = serde_json::to_string(documents).unwrap();
    let arguments = [script.as_str(), "validate", KUBERNETES];
    let output = run(&brought("python/bin/python"), &arguments, &input);
    assert!(output.status.success(), "{name}: {}", errors(&output));
    let unknown: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
    for kind in unknown {
        assert!(OPERATOR.contains(&kind.as_str()), "{name}: no Kubernetes has {kind}");
    }
}

pub(crate) fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

pub(crate) fn only<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(documents, kind);
    assert_eq!(found.len(), 1, "one {kind}");
    found[0]
}

fn pod(documents: &[Value]) -> &Value {
    &only(documents, "DaemonSet")["spec"]["template"]
}

fn container(documents: &[Value]) -> &Value {
    let containers = pod(documents)["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    &containers[0]
}

/// What makes an installation other than the base.
#[derive(Clone, Copy, Default)]
pub(crate) struct Posture {
    /// It shows nothing of processes.
    pub(crate) devices_only: bool,
    /// It asks for the MIG monitor capability.
    pub(crate) mig: bool,
    /// It simulates its GPUs.
    pub(crate) mock: bool,
}

/// What the pods may do and see, to the last capability and folder.
pub(crate) fn check_posture(name: &str, documents: &[Value], posture: Posture) {
    let spec = &pod(documents)["spec"];
    let container = container(documents);
    let security = &container["securityContext"];
    let mut capabilities = json!({"drop": ["ALL"]});
    if posture.mig {
        capabilities["add"] = json!(["SYS_ADMIN"]);
    }
    assert_eq!(security["capabilities"], capabilities, "{name}");
    assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
    assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
    assert_eq!(security["privileged"], Value::Null, "{name}");
    assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
    assert_eq!(spec["hostNetwork"], Value::Null, "{name}");
    assert_eq!(spec["hostIPC"], Value::Null, "{name}");
    assert_eq!(spec["initContainers"], Value::Null, "{name}");

    let mounts = container["volumeMounts"].as_array().unwrap();
    let volumes = spec["volumes"].as_array().unwrap();
    let names = |list: &[Value]| -> BTreeSet<String> {
        list.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(mounts), names(volumes), "{name}");
    if posture.mock {
        assert_eq!(spec["hostPID"], Value::Null, "{name}");
        assert_eq!(security["runAsNonRoot"], true, "{name}");
        assert_eq!(spec["automountServiceAccountToken"], false, "{name}");
        assert!(volumes.iter().all(|volume| volume["emptyDir"].is_object()), "{name}");
        assert_eq!(of_kind(documents, "ClusterRole").len(), 0, "{name}");
    } else {
        let sees = if posture.devices_only { Value::Null } else { json!(true) };
        assert_eq!(spec["hostPID"], sees, "{name}");
        assert_eq!(security["runAsUser"], 0, "{name}");
        let folders: BTreeSet<&str> =
            volumes.iter().map(|volume| volume["hostPath"]["path"].as_str().unwrap()).collect();
        let mut wanted = BTreeSet::from(["/var/lib/kubelet/pod-resources"]);
        if !posture.devices_only {
            wanted.extend(["/var/log/containers", "/var/log/pods"]);
        }
        assert_eq!(folders, wanted, "{name}");
        for mount in mounts {
            assert_eq!(mount["readOnly"], true, "{name}: {mount}");
            assert!(folders.contains(mount["mountPath"].as_str().unwrap()), "{name}: {mount}");
        }
        // RBAC: the watch of pods and nothing else.
        let rules = json!([
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
            {"apiGroups": ["resource.k8s.io"], "resources": ["resourceslices"], "verbs": ["list"]},
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["watch"]},
        ]);
        let role = only(documents, "ClusterRole");
        assert_eq!(role["rules"], rules, "{name}");
        let binding = only(documents, "ClusterRoleBinding");
        let account = only(documents, "ServiceAccount");
        assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"], "{name}");
        assert_eq!(binding["subjects"][0]["name"], account["metadata"]["name"], "{name}");
        let namespace = account["metadata"]["namespace"].as_str().unwrap_or("default");
        assert_eq!(binding["subjects"][0]["namespace"], namespace, "{name}");
        assert_eq!(spec["serviceAccountName"], account["metadata"]["name"], "{name}");
    }
    assert_eq!(of_kind(documents, "Role").len() + of_kind(documents, "RoleBinding").len(), 0);
    assert_eq!(only(documents, "ServiceAccount")["automountServiceAccountToken"], false, "{name}");
}

/// Labels that select are on the pods, and they select something.
fn selects(name: &str, selector: &Value, labels: &Value) {
    let selector = selector.as_object().unwrap_or_else(|| panic!("{name}: no selector"));
    assert!(!selector.is_empty(), "{name} selects everything");
    for (key, value) in selector {
        assert_eq!(&labels[key], value, "{name}: {key}");
    }
}

/// Service, network policy, monitors and probes all mean the exporter's pods and its one port.
pub(crate) fn check_wiring(name: &str, documents: &[Value]) {
    let labels = &pod(documents)["metadata"]["labels"];
    let daemonset = only(documents, "DaemonSet");
    let port = &container(documents)["ports"][0];
    let (port_name, number) = (&port["name"], &port["containerPort"]);
    selects(name, &daemonset["spec"]["selector"]["matchLabels"], labels);

    let service = only(documents, "Service");
    selects(name, &service["spec"]["selector"], labels);
    assert_eq!(service["spec"]["publishNotReadyAddresses"], true, "{name}");
    assert_eq!(service["spec"]["clusterIP"], "None", "{name}");
    assert_eq!(&service["spec"]["ports"][0]["name"], port_name, "{name}");
    assert_eq!(&service["spec"]["ports"][0]["port"], number, "{name}");
    assert_eq!(&service["spec"]["ports"][0]["targetPort"], port_name, "{name}");

    let policy = only(documents, "NetworkPolicy");
    selects(name, &policy["spec"]["podSelector"]["matchLabels"], labels);
    assert_eq!(&policy["spec"]["ingress"][0]["ports"][0]["port"], number, "{name}");

    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        let probe = &container(documents)[probe]["httpGet"];
        assert_eq!((&probe["path"], &probe["port"]), (&json!(path), port_name), "{name}");
    }

    let monitors = of_kind(documents, "PodMonitor");
    let service_monitors = of_kind(documents, "ServiceMonitor");
    assert!(monitors.len() + service_monitors.len() <= 1, "{name} scrapes every node twice");
    for (monitor, endpoints, wanted) in monitors
        .iter()
        .map(|monitor| (monitor, "podMetricsEndpoints", labels))
        .chain(service_monitors.iter().map(|m| (m, "endpoints", &service["metadata"]["labels"])))
    {
        selects(name, &monitor["spec"]["selector"]["matchLabels"], wanted);
        assert_eq!(&monitor["spec"][endpoints][0]["port"], port_name, "{name}");
    }

    let bounds = &daemonset["spec"]["updateStrategy"]["rollingUpdate"];
    assert_eq!(bounds["maxSurge"], 0, "{name}: two exporters on one node double every sum");
    assert_eq!(of_kind(documents, "PodDisruptionBudget").len(), 0, "{name}");
}

/// The program knows every flag and every variable that a manifest gives it.
pub(crate) fn check_command(name: &str, documents: &[Value]) {
    let program = env!("CARGO_BIN_EXE_nvml-exporter");
    let help = said(program, &["--help"], "");
    let given = container(documents)["args"].as_array().unwrap();
    let mut known = Vec::new();
    for argument in given.iter().map(|argument| argument.as_str().unwrap()) {
        let (flag, value) = argument.split_once('=').unwrap_or((argument, ""));
        if !flag.starts_with('-') {
            known.push(argument);
            continue;
        }
        if flag == "--address" {
            let port = &container(documents)["ports"][0]["containerPort"];
            assert_eq!(value, format!(":{port}"), "{name}");
        }
        assert!(help.contains(flag), "{name}: {flag}");
        known.push(argument);
    }
    said(program, &[&known[..], &["--version"]].concat(), "");
    for variable in container(documents)["env"].as_array().unwrap() {
        let variable = variable["name"].as_str().unwrap();
        let runtimes = ["NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"];
        let others = ["NVIDIA_MIG_MONITOR_DEVICES", "TMPDIR"];
        if !runtimes.contains(&variable) && !others.contains(&variable) {
            let known = help.contains(&format!("[env: {variable}"));
            assert!(known, "{name}: {variable}");
        }
    }
    let node = container(documents)["env"].as_array().unwrap();
    let node = node.iter().find(|variable| variable["name"] == "NODE_NAME").expect("NODE_NAME");
    assert_eq!(node["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName", "{name}");
}

#[test]
fn kustomizations_render_and_kubernetes_would_take_them() {
    let documents: Vec<Value> = KUSTOMIZATIONS.into_iter().flat_map(rendered).collect();
    validate("kustomizations", &documents);
    // No folder that could be applied is left out.
    let overlays = fs::read_dir(root().join("daemonset/overlays")).unwrap().count();
    assert_eq!(overlays + 1, EXPORTERS.len());
}

#[test]
fn a_manifest_with_a_misspelt_key_would_be_noticed() {
    let mut documents = rendered("base");
    let daemonset = documents.iter_mut().find(|document| document["kind"] == "DaemonSet").unwrap();
    daemonset["spec"]["template"]["spec"]["hostPid"] = json!(true);
    let script = root().join("tests/clients/manifests.py").display().to_string();
    let input = serde_json::to_string(&documents).unwrap();
    let arguments = [script.as_str(), "validate", KUBERNETES];
    let output = run(&brought("python/bin/python"), &arguments, &input);
    assert!(!output.status.success());
    assert!(errors(&output).contains("'hostPid' was unexpected"), "{}", errors(&output));
}

#[test]
fn yamllint_finds_nothing() {
    let (folder, config) = ("daemonset", "daemonset/.yamllint.yaml");
    let path = |p: &str| root().join(p).display().to_string();
    let arguments = ["--strict", "-c", &path(config), &path(folder)];
    assert_eq!(said(&brought("python/bin/yamllint"), &arguments, ""), "");
}

#[test]
fn pods_may_do_and_see_no_more_than_they_need() {
    for folder in EXPORTERS {
        let posture = Posture {
            devices_only: folder == "overlays/dcgm-exporter",
            mig: folder == "overlays/mig",
            mock: folder == "overlays/mock",
        };
        check_posture(folder, &rendered(folder), posture);
    }
}

#[test]
fn everything_means_the_same_pods_port_and_program() {
    for folder in EXPORTERS {
        let documents = rendered(folder);
        check_wiring(folder, &documents);
        check_command(folder, &documents);
    }
}

#[test]
fn the_seccomp_component_asks_for_the_filter_that_lies_here() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // Kustomize takes no absolute paths.
    let up = "../".repeat(folder.path().components().count() - 1);
    let daemonset = root().join("daemonset").display().to_string();
    let to = |what: &str| format!("{up}{}/{what}", daemonset.trim_start_matches('/'));
    let text = format!("resources: [{}]\ncomponents: [{}]\n", to("base"), to("components/seccomp"));
    fs::write(folder.path().join("kustomization.yaml"), text).unwrap();
    let path = folder.path().display().to_string();
    let documents = documents(&said(&brought("python/bin/kubectl"), &["kustomize", &path], ""));
    validate("components/seccomp", &documents);
    let profile = &pod(&documents)["spec"]["securityContext"]["seccompProfile"];
    assert_eq!(profile["type"], "Localhost");
    let file = profile["localhostProfile"].as_str().unwrap();
    let filter: Value = serde_json::from_str(&read(&format!("daemonset/seccomp/{file}"))).unwrap();
    assert_eq!(filter["defaultAction"], "SCMP_ACT_ERRNO");
    let allowed = filter["syscalls"].as_array().unwrap().iter().flat_map(|entry| {
        assert_ne!(entry["action"], "SCMP_ACT_LOG", "what is logged is allowed");
        entry["names"].as_array().unwrap()
    });
    let allowed: BTreeSet<&str> = allowed.map(|name| name.as_str().unwrap()).collect();
    for never in
        ["execveat", "ptrace", "mount", "unshare", "setns", "bpf", "process_vm_readv", "fork"]
    {
        assert!(!allowed.contains(never), "{never}");
    }
}

#[test]
fn images_are_of_this_version() {
    for folder in EXPORTERS {
        let image = container(&rendered(folder))["image"].as_str().unwrap().to_owned();
        assert_eq!(image, format!("nvml-exporter:{}", env!("CARGO_PKG_VERSION")), "{folder}");
    }
}

#[test]
fn the_ack_overlay_is_where_acks_scrape_job_looks() {
    let documents = rendered("overlays/ack");
    for document in &documents {
        if !document["kind"].as_str().unwrap().starts_with("Cluster") {
            assert_eq!(document["metadata"]["namespace"], "arms-prom", "{document}");
        }
    }
    // The namespace is ACK's; deleting this overlay must not delete it.
    assert_eq!(of_kind(&documents, "Namespace").len(), 0);
    let service = only(&documents, "Service");
    assert_eq!(service["metadata"]["labels"]["k8s-app"], "ack-prometheus-gpu-exporter");
    assert_eq!(service["spec"]["ports"][0]["name"], "http-metrics");
    assert_eq!(service["spec"]["ports"][0]["port"], 9445);
    let arguments = container(&documents)["args"].as_array().unwrap();
    let moved = |argument: &Value| argument.as_str().unwrap().starts_with("--own-metrics-path=/");
    assert!(arguments.iter().any(moved), "names off the free list cost money: {arguments:?}");
    let text = read("daemonset/overlays/ack/kustomization.yaml");
    assert!(text.contains("NEVER BESIDE ACK's OWN EXPORTER"));
}

#[test]
fn the_dcgm_exporter_overlay_has_its_names_and_labels() {
    let documents = rendered("overlays/dcgm-exporter");
    for kind in ["DaemonSet", "Service"] {
        let metadata = &only(&documents, kind)["metadata"];
        assert_eq!(metadata["name"], "dcgm-exporter");
        assert_eq!(metadata["labels"]["app.kubernetes.io/name"], "dcgm-exporter");
    }
    assert_eq!(only(&documents, "Service")["spec"]["ports"][0]["name"], "metrics");
    let arguments = container(&documents)["args"].as_array().unwrap();
    assert!(arguments.contains(&json!("--dialect=dcgm-exporter")));
    let names_pods = json!({"name": "DCGM_EXPORTER_KUBERNETES", "value": "true"});
    assert!(container(&documents)["env"].as_array().unwrap().contains(&names_pods));
}

#[test]
fn the_mock_overlay_shows_series_of_its_node() {
    let documents = rendered("overlays/mock");
    assert_eq!(pod(&documents)["spec"]["affinity"], Value::Null);
    let level = "pod-security.kubernetes.io/enforce";
    assert_eq!(only(&documents, "Namespace")["metadata"]["labels"][level], "restricted");
    let given = container(&documents)["args"].as_array().unwrap();
    let given: Vec<&str> = given.iter().map(|argument| argument.as_str().unwrap()).collect();
    let more = ["--once", "--node-name=node-1"];
    let page = said(env!("CARGO_BIN_EXE_nvml-exporter"), &[&given[..], &more].concat(), "");
    assert!(page.contains("DCGM_CUSTOM_PROCESS_SM_UTIL{"), "{page}");
    assert!(page.contains(r#"NodeName="node-1""#));
}
