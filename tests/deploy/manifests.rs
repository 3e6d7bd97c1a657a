//! The kustomizations: they render, match the schemas of Kubernetes, and request only the permissions that they use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::monitors::check_monitors;
use crate::programs::{read, root, run, stderr_of, stdout_of, tool_path};

/// Every folder that users apply.
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
/// The folders that run the exporter.
const EXPORTERS: [&str; 6] = [
    "base",
    "overlays/ack",
    "overlays/dcgm-exporter",
    "overlays/mig",
    "overlays/mock",
    "overlays/prometheus-operator",
];
/// The oldest and the newest Kubernetes version that the manifests are validated against.
const KUBERNETES: &str = "1.27.0,1.34.0,1.37.0";
/// Kinds that have no schema in Kubernetes. Those of monitors are checked by [`check_monitors`].
const OTHER_KINDS: [&str; 4] = ["PodMonitor", "PodMonitoring", "PrometheusRule", "ServiceMonitor"];

/// The documents of a YAML text.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let script = root().join("tests/clients/manifests.py").display().to_string();
    let output = stdout_of(&tool_path("python/bin/python"), &[&script, "json", "-"], text);
    serde_json::from_str(&output).unwrap()
}

/// The output of `kubectl kustomize`, cached per folder.
pub(crate) fn render_kustomization(folder: &str) -> Vec<Value> {
    static CACHE: Mutex<BTreeMap<String, Vec<Value>>> = Mutex::new(BTreeMap::new());
    let render = || {
        let path = root().join("daemonset").join(folder).display().to_string();
        documents(&stdout_of(&tool_path("python/bin/kubectl"), &["kustomize", &path], ""))
    };
    CACHE.lock().unwrap().entry(folder.to_owned()).or_insert_with(render).clone()
}

/// Renders the text of a kustomization in which `DAEMONSET` is the folder of the manifests.
pub(crate) fn render_text(text: &str) -> Vec<Value> {
    render_files(&[("kustomization.yaml", text)])
}

/// Renders a folder with these files.
pub(crate) fn render_files(files: &[(&str, &str)]) -> Vec<Value> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // Kustomize rejects absolute paths.
    let up = "../".repeat(folder.path().components().count() - 1);
    let daemonset = root().join("daemonset").display().to_string();
    let daemonset = format!("{up}{}", daemonset.trim_start_matches('/'));
    for (file, text) in files {
        fs::write(folder.path().join(file), text.replace("DAEMONSET", &daemonset)).unwrap();
    }
    let path = folder.path().display().to_string();
    documents(&stdout_of(&tool_path("python/bin/kubectl"), &["kustomize", &path], ""))
}

/// Checks that every document matches its schema. Only kinds of monitors and rules may have none.
pub(crate) fn validate(name: &str, documents: &[Value]) {
    let script = root().join("tests/clients/manifests.py").display().to_string();
    let input = serde_json::to_string(documents).unwrap();
    let arguments = [script.as_str(), "validate", KUBERNETES];
    let output = run(&tool_path("python/bin/python"), &arguments, &input);
    assert!(output.status.success(), "{name}: {}", stderr_of(&output));
    let unknown: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
    for kind in unknown {
        assert!(OTHER_KINDS.contains(&kind.as_str()), "{name}: Kubernetes has no {kind}");
    }
    check_monitors(name, documents);
}

pub(crate) fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

pub(crate) fn single_of_kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(documents, kind);
    assert_eq!(found.len(), 1, "one {kind}");
    found[0]
}

fn pod(documents: &[Value]) -> &Value {
    &single_of_kind(documents, "DaemonSet")["spec"]["template"]
}

fn container(documents: &[Value]) -> &Value {
    let containers = pod(documents)["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    &containers[0]
}

/// Differences of an installation from the base.
#[expect(clippy::struct_excessive_bools, reason = "each is independent of the others")]
#[derive(Clone, Copy, Default)]
pub(crate) struct Variant {
    /// No process series.
    pub(crate) devices_only: bool,
    /// MIG monitor capability.
    pub(crate) mig: bool,
    /// Simulated GPUs.
    pub(crate) mock: bool,
    /// No access to the API server.
    pub(crate) node_only: bool,
}

/// Checks the capabilities, mounts and RBAC rules of the pods, completely.
pub(crate) fn check_privileges(name: &str, documents: &[Value], variant: Variant) {
    let spec = &pod(documents)["spec"];
    let container = container(documents);
    let security = &container["securityContext"];
    let mut capabilities = json!({"drop": ["ALL"]});
    if variant.mig {
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
    if variant.mock {
        assert_eq!(spec["hostPID"], Value::Null, "{name}");
        assert_eq!(security["runAsNonRoot"], true, "{name}");
        assert_eq!(spec["automountServiceAccountToken"], false, "{name}");
        assert!(volumes.iter().all(|volume| volume["emptyDir"].is_object()), "{name}");
        assert_eq!(of_kind(documents, "ClusterRole").len(), 0, "{name}");
    } else {
        let host_pid = if variant.devices_only { Value::Null } else { json!(true) };
        assert_eq!(spec["hostPID"], host_pid, "{name}");
        assert_eq!(security["runAsUser"], 0, "{name}");
        let folders: BTreeSet<&str> =
            volumes.iter().map(|volume| volume["hostPath"]["path"].as_str().unwrap()).collect();
        let mut wanted = BTreeSet::from([
            "/sys/fs/cgroup",
            "/var/lib/kubelet/pod-resources",
            "/var/lib/kubelet/pods-api",
        ]);
        if !variant.devices_only {
            wanted.extend(["/var/log/containers", "/var/log/pods"]);
        }
        assert_eq!(folders, wanted, "{name}");
        for mount in mounts {
            assert_eq!(mount["readOnly"], true, "{name}: {mount}");
            // The container has its own cgroup at the path of the node's.
            let path = mount["mountPath"].as_str().unwrap().trim_start_matches("/host");
            assert!(folders.contains(path), "{name}: {mount}");
        }
        for volume in volumes {
            let path = volume["hostPath"]["path"].as_str().unwrap();
            let created = path == "/var/lib/kubelet/pods-api";
            let wanted = if created { "DirectoryOrCreate" } else { "Directory" };
            assert_eq!(volume["hostPath"]["type"], wanted, "{name}: {path}");
        }
    }
    assert_eq!(spec["automountServiceAccountToken"], !variant.mock && !variant.node_only, "{name}");
    if variant.node_only {
        for kind in ["ClusterRole", "ClusterRoleBinding"] {
            assert_eq!(of_kind(documents, kind).len(), 0, "{name}: {kind}");
        }
    } else if !variant.mock {
        // RBAC: only reads of pods, resource slices and claims, and nodes.
        let rules = json!([
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
            {"apiGroups": ["resource.k8s.io"], "resources": ["resourceslices"], "verbs": ["list"]},
            {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["watch"]},
        ]);
        let role = single_of_kind(documents, "ClusterRole");
        assert_eq!(role["rules"], rules, "{name}");
        let binding = single_of_kind(documents, "ClusterRoleBinding");
        let service_account = single_of_kind(documents, "ServiceAccount");
        assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"], "{name}");
        assert_eq!(binding["subjects"][0]["name"], service_account["metadata"]["name"], "{name}");
        let namespace = service_account["metadata"]["namespace"].as_str().unwrap_or("default");
        assert_eq!(binding["subjects"][0]["namespace"], namespace, "{name}");
        assert_eq!(spec["serviceAccountName"], service_account["metadata"]["name"], "{name}");
    }
    assert_eq!(of_kind(documents, "Role").len() + of_kind(documents, "RoleBinding").len(), 0);
    assert_eq!(
        single_of_kind(documents, "ServiceAccount")["automountServiceAccountToken"],
        false,
        "{name}"
    );
}

/// Checks that a selector is not empty and matches the labels.
fn check_selector(name: &str, selector: &Value, labels: &Value) {
    let selector = selector.as_object().unwrap_or_else(|| panic!("{name}: no selector"));
    assert!(!selector.is_empty(), "{name} selects everything");
    for (key, value) in selector {
        assert_eq!(&labels[key], value, "{name}: {key}");
    }
}

/// Checks that service, network policy, monitors and probes refer to the exporter's pods and port.
pub(crate) fn check_references(name: &str, documents: &[Value]) {
    let labels = &pod(documents)["metadata"]["labels"];
    let daemonset = single_of_kind(documents, "DaemonSet");
    let port = &container(documents)["ports"][0];
    let (port_name, number) = (&port["name"], &port["containerPort"]);
    check_selector(name, &daemonset["spec"]["selector"]["matchLabels"], labels);

    let service = single_of_kind(documents, "Service");
    check_selector(name, &service["spec"]["selector"], labels);
    assert_eq!(service["spec"]["publishNotReadyAddresses"], true, "{name}");
    assert_eq!(service["spec"]["clusterIP"], "None", "{name}");
    assert_eq!(&service["spec"]["ports"][0]["name"], port_name, "{name}");
    assert_eq!(&service["spec"]["ports"][0]["port"], number, "{name}");
    assert_eq!(&service["spec"]["ports"][0]["targetPort"], port_name, "{name}");

    let policy = single_of_kind(documents, "NetworkPolicy");
    check_selector(name, &policy["spec"]["podSelector"]["matchLabels"], labels);
    assert_eq!(&policy["spec"]["ingress"][0]["ports"][0]["port"], number, "{name}");

    for (probe, path) in [
        ("startupProbe", "/startupz"),
        ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
    ] {
        let probe = &container(documents)[probe]["httpGet"];
        assert_eq!((&probe["path"], &probe["port"]), (&json!(path), port_name), "{name}");
    }

    let monitors = of_kind(documents, "PodMonitor");
    let service_monitors = of_kind(documents, "ServiceMonitor");
    let google_monitors = of_kind(documents, "PodMonitoring");
    let count = monitors.len() + service_monitors.len() + google_monitors.len();
    assert!(count <= 1, "{name} scrapes every node twice");
    for (monitor, endpoints, wanted) in monitors
        .iter()
        .map(|monitor| (monitor, "podMetricsEndpoints", labels))
        .chain(service_monitors.iter().map(|m| (m, "endpoints", &service["metadata"]["labels"])))
        .chain(google_monitors.iter().map(|monitor| (monitor, "endpoints", labels)))
    {
        check_selector(name, &monitor["spec"]["selector"]["matchLabels"], wanted);
        assert_eq!(&monitor["spec"][endpoints][0]["port"], port_name, "{name}");
    }

    let rolling_update = &daemonset["spec"]["updateStrategy"]["rollingUpdate"];
    assert_eq!(rolling_update["maxSurge"], 0, "{name}: two exporters on one node double every sum");
    assert_eq!(of_kind(documents, "PodDisruptionBudget").len(), 0, "{name}");
}

/// Checks that the program accepts every flag and environment variable of a manifest.
pub(crate) fn check_command(name: &str, documents: &[Value]) {
    let program = env!("CARGO_BIN_EXE_nvml-exporter");
    let help = stdout_of(program, &["--help-all"], "");
    let arguments = container(documents)["args"].as_array().unwrap();
    let mut checked = Vec::new();
    for argument in arguments.iter().map(|argument| argument.as_str().unwrap()) {
        let (flag, value) = argument.split_once('=').unwrap_or((argument, ""));
        if !flag.starts_with('-') {
            checked.push(argument);
            continue;
        }
        if flag == "--address" {
            let port = &container(documents)["ports"][0]["containerPort"];
            assert!(value.ends_with(&format!(":{port}")), "{name}: {value}");
        }
        assert!(help.contains(flag), "{name}: {flag}");
        checked.push(argument);
    }
    stdout_of(program, &[&checked[..], &["--version"]].concat(), "");
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
fn kustomizations_render_and_match_the_schemas() {
    let documents: Vec<Value> = KUSTOMIZATIONS.into_iter().flat_map(render_kustomization).collect();
    validate("kustomizations", &documents);
    // All overlays are tested.
    let overlays = fs::read_dir(root().join("daemonset/overlays")).unwrap().count();
    assert_eq!(overlays + 1, EXPORTERS.len());
}

#[test]
fn misspelt_key_in_a_manifest_is_rejected() {
    let mut documents = render_kustomization("base");
    let daemonset = documents.iter_mut().find(|document| document["kind"] == "DaemonSet").unwrap();
    daemonset["spec"]["template"]["spec"]["hostPid"] = json!(true);
    let script = root().join("tests/clients/manifests.py").display().to_string();
    let input = serde_json::to_string(&documents).unwrap();
    let arguments = [script.as_str(), "validate", KUBERNETES];
    let output = run(&tool_path("python/bin/python"), &arguments, &input);
    assert!(!output.status.success());
    assert!(stderr_of(&output).contains("'hostPid' was unexpected"), "{}", stderr_of(&output));
}

#[test]
fn yamllint_reports_nothing() {
    let (folder, config) = ("daemonset", "daemonset/.yamllint.yaml");
    let path = |p: &str| root().join(p).display().to_string();
    let arguments = ["--strict", "-c", &path(config), &path(folder)];
    assert_eq!(stdout_of(&tool_path("python/bin/yamllint"), &arguments, ""), "");
}

#[test]
fn pods_have_minimal_privileges() {
    for folder in EXPORTERS {
        let variant = Variant {
            devices_only: folder == "overlays/dcgm-exporter",
            mig: folder == "overlays/mig",
            mock: folder == "overlays/mock",
            node_only: false,
        };
        check_privileges(folder, &render_kustomization(folder), variant);
    }
}

#[test]
fn resources_refer_to_the_same_pods_port_and_flags() {
    for folder in EXPORTERS {
        let documents = render_kustomization(folder);
        check_references(folder, &documents);
        check_command(folder, &documents);
    }
}

#[test]
fn seccomp_component_uses_the_profile_of_the_repository() {
    let text = "resources: [DAEMONSET/base]\ncomponents: [DAEMONSET/components/seccomp]\n";
    let documents = render_text(text);
    validate("components/seccomp", &documents);
    let profile = &pod(&documents)["spec"]["securityContext"]["seccompProfile"];
    assert_eq!(profile["type"], "Localhost");
    let file = profile["localhostProfile"].as_str().unwrap();
    let profile: Value = serde_json::from_str(&read(&format!("daemonset/seccomp/{file}"))).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let allowed = profile["syscalls"].as_array().unwrap().iter().flat_map(|entry| {
        assert_ne!(entry["action"], "SCMP_ACT_LOG", "SCMP_ACT_LOG permits the call");
        entry["names"].as_array().unwrap()
    });
    let allowed: BTreeSet<&str> = allowed.map(|name| name.as_str().unwrap()).collect();
    for denied in
        ["execveat", "ptrace", "mount", "unshare", "setns", "bpf", "process_vm_readv", "fork"]
    {
        assert!(!allowed.contains(denied), "{denied}");
    }
}

#[test]
fn images_have_this_version() {
    for folder in EXPORTERS {
        let image = container(&render_kustomization(folder))["image"].as_str().unwrap().to_owned();
        assert_eq!(image, format!("nvml-exporter:{}", env!("CARGO_PKG_VERSION")), "{folder}");
    }
}

#[test]
fn ack_overlay_matches_the_scrape_job_of_ack() {
    let documents = render_kustomization("overlays/ack");
    for document in &documents {
        if !document["kind"].as_str().unwrap().starts_with("Cluster") {
            assert_eq!(document["metadata"]["namespace"], "arms-prom", "{document}");
        }
    }
    // The namespace belongs to ACK: deleting the overlay must not delete it.
    assert_eq!(of_kind(&documents, "Namespace").len(), 0);
    let service = single_of_kind(&documents, "Service");
    assert_eq!(service["metadata"]["labels"]["k8s-app"], "ack-prometheus-gpu-exporter");
    assert_eq!(service["spec"]["ports"][0]["name"], "http-metrics");
    assert_eq!(service["spec"]["ports"][0]["port"], 9445);
    let arguments = container(&documents)["args"].as_array().unwrap();
    let moved = |argument: &Value| argument.as_str().unwrap().starts_with("--own-metrics-path=/");
    assert!(
        arguments.iter().any(moved),
        "ACK charges for other metrics at /metrics: {arguments:?}"
    );
    let text = read("daemonset/overlays/ack/kustomization.yaml");
    assert!(text.contains("DO NOT RUN IT TOGETHER WITH ACK's OWN EXPORTER"));
}

#[test]
fn dcgm_exporter_overlay_has_the_names_and_labels_of_dcgm_exporter() {
    let documents = render_kustomization("overlays/dcgm-exporter");
    for kind in ["DaemonSet", "Service"] {
        let metadata = &single_of_kind(&documents, kind)["metadata"];
        assert_eq!(metadata["name"], "dcgm-exporter");
        assert_eq!(metadata["labels"]["app.kubernetes.io/name"], "dcgm-exporter");
    }
    assert_eq!(single_of_kind(&documents, "Service")["spec"]["ports"][0]["name"], "metrics");
    let arguments = container(&documents)["args"].as_array().unwrap();
    assert!(arguments.contains(&json!("--dialect=dcgm-exporter")));
    let variable = json!({"name": "DCGM_EXPORTER_KUBERNETES", "value": "true"});
    assert!(container(&documents)["env"].as_array().unwrap().contains(&variable));
}

#[test]
fn mock_overlay_exports_series_with_its_node_name() {
    let documents = render_kustomization("overlays/mock");
    assert_eq!(pod(&documents)["spec"]["affinity"], Value::Null);
    let level = "pod-security.kubernetes.io/enforce";
    assert_eq!(single_of_kind(&documents, "Namespace")["metadata"]["labels"][level], "restricted");
    let arguments = container(&documents)["args"].as_array().unwrap();
    let arguments: Vec<&str> =
        arguments.iter().map(|argument| argument.as_str().unwrap()).collect();
    let more = ["--once", "--node-name=node-1"];
    let program = env!("CARGO_BIN_EXE_nvml-exporter");
    let exposition = stdout_of(program, &[&arguments[..], &more].concat(), "");
    assert!(exposition.contains("DCGM_CUSTOM_PROCESS_SM_UTIL{"), "{exposition}");
    assert!(exposition.contains(r#"NodeName="node-1""#));
}
